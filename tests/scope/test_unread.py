"""The words that the encoder cannot read: a question with such words is in scope only word for word."""

import csv
from pathlib import Path

import pytest

from app.domain.scope import ScopeRequest
from app.scope.encoded_keys import EncodedKeys
from app.scope.index import Match, ScopeIndex
from app.scope.unread import LEAST_PIECES, Reader
from tests.rig import a_scope, an_encoder

LETTERS = {"Greek": "αβγδεζηθικ", "Han": "水火木金土日月山川田"}


def cases() -> list[tuple[str, str, str]]:
    """(language, question, another question in much the same words)"""
    with Path(__file__).with_name("unread_languages.tsv").open(encoding="utf-8", newline="") as opened:
        return [(row["language"], row["question"], row["other"]) for row in csv.DictReader(opened, delimiter="\t")]


CASES = cases()


def vocabulary(letters: str) -> list[str]:
    """The fewest pieces by which an encoder knows a script, in these ten letters, and more in Latin script."""
    return [f"a{at}" for at in range(2 * LEAST_PIECES)] + [
        "".join(letters[int(digit)] for digit in f"{at:04}") for at in range(LEAST_PIECES)
    ]


@pytest.mark.parametrize("letters", LETTERS.values(), ids=LETTERS.keys())
def test_a_script_is_known_if_many_pieces_are_written_in_it(letters: str) -> None:
    pieces, text = vocabulary(letters), f"who is {letters[3:6]}, or {letters[2]}?"
    assert Reader(pieces, None).unread(text, (), ()) == ()
    assert Reader(pieces[:-1], None).unread(text, (), ()) == (letters[3:6],), "one piece too few"
    assert Reader([letters, letters[:2], "a"], None).unread(text, (), ()) == ("who", "is", "or"), "few: that of most"


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("Who wrote 雪国?", ("雪国",)),
        ("WER SCHRIEB «Вишнёвый сад»?", ("вишнёвый", "сад")),
        ("हिन्दी में?", ("हिन्दी", "में")),
        ("東京2020の会場は？", ("東京", "の会場は")),
        ("What is π, in µm and in Ω?", ()),
        ("Où habite Éloïse Łącka, née en İzmir?", ()),
        ("How far is Hawaiʻi? 😀 ❤️❤️ ½ ™ ¯\\_(ツ)_/¯", ()),
        ("ISO-8859-1, kx7q, XQZPT and THE REST", ()),
        ("𝐛𝐨𝐥𝐝 claims", ("𝐛𝐨𝐥𝐝",)),
        ("1️⃣ Where is Huế, or Hue\u0302\u0301, in Việt Nam?", ()),
        ("Wie schön😊 ist das, ça va😊 und 😊café?", ()),
        ("か\u3099っこうの名は?", ("がっこうの名は",)),
        ("", ()),
    ],
)
def test_words_that_the_encoder_cannot_read(text: str, unread: tuple[str, ...]) -> None:
    (encoded,) = an_encoder().encode([text])
    assert encoded.unread == unread


def test_a_word_without_pieces_cannot_be_read() -> None:
    reader = Reader(["a", "b", "?"], 7)
    assert reader.unread("a ɓɓ b?", (0, 7, 1, 2), (0, 2, 5, 6)) == ("ɓɓ",)
    assert reader.unread("a bb☃ b?", (0, 7, 1, 2), (0, 2, 6, 7)) == (), "it is the sign that has none"
    assert reader.unread("a bé☃ b?", (0, 7, 1, 2), (0, 2, 6, 7)) == (), "beside any word"
    assert reader.unread("a ☃ b?", (0, 7, 1, 2), (0, 2, 4, 5)) == (), "a sign is no word"


def test_of_a_long_text_what_is_left_out_is_not_looked_at() -> None:
    text = "Мой пароль " + "is the old one of the lamp shop " * 20
    assert an_encoder().encode([text, text[:60]])[0].unread == ()
    assert an_encoder().encode([text, text[:60]])[1].unread == ("мой", "пароль")


def test_what_is_read_from_disk_tells_it_as_well(tmp_path: Path) -> None:
    text = "Как изменить пароль?"
    EncodedKeys(an_encoder(), tmp_path).encode([text])
    (later,) = EncodedKeys(an_encoder(), tmp_path).encode([text])
    assert later.unread == ("как", "изменить", "пароль")


def matches(scope: ScopeIndex, edit: str, *asked: str) -> list[Match]:
    scope.load(edit, scope.learn(ScopeRequest(keys=((edit,),))).model_dump())
    part = scope.compile("default", [edit])
    found = [scope.nearest(scope.question((text,)), part) for text in asked]
    scope.drop(edit)
    return [each for each in found if each is not None]


@pytest.mark.slow
@pytest.mark.parametrize("language", sorted({language for language, _, _ in CASES}))
def test_a_question_in_a_language_that_the_encoder_does_not_know_defers(language: str) -> None:
    scope, questions = a_scope(), [(question, other) for name, question, other in CASES if name == language]
    assert len(questions) >= 8
    for question, other in questions:
        bare = question.rstrip("?？؟")
        same = (question, f" {bare.upper()} ", f"Question: {question} Answer:", f"Hello!\n{question}")
        answered, different = matches(scope, question, *same), matches(scope, question, other)
        assert [match.margin >= 0 for match in answered] == [True] * 4, question
        assert all(match.margin < 0 for match in different), other
        assert all("the encoder cannot read" in match.why for match in different), different


@pytest.mark.slow
def test_a_name_that_cannot_be_read_is_told_from_others() -> None:
    rephrased, another, unnamed = matches(
        a_scope(), "Who wrote 雪国?", "Who is the author of 雪国?", "Who is the author of 草枕?", "Who wrote it?"
    )
    assert rephrased.margin >= 0
    assert max(another.margin, unnamed.margin) < 0
    assert "the encoder cannot read '草枕', which must be said word for word" in another.why
