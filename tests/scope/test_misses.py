"""Near misses are written from closed-class words, names and numbers, in the language of the question."""

import pytest

from app.scope.closed_words import ClosedWords, load_closed_words
from app.scope.misses import LONGEST, near_misses
from app.scope.parsed_question import names_in


@pytest.fixture(scope="module")
def closed() -> ClosedWords:
    """Read anew: what other tests of the process have read may be what another version of the reader made of it."""
    return load_closed_words.__wrapped__()


@pytest.mark.parametrize(
    ("question", "kind", "text"),
    [
        ("Who won the cup in 2014?", "another year", "Who won the cup in 2015?"),
        ("Which port does stage 7 use?", "another number", "Which port does stage 8 use?"),
        ("Who leads the choir?", "another year", "Who leads the choir in 1990?"),
        ("Question: Who leads the choir? Answer:", "another year", "Question: Who leads the choir in 1990? Answer:"),
        ("Q: How far is it from Ulm to Bonn?\nA:", "the reverse", "Q: How far is it from Bonn to Ulm?\nA:"),
        ("Who leads the choir?", "another time", "Who leads the former choir?"),
        ("Who feeds the cat with milk?", "the opposite", "Who feeds the cat without milk?"),
        ("How long is the trip from Ulm to Bonn?", "the reverse", "How long is the trip from Bonn to Ulm?"),
        ("Did Ada Byron teach Mary Shelley?", "the reverse", "Did Mary Shelley teach Ada Byron?"),
        ("Where was Ada Byron born?", "another subject", "Where was Latvia born?"),
        ("Wer leitet den Chor?", "another year", "Wer leitet den Chor im Jahr 1990?"),
        ("Wer ist die Ministerin?", "another time", "Wer ist die ehemalige Ministerin?"),
        ("Wie lange fährt der Zug von Ulm nach Bonn?", "the reverse", "Wie lange fährt der Zug von Bonn nach Ulm?"),
        ("Wie reise ich mit Hund?", "the opposite", "Wie reise ich ohne Hund?"),
        ("Qui dirige le choeur ?", "another year", "Qui dirige le choeur en 1990 ?"),
        ("Quel est le train de Lyon à Nice ?", "the reverse", "Quel est le train de Nice à Lyon ?"),
        ("Comment voyager avec un chien ?", "the opposite", "Comment voyager sans un chien ?"),
    ],
)
def test_a_question_has_this_near_miss(closed: ClosedWords, question: str, kind: str, text: str) -> None:
    made = near_misses(question, names_in(question, closed), ["Latvia", "Peru"], closed)
    assert (kind, text) in [(miss.kind, miss.text.strip()) for miss in made]


@pytest.mark.parametrize(
    "question",
    [
        "?",
        "",
        "Hi",
        "1990",
        "the",
        "der",
        "from to",
        "A" * 5000,
        "from A to B from C to D",
        "What is " + "7" * 4400,
        "How" + " " * 5000 + "a",
    ],
)
def test_whatever_is_asked_no_near_miss_is_the_question(closed: ClosedWords, question: str) -> None:
    made = near_misses(question, names_in(question, closed), ["Latvia"], closed)
    assert all(miss.text.casefold() != question.casefold() for miss in made)
    assert len({miss.text for miss in made}) == len(made) <= 16


def test_the_years_on_both_sides_are_near_misses(closed: ClosedWords) -> None:
    made = near_misses("Who won the cup in 2014?", (), (), closed)
    years = [miss.text for miss in made if miss.kind == "another year"]
    assert years == ["Who won the cup in 2013?", "Who won the cup in 2015?"]


def test_the_first_name_is_exchanged_for_two_others_that_the_question_does_not_hold(closed: ClosedWords) -> None:
    question = "Did Ada Byron teach Mary Shelley?"
    made = near_misses(question, names_in(question, closed), ["Mary", "Latvia", "Peru", "Chile"], closed)
    others = [miss.text for miss in made if miss.kind == "another subject"]
    assert others == ["Did Latvia teach Mary Shelley?", "Did Peru teach Mary Shelley?"]


@pytest.mark.parametrize(
    ("question", "reverse"),
    [
        ("Who wrote Salt and Ember?", []),
        ("Who is the CEO of Acme?", []),
        ("Did the CEO of Acme sue Lumen?", ["Did the Lumen sue CEO of Acme?"]),
    ],
)
def test_a_name_is_not_exchanged_for_a_part_of_it(closed: ClosedWords, question: str, reverse: list[str]) -> None:
    """A title with a small word in it is read as one name, and its last part as another."""
    names = names_in(question, closed)
    assert len(names) > 1
    made = near_misses(question, names, (), closed)
    assert [miss.text for miss in made if miss.kind == "the reverse"] == reverse


@pytest.mark.parametrize(("length", "count"), [(LONGEST, 2), (LONGEST + 1, 0)])
def test_a_longer_question_has_none(closed: ClosedWords, length: int, count: int) -> None:
    question = "in 2014?".rjust(length, "x")
    assert len(near_misses(question, (), (), closed)) == count
    assert len(near_misses(question, (), (), closed, most=1)) == min(count, 1)
