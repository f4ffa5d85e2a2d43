"""Names are found however they are inflected or written, and other names are not."""

import pytest

from app.domain.words import collapse_spaces, fold, locate, plain_words, same_text, says, surface, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Who is Ada Quill's mother?", ["who", "is", "ada", "quill", "mother"]),
        ("Ada Quill’s mother", ["ada", "quill", "mother"]),
        ("ZOË in Málaga", ["zoe", "in", "malaga"]),
        ("two rivers, one class, a bus", ["two", "river", "one", "class", "a", "bus"]),
        ("iOS 17.4: what's new?", ["ios", "17", "4", "what", "new"]),
        ("self-driving_cars", ["self", "driving", "car"]),
        ("Straße", ["strasse"]),
        ("東京の人口", ["東", "京", "の", "人", "口"]),
        ("", []),
        ("?!", []),
    ],
)
def test_words_are_folded(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_folding_takes_case_and_accents_and_no_letters() -> None:
    assert fold("ÉCOLE Ångström") == "ecole angstrom"
    assert fold("e\u0301") == fold("é") == "e"
    assert fold("한국") == "한국", "syllables stay whole"
    assert plain_words("Whose rivers ARE its?") == ("whose", "rivers", "are", "its"), "as they are written"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Who founded Lumen?", "lumen"),
        ("who is ada quill's mother", "Ada Quill"),
        ("the mothers of the Quills", "Quill"),
        ("Malaga by night", "Málaga"),
        ("The University of the Arts, London", "University of the Arts"),
        ("the Univercity of the Arts", "University of the Arts"),
        ("the Universty of the Arts", "University of the Arts"),
        ("the Universsity of the Arts", "University of the Arts"),
        ("the Universityx of the Arts", "University of the Arts"),  # at its end
        ("the Abbez of York", "Abbey of York"),  # five letters are enough
    ],
)
def test_a_text_says_a_name(text: str, name: str) -> None:
    assert says(words_of(text), tuple(words_of(name)))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("the war in Iraq", "Iran"),
        ("Ada and her sister Quill", "Ada Quill"),
        ("Quill Ada", "Ada Quill"),
        ("Who is Ada Quils mother?", "Ada Quill"),  # of two words none may be misspelt
        ("the Jniversity of the Arts", "University of the Arts"),  # nor a first letter
        ("the University on the Arts", "University of the Arts"),  # nor a short word
        ("the Univercity of the Art house", "University of Art houses"),
        ("Lumenite", "Lumen"),
        ("model GPT 40000 turbo", "model GPT 50000 turbo"),
        ("model GPT 40001 turbo", "model GPT 40000 turbo"),  # nor a digit
        ("the model Gptx1 turbo", "the model Gptxa turbo"),  # in place of a letter
        ("the model Gptxa turbo", "the model Gptx1 turbo"),
        ("the Univer of the Arts", "University of the Arts"),
        ("Univercity Arts", "University Arts"),  # of two words none
        ("", "Lumen"),
        ("Lumen", ""),
    ],
)
def test_a_text_does_not_say_another_name(text: str, name: str) -> None:
    assert not says(words_of(text), tuple(words_of(name)))


@pytest.mark.parametrize(
    ("text", "name", "until"),
    [
        ("What kind of family is Gabb's snail of?", "Gabb's snail", "What kind of family is Gabb's snail"),
        ("who is ada  quill?", "Ada Quill", "who is ada  quill"),
        ("The rivers of Zenda", "river", "The river"),  # as it is written, before as it is meant
        ("Two RIVERS of Zenda", "river", "Two RIVERS"),
        ("In malaga, today", "Málaga", "In malaga"),
        ("What Is to Be Done? and when", "What Is to Be Done?", "What Is to Be Done?"),  # at the very beginning
        ("Lumen and Lumen", "Lumen", "Lumen"),  # the first of both
        ("lumen, Lumen", "Lumen", "lumen, Lumen"),  # the one that is written so
        ("Who wrote What Is to Be Done? and when", "What Is to Be Done?", "Who wrote What Is to Be Done?"),
    ],
)
def test_a_name_is_located_to_its_end(text: str, name: str, until: str) -> None:
    at = locate(text, name)
    assert at is not None
    assert text[:at] == until


def test_a_name_that_is_not_there_is_located_nowhere() -> None:
    assert locate("The capital of Ruritania is", "Graustark") is None
    assert locate("The capital", "?!") is None


def test_a_name_is_told_as_the_text_writes_it() -> None:
    assert surface("Who is ADA  Quill's mother? Ada Quill", ("ada", "quill")) == "ADA  Quill"
    assert surface("In Málaga", ("malaga",)) == "Málaga"
    assert surface("In Rome", ("malaga",)) is None
    assert surface("In Rome", ()) is None


def test_answers_are_compared_but_for_their_white_space() -> None:
    assert collapse_spaces("  a \n b\tc ") == "a b c"
    assert same_text(" Ada  Quill\n", "Ada Quill")
    assert not same_text("Ada Quill", "ada quill")
    assert not same_text("AdaQuill", "Ada Quill")
