"""Rows are found by the names that a question says."""

import pickle

import pytest

from app.domain.words import Span, words_of
from app.scope.mentions import Mentions

ALL = range(100)


def spans(*names: str) -> list[Span]:
    return [tuple(words_of(name)) for name in names]


@pytest.fixture
def mentions() -> Mentions:
    found = Mentions()
    found.add(0, spans("Ada Quill", "the Countess of Zenda"))
    found.add(1, spans("Zenda"))
    found.add(2, spans("Quill"))
    found.add(3, [])
    return found


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        ("Who is Ada Quill's mother?", {0, 2}),
        ("who was king of ZENDA", {1}),
        ("Where does the Countess of Zenda live?", {0, 1}),
        ("Where does the Contess of Zenda live?", {0, 1}),
        ("Ada and Quill", {2}),
        ("Nobody", set()),
        ("", set()),
    ],
)
def test_rows_whose_names_are_said_are_found(mentions: Mentions, question: str, rows: set[int]) -> None:
    words = words_of(question)
    assert mentions.rows_in(words, ALL) == rows
    assert {row for row in range(3) if mentions.mentioned(row, words)} == rows
    assert mentions.mentioned(3, words), "a row without names asks for none"


def test_a_long_name_is_found_with_any_of_its_words_misspelt() -> None:
    mentions = Mentions()
    mentions.add(7, spans("Stadtbibliothek Oberammergau Nordflügel"))
    for wrong in ("Stadtbiblothek Oberammergau Nordflügel", "Stadtbibliothek Oberamergau Nordflügel"):
        assert mentions.rows_in(words_of(f"When does {wrong} open?"), ALL) == {7}


def test_a_row_that_is_removed_leaves_nothing(mentions: Mentions) -> None:
    mentions.remove(0)
    assert mentions.rows_in(words_of("Ada Quill, Countess of Zenda"), ALL) == {1, 2}
    mentions.add(0, spans("Lumen"))
    assert mentions.rows_in(words_of("Ada Quill of Lumen"), ALL) == {0, 2}
    for row in range(4):
        mentions.remove(row)
    assert pickle.dumps(mentions) == pickle.dumps(Mentions()), "neither names nor words are held"
    assert mentions.rows_in(words_of("Ada Quill, Countess of Zenda, of Lumen"), ALL) == set()


def test_rows_elsewhere_are_not_even_looked_at() -> None:
    """A name may be that of thousands of edits in other namespaces, and of two here."""
    mentions, asked = Mentions(), []
    for row in range(2_000):
        mentions.add(row, spans("Zenda"))
    mentioned = mentions.mentioned

    def counted(row: int, words: list[str]) -> bool:
        asked.append(row)
        return mentioned(row, words)

    mentions.mentioned = counted  # type: ignore[method-assign]
    assert mentions.rows_in(words_of("Who was king of Zenda?"), {7: 0, 1_900: 1, 5_000: 2}) == {7, 1_900}
    assert sorted(asked) == [7, 1_900]
