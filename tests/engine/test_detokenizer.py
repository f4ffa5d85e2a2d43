"""Text is shown in whole characters, without what belongs to a stop text, and adds up to the answer."""

from collections.abc import Sequence

import pytest

from app.engine.detokenizer import Detokenizer
from tests.models import tokenizer


def feed(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], Detokenizer]:
    """One token a byte."""
    bytewise = tokenizer()
    detokenizer = Detokenizer(lambda ids: bytewise.decode(list(ids)), stop)
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


def test_the_leading_blank_is_part_of_the_answer() -> None:
    assert feed(" Paris")[1].text == " Paris"
    assert feed("  two")[1].text == "  two"


@pytest.mark.parametrize(("said", "stop", "left"), [(" Paris", " P", ""), (" a b", " b", " a"), (" a", "a", " ")])
def test_a_stop_text_may_begin_with_a_blank(said: str, stop: str, left: str) -> None:
    _, detokenizer = feed(said, stop=(stop,))
    assert (detokenizer.stopped, detokenizer.text) == (True, left)


def test_a_blank_stays_where_a_decoder_drops_that_of_a_first_word() -> None:
    """Tokenizers of SentencePiece do this: the text after a prompt is no first word."""
    words = ["▁Hun", "▁Paris", "gary"]

    def decode(ids: Sequence[int]) -> str:
        return "".join(words[i] for i in ids).replace("▁", " ").removeprefix(" ")

    apart = Detokenizer(decode, (), [0])
    assert (apart.add(1), apart.begins, apart.own) == (" Paris", 0, " Paris")
    within = Detokenizer(decode, (), [1, 0])
    assert (within.add(2), within.add(1), within.begins) == ("gary", " Paris", 4)


def test_where_a_tokens_own_text_stands_is_known_while_it_is_held_back() -> None:
    bytewise = tokenizer()
    detokenizer = Detokenizer(lambda ids: bytewise.decode(list(ids)), ("STOP",))
    places = []
    for token in bytewise("aSTxé").input_ids:
        shown = detokenizer.add(token)
        places.append((detokenizer.begins, detokenizer.own, shown))
    assert places == [(0, "a", "a"), (1, "S", ""), (2, "T", ""), (3, "x", "STx"), (4, "", ""), (4, "é", "é")]


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
