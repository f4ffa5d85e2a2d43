"""A prompt is read as the texts of its question, and the names in it."""

from unicodedata import normalize

import pytest

from app.domain.words import Span
from app.scope.closed_words import ClosedWords, load_closed_words
from app.scope.parsed_question import (
    LONG_WORDS,
    MOST_TEXTS,
    called_by_name,
    names_in,
    points_back,
    read,
    sentences_of,
)

QUESTION = "Who founded Lumen?"
MAIL = (
    "Dear all, the office in Lisbon will be closed from Monday on, because the stairs are painted and nobody can get "
    "in. Whoever has left a coat there may fetch it on Friday between nine and eleven at the back door, where Mr Brown "
    "waits with the key. Was the lamp in the hall yours? Please tell him before he gives it away. We are sorry for all "
    "the trouble that this brings, and thank you.\n\nBest regards,\nAda Quill\n\n"
)


@pytest.fixture(scope="module")
def closed() -> ClosedWords:
    return load_closed_words()


@pytest.mark.parametrize("prompt", [QUESTION, "The capital of Ruritania is", "what", "東京の人口は？", "", "\n"])
def test_one_sentence_is_its_own_question(closed: ClosedWords, prompt: str) -> None:
    assert read((prompt,), closed).texts == (prompt.strip(),)


@pytest.mark.parametrize(
    "prompt",
    [
        f"Hello! {QUESTION}",
        f"Hi there. I hope you are well. {QUESTION}",
        f"Good morning,\n\n{QUESTION}\n",
        f"{QUESTION} Please answer in one word.",
        f"{QUESTION} Thank you!",
        f"I read about it in the paper.\n{QUESTION}",
    ],
)
def test_a_greeting_before_a_question_or_a_wish_after_it_is_read_apart(closed: ClosedWords, prompt: str) -> None:
    asked = read((prompt,), closed)
    assert asked.texts[0] == prompt.strip(), "all of it first"
    assert QUESTION in asked.texts
    assert len(set(asked.texts)) == len(asked.texts) <= MOST_TEXTS
    assert asked.said == prompt.strip()


def test_a_text_that_was_pasted_before_a_question_is_not_asked_about(closed: ClosedWords) -> None:
    asked = read((MAIL + QUESTION,), closed)
    assert asked.texts[0] == QUESTION, "of several questions the last"
    assert all(len(text.split()) < LONG_WORDS for text in asked.texts)
    assert "lumen" in asked.words


def test_the_last_sentence_that_asks_and_the_last_two_are_read_after_the_whole(closed: ClosedWords) -> None:
    prompt = "Good morning. I hope you are well. Who founded Lumen?"
    assert read((prompt,), closed).texts == (prompt, QUESTION, f"I hope you are well. {QUESTION}")
    quoted = f'Was it rainy? He asked: "{QUESTION}"'
    assert read((quoted,), closed).texts == (quoted, f'He asked: "{QUESTION}"')
    assert read(("東京の人口は？ お願いします。",), closed).texts[1] == "東京の人口は？"


def test_a_turn_is_read_as_a_whole_up_to_so_many_words_or_where_it_is_one_sentence(closed: ClosedWords) -> None:
    for words, whole in ((LONG_WORDS, True), (LONG_WORDS + 1, False)):
        prompt = " ".join(["word"] * (words - 3)) + f". {QUESTION}"
        assert (read((prompt,), closed).texts[0] == prompt) is whole


def test_a_long_text_of_one_sentence_is_read_as_it_is(closed: ClosedWords) -> None:
    prompt = " ".join(["word"] * (LONG_WORDS + 9))
    assert read((prompt,), closed).texts == (prompt,)


