"""Response bodies of /v1, in OpenAI's form. Independent of the service."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from app.api.schemas.base import Outgoing
from app.api.schemas.generate import HitOut
from app.domain.generation import FinishReason, Generation, RankedToken, Token

REASONS: dict[FinishReason, Literal["stop", "length"]] = {
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
}


class TopLogprob(Outgoing):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Outgoing):
    """Log-probabilities of a chat answer. The `token` texts joined are the content, as are their `bytes`; a token that
    is only part of a character has no text, only bytes."""

    content: list[TokenLogprob]
    refusal: None = None

    @classmethod
    def of(cls, tokens: Sequence[Token]) -> "ChatLogprobs":
        return cls(content=[cls._one(token) for token in tokens])

    @staticmethod
    def _one(token: Token) -> TokenLogprob:
        chosen, *likeliest = token.ranked
        texts = {token.id: token.own}  # a token that is part of a character has no text, or all of it
        top = [
            TopLogprob(token=texts.get(each.id, each.text), logprob=each.logprob, bytes=list(each.raw))
            for each in with_chosen(token.ranked)
        ]
        return TokenLogprob(
            token=token.own,
            logprob=chosen.logprob,
            bytes=list(chosen.raw),
            top_logprobs=top if likeliest else [],
        )


class CompletionLogprobs(Outgoing):
    """Log-probabilities of a completion. `tokens` joined are the text; `text_offset` is the position of each in it. If
    two tokens have the same text in `top_logprobs`, the chosen one keeps it, or else the likelier one; the other is
    called `token_id:N`."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]

    @classmethod
    def of(cls, tokens: Sequence[Token], begins: int = 0) -> "CompletionLogprobs":
        """`begins` is the position of the answer in the text."""
        return cls(
            tokens=[token.own for token in tokens],
            token_logprobs=[token.ranked[0].logprob for token in tokens],
            top_logprobs=[cls._top(token) for token in tokens],
            text_offset=[begins + token.begins for token in tokens],
        )

    @staticmethod
    def _top(token: Token) -> dict[str, float]:
        named: dict[int, str] = {token.id: token.own}
        for each in with_chosen(token.ranked):
            taken = each.text in named.values()
            named.setdefault(each.id, f"token_id:{each.id}" if taken else each.text)
        return {named[each.id]: each.logprob for each in with_chosen(token.ranked)}


def with_chosen(ranked: Sequence[RankedToken]) -> list[RankedToken]:
    """The likeliest tokens of a position, followed by the chosen one if it is not among them."""
    chosen, *likeliest = ranked
    return likeliest if chosen.id in {each.id for each in likeliest} else [*likeliest, chosen]


class ReportedTokens:
    """Selects the tokens of one answer whose log-probabilities are reported, each once its text is shown. Text that may
    begin a stop text is held back, and text that a stop text cut off is never reported. End-of-text is not part of an
    answer."""

    def __init__(self) -> None:
        self._waiting: list[Token] = []
        self._shown = 0

    def add(self, token: Token) -> list[Token]:
        """The tokens that are shown together with this one."""
        self._shown += len(token.text)
        if token.ranked and not token.ends:
            self._waiting.append(token)
        complete = [each for each in self._waiting if each.begins + len(each.own) <= self._shown]
        self._waiting = self._waiting[len(complete) :]
        return complete

    def rest(self) -> list[Token]:
        """The remaining tokens at the answer's end: a token that a stop text cut in two is reported as far as it is
        shown."""
        cut = [each for each in self._waiting if each.begins < self._shown]
        return [replace(each, own=each.own[: self._shown - each.begins]) for each in cut]


def reported_tokens(tokens: Sequence[Token]) -> list[Token]:
    """The tokens of a whole answer whose log-probabilities are reported."""
    reported = ReportedTokens()
    return [each for token in tokens for each in reported.add(token)] + reported.rest()


class Usage(Outgoing):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, generations: Sequence[Generation], n: int) -> "Usage":
        """The usage of a request; a prompt with `n` answers is counted once."""
        prompts = sum(each.prompt_tokens for each in generations[::n])
        return cls.counted(prompts, sum(len(each.tokens) for each in generations))

    @classmethod
    def counted(cls, prompts: int, answers: int) -> "Usage":
        return cls(prompt_tokens=prompts, completion_tokens=answers, total_tokens=prompts + answers)


class Served(Outgoing):
    """Errata's own fields of a choice: the seed that repeats it, the revision that it saw, and the edit that answered,
    if any. `not_given` has the edit in whose scope the prompt is, if its target was not said; `nearest`, with `details`
    and if there is neither, the edit that came nearest."""

    seed: int | None
    revision: int
    edits: list[HitOut]
    not_given: list[HitOut]
    nearest: HitOut | None = Field(default=None, exclude_if=lambda found: found is None)

    @classmethod
    def of(cls, generation: Generation) -> "Served":
        hits = [HitOut.of(hit) for hit in generation.hits]
        near = None if generation.nearest is None else HitOut.of(generation.nearest)
        missed = [HitOut.of(hit) for hit in generation.not_given]
        return cls(seed=generation.seed, revision=generation.revision, edits=hits, not_given=missed, nearest=near)


class Model(Outgoing):
    """The served model. `max_model_len` is the length of prompt and answer together, in tokens."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "errata"
    max_model_len: int | None = None


class Models(Outgoing):
    object: Literal["list"] = "list"
    data: list[Model]


class OpenAIError(Outgoing):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIProblem(Outgoing):
    error: OpenAIError


# plain dictionaries with described keys, because a stream makes thousands of them


class CompletionChoice(TypedDict):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"] | None
    errata: NotRequired[dict[str, Any]]


class ChatMessage(TypedDict):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(TypedDict):
    index: int
    message: ChatMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]
    errata: dict[str, Any]


class ChatDelta(TypedDict):
    index: int
    delta: dict[str, str]
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"] | None
    errata: NotRequired[dict[str, Any]]


class Completion(Outgoing):
    """A whole answer. `errata` in a choice has its seed, the revision that it saw and the edit that answered."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class ChatCompletion(Outgoing):
    """A whole answer. `errata` in a choice has its seed, the revision that it saw and the edit that answered."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


def head(kind: str, request_id: str, model: str) -> dict[str, Any]:
    """The common fields of an answer and of each chunk of a stream."""
    prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
    return {"id": f"{prefix}-{request_id}", "object": kind, "created": int(time.time()), "model": model}
