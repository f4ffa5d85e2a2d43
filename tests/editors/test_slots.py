"""Whom a common question is about, where capitals show a part of the name only."""

import pytest

from app.editors.phrasebook import load_phrasebook
from app.editors.slots import Slots

BOOK = load_phrasebook()


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("What is the conservation status of Zenda baboon?", "Zenda baboon"),
        ("Question: What is the conservation status of Zenda baboon? Answer:", "Zenda baboon"),
        ("Zenda schnitzel was created in", "Zenda schnitzel"),
        ("National Highway 45 is located in the country of", "National Highway 45"),
        ("Where was Ada Quill born?", "Ada Quill"),
        ("Who was Ada Quill's mother?", "Ada Quill"),
        ("Who is the mother of Ansel, 3rd Duke of Zenda?", "Ansel, 3rd Duke of Zenda"),
        ("Who directed The Prisoner of Zenda?", "The Prisoner of Zenda"),
        ("The Prisoners was released on", "Prisoners"),
        ("2011 Zenda revolution was created in", "2011 Zenda revolution"),
        ("Saint Zenda is located in", "Saint Zenda"),
    ],
)
def test_it_is_read_whole(question: str, name: str) -> None:
    assert BOOK.subject(question) == name


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of Zenda today?",  # more than a name
        "What is the capital of Zenda, which is in Peru?",
        "What is the capital of Zenda in 2012?",
        "Where was Ada Quill's dentist born?",
        "Ada Quill's life ended in",
        "Who is the president of the country?",
        "What is the capital of Zenda officially?",
        "Where was Ada Quill imprisoned?",  # may be a verb
        "When is Premium due?",
        "Where is Zenda support?",
        "Our warehouse is located in",
        "After Ada Quill was born in",
        "How do I reset my password?",  # no phrasing
        "What is the capital of?",
        "",
    ],
)
def test_of_anything_else_capitals_must_tell(question: str) -> None:
    assert BOOK.subject(question) is None


def test_without_phrasings_there_are_no_slots() -> None:
    assert Slots((), ()).name("Where was Ada Quill born?") is None
