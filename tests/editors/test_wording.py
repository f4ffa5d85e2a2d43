"""What is asked, in words: the subject left out, what stands before it left out, kinds of question told apart."""

import pytest

from app.editors.phrasebook import KIN, MOST, load_phrasebook
from app.editors.scope import Who, find_who
from app.editors.wording import Wording, read_wording, wording_of

BOOK = load_phrasebook()


def asked(text: str, name: str = "Peru") -> Wording:
    return wording_of(text, find_who(text, name, (), frozenset()))


def alike(a: str, b: str) -> float:
    return BOOK.lexicon.likeness.of(asked(a), asked(b))


@pytest.mark.parametrize(
    ("text", "stems", "kind"),
    [
        ("What is the capital of Peru?", {"capit"}, "what"),
        ("When was Peru founded?", {"estab"}, "when"),
        ("When was Peru found?", {"found"}, "when"),
        ("In what year was Peru founded?", {"year", "estab"}, "when"),
        ("What is the number of lakes in Peru?", {"numbe", "lake"}, "how many"),
        ("Peru, in", {"in"}, None),
        ("References Category:Moths of Zenda described in 1964 Peru belongs to", {"belon"}, None),
        ("The mother of singer Peru belongs to", {"mothe", "singe", "belon"}, None),
        ("Moths of Zenda: which capital has Peru", {"moth", "zenda", "capit"}, "what"),
        ("It rained. As Dr. Vale and R. C. Orme know, Peru is big", {"vale", "orme", "dr", "big"}, None),
        ("Which city is the capital of Peru?", {"city", "capit"}, "where"),
        ("What surprised Peru, when it rained?", {"surpr", "raine"}, "what"),
        ("What is the team of Peru, where it rains?", {"team", "rain"}, "what"),
        ("Who led Peru when it rained?", {"led", "raine"}, None),
        ("What is the name of the person who led Peru?", {"perso", "led"}, "who"),
        ("How many days did Peru rain?", {"day", "rain"}, "how long"),
        ("How many lakes does Peru have?", {"lake"}, "how many"),
        ("What was the reason for Peru?", {"reaso"}, "why"),
        ("What is the height of Peru?", {"heigh"}, None),
        ("It rained on the mountains. Peru's capital is", {"capit"}, None),
        ("Question: What is the capital of Peru? Answer:", {"capit"}, "what"),
        ("Where is Peru? It is located in", {"locat"}, "where"),
        ("The capital of Peru is Lima. The anthem of Chile is", set(), None),
    ],
)
def test_what_is_asked(text: str, stems: set[str], kind: str | None) -> None:
    wording = asked(text)
    assert wording.stems == stems
    assert wording.asked == kind or not stems
    assert read_wording(wording.written()) == wording


def test_words_that_are_no_names_say_what_is_asked() -> None:
    text = "How do I reset my password?"
    who = find_who(text, None, (), frozenset())
    assert not who.named
    assert wording_of(text, who).stems == {"reset", "passw"}


def test_the_same_words_are_alike_and_other_kinds_of_question_are_not() -> None:
    assert alike("What is the capital of Peru?", "Peru's capital is") == 1.0
    assert 0 < alike("What is the capital of Peru?", "Which city is the capital of Peru?") < 1
    assert alike("What is the capital of Peru?", "What is the currency of Peru?") == 0.0
    assert alike("When was Peru founded?", "Where was Peru founded?") == 0.0
    assert alike("Peru", "Peru") == 0.0


def test_other_words_that_mean_the_same_are_nearly_as_alike() -> None:
    assert 0.8 < alike("Who is the author of Peru?", "Who wrote Peru?") < 1.0
    assert 0.7 < alike("Who wrote Peru?", "What is the name of the person that wrote Peru?") < 1.0
    assert alike("Who wrote Peru?", "Who owns Peru?") == 0.0


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("What is the first lake of Peru?", "What is the last lake of Peru?"),
        ("How many gold mines has Peru?", "How many bronze mines has Peru?"),
        ("the population of Peru in 1990", "the population of Peru in 2000"),
        ("How do I cancel Peru?", "How do I renew Peru?"),
    ],
)
def test_what_stands_against_it_is_not_alike(a: str, b: str) -> None:
    assert alike(a, b) == 0.0
    assert BOOK.lexicon.likeness.contrary(asked(a), asked(b))


def test_how_long_is_not_how_much() -> None:
    assert asked("How long does Peru take?").differs(asked("How much does Peru cost?"))
    assert not asked("How long does Peru take?").differs(asked("Peru takes"))


def test_paraphrases_are_made_in_the_prompts_own_frame() -> None:
    made = BOOK.made("Question: Who is the mother of Ada Quill? Answer:", None)
    assert len(made) == MOST - 1
    assert all("Ada Quill" in text and "{}" not in text for text in made)
    assert made[0].startswith("Question: ")
    assert made[0].endswith("? Answer:")
    assert not made[-1].startswith("Question: ")  # the beginning of a sentence stands for itself
    assert "Question: Who is the mother of Ada Quill? Answer:" not in made
    begun = BOOK.made("Ada Quill is employed by", "Ada Quill")
    assert not begun[0].endswith("?")
    assert "Ada Quill works for" in begun


def test_what_is_asked_for_has_a_name_of_its_own() -> None:
    assert BOOK.noun("Question: Who was Ada Quill's mom? Answer:", None) == "the mother of Ada Quill"
    assert BOOK.noun("What does Ada Quill think?", None) is None
    assert BOOK.noun("How do I pay?", None) is None


@pytest.mark.parametrize(
    "prompt",
    ["How do I reset my password?", "What did Ada Quill say to the crowd?", "Ada Quill is", "what?", "Peru"],
)
def test_nothing_is_made_of_what_is_not_recognised(prompt: str) -> None:
    assert BOOK.made(prompt, None) == ()


def test_what_is_asked_for_is_recognised_only_where_it_is_clear() -> None:
    relations = BOOK.lexicon.relations
    assert relations(asked("Who is Peru's spouse?")) == {"spouse"}
    assert relations(asked("The spouse of Peru is")) == {"spouse"}
    assert relations(asked("Who is the sister of Peru?")) == {"sibling"}
    assert {"country", "continent", "location_city"} <= relations(asked("Peru is located in"))
    assert relations(asked("What is the frobnication of Peru?")) == frozenset()
    assert relations(Wording(frozenset())) == frozenset()
    assert relations(Wording(frozenset(f"w{at}" for at in range(3000)) | {"capit"})) == frozenset()
    assert "founder" not in relations(asked("When was Peru founded?"))


def test_no_phrasing_stands_twice_under_a_relation() -> None:
    for texts in BOOK._phrasings.values():
        assert len({text.casefold() for text in texts}) == len(texts)
        assert all(text.count("{}") == 1 for text in texts)


def test_every_kin_is_a_relation() -> None:
    assert {relation for group in KIN for relation in group} <= set(BOOK._phrasings)


def test_nothing_is_made_of_what_may_ask_for_several_things() -> None:
    assert BOOK.made("Ada Quill is located in", None) == ()


def test_nobody_named_means_every_word_counts() -> None:
    assert wording_of("reset the device", Who(())).stems == {"reset", "devic"}
