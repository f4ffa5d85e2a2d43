"""Phrases that have changed places are found; what may stand either way round is left alone."""

import pytest

from app.domain.words import words_of
from app.scope.closed_words import ClosedWords, load_closed_words
from app.scope.parsed_question import names_in
from app.scope.word_order import LONGEST, Swap, swapped


@pytest.fixture(scope="module")
def closed() -> ClosedWords:
    return load_closed_words()


def swap(closed: ClosedWords, question: str, key: str) -> Swap | None:
    return swapped(words_of(question), words_of(key), names_in(key, closed), closed)


@pytest.mark.parametrize(
    ("question", "key", "phrases"),
    [
        ("How far is it from Bonn to Ulm?", "How far is it from Ulm to Bonn?", ("ulm", "bonn")),
        ("how long from bonn to ulm", "How much time does it take from Ulm to Bonn?", ("ulm", "bonn")),
        ("Did Mary Shelley teach Ada Byron?", "Did Ada Byron teach Mary Shelley?", ("ada byron", "mary shelley")),
        ("Wie weit ist es von Bonn nach Ulm?", "Wie weit ist es von Ulm nach Bonn?", ("ulm", "bonn")),
        ("When does Ada fly from Bonn to Ulm?", "Does Ada fly from Ulm to Bonn?", ("ulm", "bonn")),
        ("Can a tenant sue a landlord?", "Can a landlord sue a tenant?", ("landlord", "tenant")),
        ("May an owner visit a guest?", "May a guest visit an owner?", ("guest", "owner")),
        ("How many points is one euro?", "How many euros is one point?", ("euro", "point")),
        ("Does the dog chase the cat?", "Does the cat chase the dog?", ("cat", "dog")),
        ("Can an owner of a dog sue a guest?", "Can a guest of a dog sue an owner?", ("guest", "owner")),
        (
            "Does the deputy of finance pay the head of sales?",
            "Does the head of sales pay the deputy of finance?",
            ("head of sale", "deputy of finance"),
        ),
        ("Le plan de Nadia parle d'Ugo ?", "Le plan d'Ugo parle de Nadia ?", ("nadia", "ugo")),
        ("Le chien mord le chat ?", "Le chat mord le chien ?", ("chat", "chien")),
    ],
)
def test_two_phrases_in_each_others_place(
    closed: ClosedWords, question: str, key: str, phrases: tuple[str, str]
) -> None:
    found = swap(closed, question, key)
    assert found is not None
    assert {" ".join(span) for span in found} == {*phrases}


@pytest.mark.parametrize(
    ("question", "key"),
    [
        ("Is it far to Bonn from Ulm?", "How far is it from Ulm to Bonn?"),
        ("Was Mary Shelley taught by Ada Byron?", "Did Ada Byron teach Mary Shelley?"),
        ("How far is it from Ulm to Bonn?", "How far is it from Ulm to Bonn?"),
        ("How far is it from Ulm to Rome?", "How far is it from Ulm to Bonn?"),
        ("When did doctor Orr sue lawyer Bell?", "Has lawyer Orr met doctor Bell?"),
        ("How do jam and honey differ?", "How do honey and jam differ?"),
        ("Is the euro the currency?", "Is the currency the euro?"),
        ("Is Ada Bonn's mayor?", "Is Bonn's mayor Ada?"),
        ("Croatia uses which currency?", "Which currency uses Croatia?"),
        ("croatia currency", "currency croatia"),
        ("In 1998, who won the cup?", "Who won the cup in 1998?"),
        ("who won in ulm in 1998", "who won in 1998 in ulm"),
        ("Who won in Ulm in 1998?", "Who won in 1998 in Ulm?"),
        ("Where can I eat on sundays on campus?", "Where can I eat on campus on sundays?"),
        ("What lies between Ulm and Bonn?", "What lies between Bonn and Ulm?"),
        ("Was liegt zwischen Ulm und Bonn?", "Was liegt zwischen Bonn und Ulm?"),
        ("Quelle est la distance entre Paris et Lyon ?", "Quelle est la distance entre Lyon et Paris ?"),
        ("Can I combine honey with milk?", "Can I combine milk with honey?"),
        ("Is the boss also the owner?", "Is the owner also the boss?"),
        ("ulm population 2020", "2020 population ulm"),
        ("上海と東京", "東京と上海"),
        ("To Bonn from Ulm, how far is it?", "How far is it from Ulm to Bonn?"),
        ("Does it rain?", "It does rain?"),
        ("", ""),
    ],
)
def test_the_same_question_in_another_order(closed: ClosedWords, question: str, key: str) -> None:
    assert swap(closed, question, key) is None
    assert swap(closed, key, question) is None


def test_texts_in_which_much_has_moved_take_no_time(closed: ClosedWords) -> None:
    """All ways of parting two thousand words would take half a minute."""
    words = [f"word{at}" for at in range(LONGEST)]
    assert swap(closed, " ".join(["is", *words]), " ".join(["is", *words[::-1]])) is None
    one, other = (" ".join(f"word{at}" for at in some) for some in (range(1000), range(1000, 2000)))
    assert swap(closed, f"is {one} of {other}", f"is {other} of {one}") is None