@pytest.mark.parametrize(
    "last", ["How old is she?", "And her mother?", "Why?", "In Paris?", "What about Tessel?", "Wo?"]
)
def test_a_turn_that_points_back_is_read_with_the_turn_before_and_its_answer(closed: ClosedWords, last: str) -> None:
    turns = ("What is new?", "Nothing.", QUESTION, "Ada Quill. She did so in her youth, when all was better.", last)
    asked = read(turns, closed)
    assert asked.texts == (f"{QUESTION} Ada Quill. {last}",)
    assert asked.said == asked.texts[0]
    assert {"lumen", "ada", "quill"} <= set(asked.words)


def test_a_chain_of_turns_that_point_back_is_read_with_the_turn_that_began_it(closed: ClosedWords) -> None:
    chain = ("Who is the mayor of Ulm?", "Ada Quill. She is young.", "And of Bonn?", "Max Orr. He is old.")
    chain += ("And of Essen?", "Eve Bell. She is tall.", "And of Trier?")
    assert read(chain, closed).texts == ("Who is the mayor of Ulm? Eve Bell. And of Trier?",)


def test_a_turn_before_that_was_answered_with_nothing_is_read_all_the_same(closed: ClosedWords) -> None:
    assert read((QUESTION, "", "Why?"), closed).texts[0].split() == [*QUESTION.split(), "Why?"]


@pytest.mark.parametrize("last", ["When did it stop raining?", "how long to ship a sofa"])
def test_a_turn_that_may_be_whole_is_read_with_the_turns_before_and_alone(closed: ClosedWords, last: str) -> None:
    assert read((QUESTION, "Ada Quill.", last), closed).texts == (f"{QUESTION} Ada Quill. {last}", last)


@pytest.mark.parametrize(
    ("turn", "does"),
    [
        ("And the highest mountain in Peru?", True),
        ("What is not in the sofa?", True),
        ("Where is the rest of the sofa?", False),
        ("Where does she go when the lamp in the hall is out?", True),
        ("Where does she go when the old lamp in the hall is out?", False),
    ],
)
def test_a_turn_points_back_if_it_goes_on_has_a_pronoun_or_says_hardly_anything(
    closed: ClosedWords, turn: str, does: bool
) -> None:
    """A longer one says by itself what it asks."""
    assert points_back(turn, closed) is does


@pytest.mark.parametrize("last", ["Where is the head office of Tessel?", "How tall is the highest mountain of Peru?"])
def test_a_turn_that_says_what_it_asks_is_read_alone(closed: ClosedWords, last: str) -> None:
    asked = read((QUESTION, "Ada Quill.", last), closed)
    assert (asked.texts, asked.said) == ((last,), last)


@pytest.mark.parametrize(
    "last", ["How long does it take to ship a sofa?", "What time is it in Lisbon when Tokyo wakes?"]
)
def test_an_it_that_stands_for_nothing_leaves_a_question_readable_alone(closed: ClosedWords, last: str) -> None:
    assert last in read((QUESTION, "Ada Quill.", last), closed).texts


def test_without_a_history_nothing_is_pointed_back_to(closed: ClosedWords) -> None:
    assert points_back("How old is she?", closed)
    assert read(("How old is she?",), closed).texts == ("How old is she?",)


