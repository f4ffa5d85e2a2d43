"""A generation as OpenAI's choices, whole and in chunks. Knows no HTTP."""

from app.api.schemas.openai import CompletionBody
from app.api.schemas.openai_answers import (
    REASONS,
    ChatChoice,
    ChatDelta,
    ChatLogprobs,
    CompletionChoice,
    CompletionLogprobs,
    Served,
)
from app.domain.generation import Generation, Token


class Completions:
    """Choices of /v1/completions. With `echo` an answer begins with its prompt."""

    kinds = "text_completion", "text_completion"

    def __init__(self, body: CompletionBody) -> None:
        self._prompts, self._n, self._echo = body.prompts, body.answers, bool(body.echo)
        self._told: dict[int, int] = {}  # characters of each answer so far

    def choice(self, at: int, generation: Generation) -> CompletionChoice:
        logprobs = CompletionLogprobs.of(generation.tokens)
        return {
            "index": at,
            "text": self._echoed(at) + generation.text,
            "logprobs": None if logprobs is None else logprobs.model_dump(),
            "finish_reason": REASONS[generation.finish_reason],
            "errata": Served.of(generation).model_dump(),
        }

    def opening(self, answers: int) -> list[CompletionChoice]:
        return [self._part(at, self._echoed(at)) for at in range(answers)] if self._echo else []

    def chunk(self, at: int, token: Token) -> CompletionChoice:
        begins = self._told.get(at, 0)
        self._told[at] = begins + len(token.text)
        logprobs = CompletionLogprobs.of([token], begins)
        return {**self._part(at, token.text), "logprobs": None if logprobs is None else logprobs.model_dump()}

    def last(self, at: int, generation: Generation) -> CompletionChoice:
        reason = REASONS[generation.finish_reason]
        return {**self._part(at, ""), "finish_reason": reason, "errata": Served.of(generation).model_dump()}

    def _part(self, at: int, text: str) -> CompletionChoice:
        return {"index": at, "text": text, "logprobs": None, "finish_reason": None}

    def _echoed(self, at: int) -> str:
        if not self._echo:
            return ""
        prompt = self._prompts[at // self._n]
        return prompt if prompt[-1:].isspace() else f"{prompt} "  # an answer is told without its leading space


class Chats:
    """Choices of /v1/chat/completions."""

    kinds = "chat.completion", "chat.completion.chunk"

    def choice(self, at: int, generation: Generation) -> ChatChoice:
        logprobs = ChatLogprobs.of(generation.tokens)
        return {
            "index": at,
            "message": {"role": "assistant", "content": generation.text, "refusal": None},
            "logprobs": None if logprobs is None else logprobs.model_dump(),
            "finish_reason": REASONS[generation.finish_reason],
            "errata": Served.of(generation).model_dump(),
        }

    def opening(self, answers: int) -> list[ChatDelta]:
        """Each answer says first who speaks."""
        return [self._part(at, {"role": "assistant", "content": ""}) for at in range(answers)]

    def chunk(self, at: int, token: Token) -> ChatDelta:
        logprobs = ChatLogprobs.of([token])
        part = self._part(at, {"content": token.text})
        return {**part, "logprobs": None if logprobs is None else logprobs.model_dump()}

    def last(self, at: int, generation: Generation) -> ChatDelta:
        reason = REASONS[generation.finish_reason]
        return {**self._part(at, {}), "finish_reason": reason, "errata": Served.of(generation).model_dump()}

    def _part(self, at: int, delta: dict[str, str]) -> ChatDelta:
        return {"index": at, "delta": delta, "logprobs": None, "finish_reason": None}
