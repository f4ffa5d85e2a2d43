"""Text is shown in whole characters, without what belongs to a stop text, and adds up to the answer."""

import pytest

from app.engine.detokenizer import Detokenizer
from tests.models import tokenizer


def feed(text: str, stop: tuple[str, ...] = (), start: str = "") -> tuple[list[str], Detokenizer]:
    """One token a byte."""
    bytewise = tokenizer()
    detokenizer = Detokenizer(lambda ids: bytewise.decode(list(ids)), stop, start)
    shown = []
    for token in bytewise(text).input_ids:
        shown.append(detokenizer.add(token))
        if detokenizer.stopped:
            break
    shown.append(detokenizer.finish())
    return shown, detokenizer


@pytest.mark.parametrize(
    "text", ["plain", "naïve café", "日本語のテキスト", "a🙂b👩‍👩‍👧c", "e\u0301", "\u0645\u0631\u062d\u0628\u0627"]
)
def test_characters_come_whole_and_add_up(text: str) -> None:
    shown, detokenizer = feed(text)
    assert "".join(shown) == detokenizer.text == text
    assert not any("\ufffd" in part for part in shown)


def test_the_leading_space_goes_unless_the_prompt_ended_in_one() -> None:
    assert feed(" Paris")[1].text == "Paris"
    assert feed("  two")[1].text == " two"
    assert feed(" Paris", start="prompt ")[1].text == " Paris"


def test_a_stop_text_across_tokens_is_never_shown() -> None:
    shown, detokenizer = feed("one two STOP three", stop=("STOP",))
    assert detokenizer.stopped
    assert "".join(shown) == "one two "
    assert not any("S" in part for part in shown)


def test_the_earliest_stop_text_ends_the_answer() -> None:
    assert feed("abc def ghi", stop=("ghi", "ef"))[1].text == "abc d"


def test_what_only_began_like_a_stop_text_is_shown_in_the_end() -> None:
    shown, detokenizer = feed("to be ST", stop=("STOP",))
    assert not detokenizer.stopped
    assert "".join(shown) == "to be ST"


def test_bytes_that_never_become_a_character_are_shown_as_replacement() -> None:
    bytewise = tokenizer()
    detokenizer = Detokenizer(lambda ids: bytewise.decode(list(ids)), ())
    assert detokenizer.add(bytewise("é").input_ids[0]) == ""
    assert detokenizer.finish() == "\ufffd"
