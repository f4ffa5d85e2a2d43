"""Closed-class words and numbers forbid an edit where they deny what it says, and only there."""

import csv
from importlib.resources import files
from itertools import permutations

import pytest

from app.domain.words import plain_words
from app.scope.closed_words import (
    DETERMINER,
    EXCLUSIVE,
    LANGUAGES,
    NOUNS,
    QUALIFIED,
    ROUTE,
    VARIANT,
    YEAR,
    ClosedWords,
    load_closed_words,
    parted_numbers,
)


def rows(*kinds: str) -> list[tuple[str, str, str]]:
    """(language, class, words) of each line of the files."""
    found = []
    for language in LANGUAGES:
        with (files("app.scope") / f"closed_{language}.tsv").open(encoding="utf-8") as file:
            found += [(language, row["class"], row["words"]) for row in csv.DictReader(file, delimiter="\t")]
    return [row for row in found if not kinds or row[1] in kinds]


@pytest.fixture
def closed() -> ClosedWords:
    """Read anew: what other tests of the process have read may be what another version of the reader made of it."""
    return load_closed_words.__wrapped__()


def veto(closed: ClosedWords, asked: str, key: str) -> str | None:
    return closed.veto(plain_words(asked), plain_words(key))


def test_every_line_is_of_a_class_that_is_known() -> None:
    assert {kind for _, kind, _ in rows()} <= {
        "small",
        "auxiliary",
        "pronoun",
        "joining",
        EXCLUSIVE,
        VARIANT,
        YEAR,
        ROUTE,
        QUALIFIED,
        NOUNS,
        DETERMINER,
    }
    assert {language for language, _, _ in rows(EXCLUSIVE)} == set(LANGUAGES)


@pytest.mark.parametrize(("language", "kind", "line"), rows(EXCLUSIVE))
def test_each_side_of_a_line_denies_the_others(closed: ClosedWords, language: str, kind: str, line: str) -> None:
    """Through the words as they are looked up: one that a text never gives would forbid nothing."""
    sides = [side.split() for side in line.split(",")]
    assert len(sides) > 1
    assert all(sides)
    for mine, theirs in permutations(sides, 2):
        for word in mine:
            others = [other for other in theirs if other not in mine]
            for other in others:
                reason = veto(closed, f"xyz {word} zyx", f"xyz {other} zyx")
                assert reason is not None, (word, other)
                assert "where the edit says" in reason, reason
    for side in sides:
        for word in side:
            for same in side:
                assert veto(closed, f"xyz {word} zyx", f"xyz {same} zyx") is None, (word, same)
            assert veto(closed, f"xyz {word}", "xyz") is None, "it denies nothing where the other says nothing of it"
            assert veto(closed, "xyz", f"xyz {word}") is None


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ("What do I take before meals?", "What do I take after meals?"),
        ("Was kommt vor dem Essen?", "Was kommt nach dem Essen?"),
        ("Kaffee ohne Zucker?", "Kaffee mit Zucker?"),
        ("Qui vient avant le roi ?", "Qui vient après le roi ?"),
        ("Un café sans sucre ?", "Un café avec sucre ?"),
        ("Que fait-on aujourd'hui ?", "Que fait-on demain ?"),
        ("Who is the FORMER king?", "Who is the current king?"),
        ("Quelle est la première règle ?", "Quelle est la deuxième règle ?"),
        ("Wer war der erste König?", "Wer war der zweite König?"),
    ],
)
def test_questions_that_deny_each_other(closed: ClosedWords, asked: str, key: str) -> None:
    assert veto(closed, asked, key) is not None
    assert veto(closed, key, asked) is not None


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ("Who is the king of Zenda?", "The king of Zenda is"),
        ("Do I take it before or after meals?", "Do I take it before meals?"),
        ("Previously, who was king?", "Who was the previous king?"),
        ("Who is king?", "Who is the current king?"),
        ("Wer ist der König?", "Wer ist der jetzige König?"),
        ("", "Who is king?"),
    ],
)
def test_questions_that_do_not(closed: ClosedWords, asked: str, key: str) -> None:
    assert veto(closed, asked, key) is None


