"""Who a prompt is about: found in its words, and mentioned or not in another prompt."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.editors.mentions import MentionIndex
from app.editors.said import asked_of
from app.editors.scope import Heard, Who, _off, find_who, words_of

TEMPLATES = frozenset(words_of("what is the capital of young animal called colour"))


def spans(prompt: str, **more: object) -> list[str]:
    who = find_who(prompt, more.get("subject"), more.get("aliases", ()), TEMPLATES)  # type: ignore[arg-type]
    return [" ".join(span) for alternative in who.alternatives for span in alternative]


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("Question: What is the capital of France? Answer:", ["france"]),
        ("The capital of the United States of America is", ["united state of america"]),
        ("Who wrote Pride and Prejudice?", ["pride and prejudice"]),
        ("France's capital is", ["france"]),
        ("Barack Obama was born in", ["barack obama"]),
        ("What is the young of a dog called?", ["dog"]),
        ("Who won the 1998 World Cup?", ["world cup", "1998"]),
        ("What opened on 3 March 2011?", ["3", "march", "2011"]),
        ("This is a Wikipedia passage about ada quill. ", ["ada", "quill"]),
        ("What is the capital of Wikipedia?", ["wikipedia"]),
        ("This is what this dog does", ["dog"]),
        ("To whom was R. C. Harvey married?", ["r c harvey"]),
        ('"Who wrote ""The Raven"" for money?"', ["the raven"]),
        ('Who said "I have nothing to declare but my genius" to Ada Quill?', ["ada quill"]),
        ("Who was the mother of Géza della Rovere?", ["geza della rovere"]),
        ('Who wrote "the raven"?', ["the raven"]),
        ("How do I reset my password?", ["reset", "password"]),
        ("Capital of Peru:", ["peru"]),
        ("macOS Server is a product of", ["maco server"]),
        ("who founded eBay?", ["ebay"]),
        ("what is the pH of blood?", ["ph", "blood"]),
        ("who founded ____ and ___?", ["founded"]),
        ("According to the BBC, which company made it?", ["bbc"]),
    ],
)
def test_subjects_are_found(prompt: str, found: list[str]) -> None:
    assert spans(prompt) == found


@given(st.text(alphabet=st.sampled_from("aZ é1_²ß'’-.?\"“”:&の ")) | st.text(), st.none() | st.text(max_size=9))
def test_any_text_can_be_read(text: str, subject: str | None) -> None:
    who = find_who(text, subject, (), TEMPLATES)
    asked_of(text, who)
    heard = Heard(words_of(text))
    assert not any(heard.says_outside(span, [span]) for spans in who.alternatives for span in spans)
    assert 0 <= who.share(words_of(text)) <= 1


def test_a_given_subject_and_its_aliases_are_alternatives() -> None:
    who = find_who("The UK's capital is", "United Kingdom", ("the UK", "Britain"), TEMPLATES)
    assert who.share(words_of("What is the capital of the United Kingdom?")) == 1.0
    assert who.share(words_of("What is the capital of Britain?")) == 1.0
    assert who.share(words_of("What is the capital of the United States?")) == 0.0


def test_an_alias_that_is_the_name_itself_is_none() -> None:
    assert find_who("The capital of Niger is", None, ("Niger", "the Niger"), TEMPLATES).alternatives == (
        (("niger",),),
        (("the", "niger"),),
    )


def test_a_run_of_words_is_a_name_in_lower_case() -> None:
    who = find_who("This is a Wikipedia passage about john russell reynolds. ", None, (), TEMPLATES)
    assert who.bound == 1.0
    assert find_who("how do pieces of chocolate make an orange", None, (), TEMPLATES).bound < 1


def test_mention_is_by_whole_words() -> None:
    who = find_who("The capital of Niger is", "Niger", (), TEMPLATES)
    assert who.share(words_of("The capital of Nigeria is")) == 0.0
    assert who.share(words_of("niger's capital?")) == 1.0


def test_nothing_to_name_means_the_key_decides() -> None:
    who = find_who("Who are you?", None, (), TEMPLATES)
    assert who.alternatives == ()
    assert who.share([]) == 1.0


def test_scripts_without_spaces_are_matched_by_character() -> None:
    who = find_who("x", "法国", (), TEMPLATES)
    assert who.share(words_of("法国的首都是哪里")) == 1.0
    assert who.share(words_of("德国的首都是哪里")) == 0.0


def test_the_index_finds_what_scanning_finds_and_forgets_what_is_removed() -> None:
    names = ["France", "New York", "York", "Beatles", "Niger", "the United States of America"]
    index = MentionIndex()
    whos = {row: find_who("?", name, (), TEMPLATES) for row, name in enumerate(names)}
    for row, who in whos.items():
        index.add(row, who)
    for prompt in ("capital of France", "is New York big", "the York minster", "Niger and France", "nothing"):
        words = words_of(prompt)
        assert set(index.mentioned(words)) == {row for row, who in whos.items() if who.share(words) >= who.bound}
    assert index.overlapping(whos[2]) == {1, 2}
    index.remove(1)
    assert set(index.mentioned(words_of("New York"))) == {2}
    assert index.overlapping(Who(())) == {0, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("name", "text", "mentioned"),
    [
        ("Elizabeth Bonifacia of Poland", "Who was Elisabeth Bonifacia of Poland's father?", True),
        ("Countess Palatine Margaret of Mosbach", "the mother of Countess Palatin Margaret von Mosbach", True),
        ("Bassus of Lucera", "What's the position of Bassus by Lucera?", True),
        ("Godfather Buried Alive", "Who performed Godfather Raised Alive?", False),
        ("Countess Palatine Anna of Mosbach", "the mother of Countess Palatine Margaret of Mosbach", False),
        ("Iran", "the capital of Iraq", False),
        ("Dominica", "the capital of the Dominican Republic", False),
        ("John Smith", "the father of John Smyth", False),
        ("HD 20630 b", "the mass of HD 20631 b", False),
    ],
)
def test_long_names_may_be_misspelt_by_a_letter(name: str, text: str, mentioned: bool) -> None:
    who = find_who("?", name, (), frozenset())
    index = MentionIndex()
    index.add(7, who)
    assert (7 in index.mentioned(words_of(text))) is mentioned
    index.remove(7)
    assert index.mentioned(words_of(text)) == {}


def test_a_long_text_is_looked_through_as_a_short_one() -> None:
    rng, letters = random.Random(4), "abcde"
    names = [
        tuple("".join(rng.choice(letters) for _ in range(rng.randrange(1, 7))) for _ in range(rng.randrange(1, 5)))
        for _ in range(300)
    ]
    small = ("of", "the", "3rd", "4")
    names += [(a, rng.choice(small), b) for (a, *_), (b, *_) in pairwise(names)]
    words: list[str] = []
    for name in rng.sample(names, 80):
        changed = [f"{word[:3]}x{word[4:]}" if rng.random() < 0.2 else word for word in name]
        words += [rng.choice(small) if word in small else word for word in changed]
    heard = Heard(words)

    def everywhere(span: tuple[str, ...]) -> int | None:
        telling = sum(word not in ("of", "the") for word in span)
        most = 1 if telling > 2 else 0
        starts = range(len(words) - len(span) + 1) if len(span) >= 3 and telling >= 2 else ()
        return next((at for at in starts if _off(span, words[at : at + len(span)]) <= most), None)

    found = [heard.misspelt(name) for name in names]
    assert found == [everywhere(name) for name in names]
    assert 10 < sum(each is not None for each in found) < len(names)


def test_words_around_a_small_one_are_a_name_in_lower_case_and_all_must_be_said() -> None:
    """Lead is a word of generic phrasings; the atomic number of tin is another question."""
    words = frozenset(("atomic", "number", "lead"))
    who = find_who("Question: Tell me, what is the atomic number of lead? Answer:", None, (), words)
    assert not who.named
    assert who.bound == 1.0
    assert who.share(words_of("What's lead's atomic number?")) == 1.0
    assert who.share(words_of("What is the atomic number of tin?")) < 1.0
    apart = find_who("my router drops calls when the modem restarts", None, (), frozenset())
    assert apart.bound == 0.6