@pytest.mark.parametrize("last", ["Wie alt ist sie?", "Quel âge a-t-elle ?", "Et où ?", "Und dann?"])
def test_turns_point_back_in_german_and_french(closed: ClosedWords, last: str) -> None:
    assert points_back(last, closed)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two? Three!", ["One.", "Two?", "Three!"]),
        ('He said "no." Then he left.', ['He said "no.', "Then he left."]),
        ("Version 3.1 is out. Is it good?", ["Version 3.1 is out.", "Is it good?"]),
        ("Dear Ada,\n\nwhat is new?", ["Dear Ada,", "what is new?"]),
        ("  ", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    found = sentences_of(text)
    assert [each.strip('"') for each in found] == [each.strip('"') for each in sentences]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Who is Ada Quill's mother?", [("ada", "quill")]),
        ("Where is the University of the Arts?", [("university", "of", "the", "art"), ("art",)]),
        ("Who is the CEO of Acme?", [("ceo", "of", "acme"), ("acme",)]),
        ("Who moved from Paris, France?", [("pari",), ("france",)]),
        ("Did Lumen buy Tessel?", [("lumen",), ("tessel",)]),
        ("Lumen's founder is", [("lumen",)]),
        ("Lumen was founded by", [("lumen",)]),
        ("Ada Quill founded", [("ada", "quill")]),
        ("Mountains are high", [("mountain",)]),
        ("The king of Zenda was", [("zenda",)]),
        ("Where do I find iOS 17?", [("ios", "17")]),
        ("How much is BMW's X5?", [("bmw", "x5")]),
        ("what happened in 1984", [("1984",)]),
        ('Who wrote "The silent sea"?', [("the", "silent", "sea")]),
        ("Who wrote “The silent sea”, and when?", [("the", "silent", "sea")]),
        ('He said "I am not going home today, whatever you say". Why?', []),
        ("who founded lumen?", []),
        ("WHO FOUNDED LUMEN?", []),
        ("Where do I live?", []),
        ("Tell me more", []),
        ("Hello. Founded when? Lumen? I asked Ada.", [("ada",)]),
        ("Wer gründete die Stadt Ruritania?", [("stadt", "ruritania")]),
        ("Où habite Éloïse ?", [("eloise",)]),
        ("Ada Quill", [("ada", "quill")]),
        ("Lumen’s founder is", [("lumen",)]),
        ("Who is the CEO of Acme Lamps today?", [("ceo", "of", "acme", "lamp"), ("acme", "lamp")]),
        ("Who met Ada and in the Bonn?", [("ada",), ("bonn",)]),
        ('Who wrote "emma"?', [("emma",)]),
        ('Who sang "the sea is calm and blue"?', [("the", "sea", "is", "calm", "and", "blue")]),
        ('What is "--"?', []),
        ("", []),
    ],
)
def test_names_are_capitals_numbers_and_quotations(closed: ClosedWords, text: str, names: list[Span]) -> None:
    assert set(names_in(text, closed)) == set(names)


def test_names_are_told_once(closed: ClosedWords) -> None:
    assert names_in("When did Ada marry? I met Ada.", closed) == (("ada",),)


@pytest.mark.parametrize(
    ("between", "whole"),
    [
        ("Which is the largest?", "How many planets are there? Which is the largest? Jupiter. And the smallest?"),
        ("And the largest?", "How many planets are there? Jupiter. And the smallest?"),
        ("Which planet is the largest of all?", "Which planet is the largest of all? Jupiter. And the smallest?"),
    ],
)
def test_a_turn_that_points_back_itself_is_read_with_what_it_points_to(
    closed: ClosedWords, between: str, whole: str
) -> None:
    turns = ["How many planets are there?", "There are eight.", between, "Jupiter. It is a giant.", "And the smallest?"]
    assert read(turns, closed).texts[0] == whole


def test_a_conversation_may_begin_with_a_turn_that_points_back(closed: ClosedWords) -> None:
    assert read(["And Sweden?", "In 1995.", "And Sweden?", "In 1995.", "And Croatia?"], closed).texts[0] == (
        "And Sweden? In 1995. And Croatia?"
    )


@pytest.mark.parametrize("last", ["When did Rommel die?", "Who is the son of Max Orr?", "Who is the mayor of La Paz?"])
def test_words_of_other_languages_do_not_point_back(closed: ClosedWords, last: str) -> None:
    assert read(["Who won the battle?", "The Allies.", last], closed).texts == (last,)


def test_accents_that_are_characters_of_their_own_leave_words_whole(closed: ClosedWords) -> None:
    asked = read([normalize("NFD", "Who is the mayor of Córdoba?")], closed)
    assert names_in(asked.said, closed) == (("cordoba",),)


def test_a_measure_or_a_number_is_nobodys_name(closed: ClosedWords) -> None:
    assert called_by_name("Who plays with a 51mm disc on the 4th field of Tessel?", closed) == (("tessel",),)