@pytest.mark.parametrize(
    ("asked", "key", "forbidden"),
    [
        ("What came out in 2021?", "What came out in 2020?", True),
        ("What came out in 2021?", "What came out?", False),
        ("What came out?", "What came out in 2021?", False),
        ("From 2020 to 2021?", "In 2020?", False),
        ("From 2020 to 2021?", "From 2020 to 2022?", True),
        ("Version 3.1", "Version 3.2", True),
        ("In 2020, and in 2020?", "In 2020?", False),
        ("How wide is a 51mm disc?", "How wide is a disc of 51 mm?", False),
        ("How wide is a 51mm disc?", "How wide is a 52mm disc?", True),
        ("Which songs were heard in the 1920s?", "Which songs were heard in the 1920's?", False),
        ("Which songs were heard in the 1920s?", "Which songs were heard in the 1930's?", True),
        ("Does the 12x32 come with a case?", "Does the 12 x 32 come with a case?", False),
        ("Does the 12x32 come with a case?", "Does the 12 x 50 come with a case?", True),
    ],
)
def test_numbers_are_not_exchanged(closed: ClosedWords, asked: str, key: str, forbidden: bool) -> None:
    reason = veto(closed, asked, key)
    assert ("no reason" if reason is None else reason).count("numbers") == forbidden


@pytest.mark.parametrize(
    ("asked", "key", "forbidden"),
    [
        ("What is new in 2.4?", "What is new in 4.2?", True),
        ("What is new in 2.4?", "What is new in 2.4 and 4.2?", False),
        ("What is new in 2.4.0?", "What is new in 2.4?", False),
        ("Who has 10.0.0.1?", "Who has 1.0.0.10?", True),
        ("Is it 1,000 or more?", "Is it 1.000 or more?", False),
        ("Is 4,2 enough?", "Is 4.2 enough?", False),
        ("Does it open at 3:30?", "Does it open at 3.30?", False),
        ("What happened on 1 May 2020?", "What happened on 1.5.2020?", False),
        ("Who won?", "Is 4.2 new?", False),
    ],
)
def test_a_number_is_more_than_its_digits(asked: str, key: str, forbidden: bool) -> None:
    assert (parted_numbers(asked, key) is not None) is forbidden
    assert (parted_numbers(key, asked) is not None) is forbidden


def test_small_words_are_looked_up_folded(closed: ClosedWords) -> None:
    for kind in ("small", "auxiliary", "pronoun"):
        for _, _, line in rows(kind):
            for word in line.split():
                known = closed.pronouns if kind == "pronoun" else closed.small
                assert set(plain_words(word)) <= known, f"{word!r} of {kind} is read as {plain_words(word)}"


def test_each_language_has_a_grammar_of_its_own(closed: ClosedWords) -> None:
    french = closed.grammar(plain_words("Qui était le premier roi de la ville?"))
    assert (french.year, french.route) == ("en", ("de", "à"))
    assert (french.articles, french.qualifiers) == (("le", "la"), ("ancien", "prochain"))
    assert {"dans", "etait", "donc"} <= french.small, "small words, auxiliaries and joining ones, folded"
    assert not {"celui", "hier", "the"} & french.small
    assert {"celui", "elles"} <= french.pronouns
    assert not {"donc", "dans"} & french.pronouns
    assert french.joining == {"et", "ou", "mais", "alors", "donc"}
    english, german = (closed.grammar(plain_words(text)) for text in ("", "Wer war der erste König der Stadt?"))
    assert english.year == "in"
    assert german is not french
    assert german is not english
    assert [each.capital_nouns for each in (english, german, french)] == [False, True, False]
    assert {"meinen", "dieses"} <= german.determiners
    assert not {"meinen", "dieses"} & closed.small, "they tell the language and mark nouns, and do no more"
