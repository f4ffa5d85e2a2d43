"""A generation as OpenAI's choices, whole and in chunks. Independent of HTTP."""

from typing import Any

from app.api.schemas.openai import ChatBody, CompletionBody
from app.api.schemas.openai_answers import (
    REASONS,
    ChatChoice,
    ChatDelta,
    ChatLogprobs,
    CompletionChoice,
    CompletionLogprobs,
    ReportedTokens,
    Served,
    reported_tokens,
)
from app.domain.generation import Generation, Token


class Completions:
    """The choices of /v1/completions. With `echo` an answer begins with its prompt."""

    kinds = "text_completion", "text_completion"

    def __init__(self, body: CompletionBody) -> None:
        self._prompts, self._n, self._echo = body.prompts, body.answers, bool(body.echo)
        self._wanted = body.logprobs is not None
        self._reported: dict[int, ReportedTokens] = {}

    def choice(self, at: int, generation: Generation) -> CompletionChoice:
        return {
            "index": at,
            "text": self._echoed(at) + generation.text,
            "logprobs": self._logprobs(at, reported_tokens(generation.tokens)),
            "finish_reason": REASONS[generation.finish_reason],
            "errata": Served.of(generation).model_dump(),
        }

    def opening(self, answers: int) -> list[CompletionChoice]:
        return [self._part(at, self._echoed(at)) for at in range(answers)] if self._echo else []

    def chunk(self, at: int, token: Token) -> CompletionChoice | None:
        reported = self._reported.setdefault(at, ReportedTokens()).add(token)
        if not token.text and not reported:
            return None
        return {**self._part(at, token.text), "logprobs": self._logprobs(at, reported)}

    def last(self, at: int, generation: Generation) -> CompletionChoice:
        reason, rest = REASONS[generation.finish_reason], self._reported.setdefault(at, ReportedTokens()).rest()
        return {
            **self._part(at, ""),
            "logprobs": self._logprobs(at, rest) if rest else None,
            "finish_reason": reason,
            "errata": Served.of(generation).model_dump(),
        }

    def _logprobs(self, at: int, reported: list[Token]) -> dict[str, Any] | None:
        return CompletionLogprobs.of(reported, len(self._echoed(at))).model_dump() if self._wanted else None

    def _part(self, at: int, text: str) -> CompletionChoice:
        return {"index": at, "text": text, "logprobs": None, "finish_reason": None}

    def _echoed(self, at: int) -> str:
        return self._prompts[at // self._n] if self._echo else ""


class Chats:
    """The choices of /v1/chat/completions."""

    kinds = "chat.completion", "chat.completion.chunk"

    def __init__(self, body: ChatBody) -> None:
        self._wanted = bool(body.logprobs)
        self._reported: dict[int, ReportedTokens] = {}

    def choice(self, at: int, generation: Generation) -> ChatChoice:
        return {
            "index": at,
            "message": {"role": "assistant", "content": generation.text, "refusal": None},
            "logprobs": self._logprobs(reported_tokens(generation.tokens)),
            "finish_reason": REASONS[generation.finish_reason],
            "errata": Served.of(generation).model_dump(),
        }

    def opening(self, answers: int) -> list[ChatDelta]:
        """The first part of each answer, which names the role of its speaker."""
        return [self._part(at, {"role": "assistant", "content": ""}) for at in range(answers)]

    def chunk(self, at: int, token: Token) -> ChatDelta | None:
        reported = self._reported.setdefault(at, ReportedTokens()).add(token)
        if not token.text and not reported:
            return None
        return {**self._part(at, {"content": token.text}), "logprobs": self._logprobs(reported)}

    def last(self, at: int, generation: Generation) -> ChatDelta:
        reason, rest = REASONS[generation.finish_reason], self._reported.setdefault(at, ReportedTokens()).rest()
        return {
            **self._part(at, {}),
            "logprobs": self._logprobs(rest) if rest else None,
            "finish_reason": reason,
            "errata": Served.of(generation).model_dump(),
        }

    def _logprobs(self, reported: list[Token]) -> dict[str, Any] | None:
        return ChatLogprobs.of(reported).model_dump() if self._wanted else None

    def _part(self, at: int, delta: dict[str, str]) -> ChatDelta:
        return {"index": at, "delta": delta, "logprobs": None, "finish_reason": None}
