"""Log-probabilities as OpenAI's clients read them: tokens that join to the text, each at its place in it."""

from collections.abc import Sequence
from typing import Any

import pytest

from app.api.openai_choices import Chats, Completions
from app.api.schemas.openai import ChatBody, CompletionBody
from app.domain.generation import Generation, RankedToken, Token

EURO = "€".encode()


def token(
    token_id: int,
    own: str,
    begins: int,
    *,
    shown: str | None = None,
    raw: bytes | None = None,
    likeliest: Sequence[RankedToken] = (),
    ends: bool = False,
) -> Token:
    chosen = RankedToken(token_id, own or "\ufffd", -0.5, own.encode() if raw is None else raw)
    text = own if shown is None else shown
    return Token(token_id, text, -0.5, ends, begins=begins, own=own, ends=ends, ranked=(chosen, *likeliest))


def generation(tokens: Sequence[Token], reason: Any = "eos_token") -> Generation:
    text = "".join(each.text for each in tokens)
    return Generation(
        text=text, finish_reason=reason, prompt_tokens=1, tokens=tuple(tokens), seed=None, revision=0, hits=()
    )


def completions(**more: Any) -> Completions:
    return Completions(CompletionBody(prompt="Hun", logprobs=2, **more))


def chats() -> Chats:
    return Chats(ChatBody(messages=[{"role": "user", "content": "x"}], logprobs=True, top_logprobs=2))  # type: ignore[list-item]


HELD = [
    token(1, " a", 0),
    token(2, " S", 2, shown=" "),  # the S may begin the stop text
    token(3, "T", 4, shown=""),
    token(4, "x", 5, shown="STx"),
    token(5, " ST", 6, shown=" "),
    token(6, "OP", 9, shown=""),
]
"""A detokenizer shows them like this under the stop text `STOP`."""


def streamed(shape: Completions | Chats, tokens: Sequence[Token], end: Generation) -> list[Any]:
    chunks = [chunk for each in tokens if (chunk := shape.chunk(0, each)) is not None]
    return [*chunks, shape.last(0, end)]


@pytest.mark.parametrize("echo", [False, True])
def test_offsets_are_those_of_the_text_though_a_stop_text_holds_some_back(echo: bool) -> None:
    start = len("Hun") if echo else 0
    end = generation(HELD, "stop_sequence")
    found: Any = completions(echo=echo).choice(0, end)["logprobs"]
    assert found["tokens"] == [" a", " S", "T", "x", " "]
    assert found["text_offset"] == [start + at for at in (0, 2, 4, 5, 6)]
    assert "".join(found["tokens"]) == end.text
    chunks = streamed(completions(echo=echo), HELD, end)
    told = [each["logprobs"] for each in chunks if each["logprobs"]]
    assert [name for each in told for name in each["tokens"]] == found["tokens"]
    assert [at for each in told for at in each["text_offset"]] == found["text_offset"]
    assert [each["text"] for each in chunks if each["text"]] == [" a", " ", "STx", " "]


def test_a_chats_tokens_join_to_its_content_too() -> None:
    end = generation(HELD, "stop_sequence")
    found: Any = chats().choice(0, end)["logprobs"]
    assert "".join(each["token"] for each in found["content"]) == end.text
    told = [each["logprobs"] for each in streamed(chats(), HELD, end) if each["logprobs"]]
    assert [one["token"] for each in told for one in each["content"]] == [one["token"] for one in found["content"]]


def test_two_tokens_that_show_the_same_text_do_not_overwrite_each_other() -> None:
    twins = [
        RankedToken(8, "\ufffd", -0.1, b"\xe2"),
        RankedToken(9, "\ufffd", -0.2, b"\xf0"),
        RankedToken(7, " a", -0.3),
    ]
    found: Any = completions().choice(0, generation([token(7, " a", 0, likeliest=twins)]))["logprobs"]
    assert found["top_logprobs"] == [{"\ufffd": -0.1, "token_id:9": -0.2, " a": -0.3}]


def test_the_chosen_token_is_always_among_its_top_logprobs() -> None:
    likeliest = [RankedToken(8, " b", -0.1), RankedToken(9, " a", -0.2)]  # another token of the same text
    end = generation([token(7, " a", 0, likeliest=likeliest)])
    found: Any = completions().choice(0, end)["logprobs"]
    assert found["top_logprobs"] == [{" b": -0.1, "token_id:9": -0.2, " a": -0.5}]
    chat: Any = chats().choice(0, end)["logprobs"]
    assert [(each["token"], each["logprob"]) for each in chat["content"][0]["top_logprobs"]] == [
        (" b", -0.1),
        (" a", -0.2),
        (" a", -0.5),
    ]
    alone: Any = completions().choice(0, generation([token(7, " a", 0)]))["logprobs"]
    assert alone["top_logprobs"] == [{" a": -0.5}]


def test_the_bytes_of_part_of_a_character_are_its_bytes() -> None:
    parts = [token(1, "", 0, raw=EURO[:1]), token(2, "", 0, raw=EURO[1:2]), token(3, "€", 0, raw=EURO[2:])]
    found: Any = chats().choice(0, generation(parts))["logprobs"]
    assert [each["token"] for each in found["content"]] == ["", "", "€"]
    assert b"".join(bytes(each["bytes"]) for each in found["content"]) == EURO


def test_end_of_text_is_no_part_of_the_content() -> None:
    tokens = [token(1, " a", 0), token(0, "", 2, ends=True)]
    chat: Any = chats().choice(0, generation(tokens))["logprobs"]
    assert [each["token"] for each in chat["content"]] == [" a"]
    plain: Any = completions().choice(0, generation(tokens))["logprobs"]
    assert plain["tokens"] == [" a"]
    assert len(streamed(chats(), tokens, generation(tokens))) == 2, "end-of-text is no chunk of its own"


def test_without_being_asked_for_there_are_none() -> None:
    shape = Completions(CompletionBody(prompt="x"))
    bare = Token(1, " a", -0.5, False, own=" a")
    assert shape.choice(0, generation([bare]))["logprobs"] is None
    assert [each["logprobs"] for each in streamed(shape, [bare], generation([bare]))] == [None, None]
