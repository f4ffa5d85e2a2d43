"""Answering prompts: one pin for all answers of a request, tokens as they come, and the counts kept of them."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from app.domain.errors import InvalidRequest
from app.domain.generation import Generation, GenerationParameters, Hit, Token
from app.domain.scope import Traffic
from app.engine.client import EngineClient
from app.engine.controls import plain
from app.engine.outcome import hit_of
from app.service.feedback import Feedback
from app.service.generation_path import items_of, scope_decisions_of
from app.service.log_lines import edit_fields, note
from app.service.pins import Pins
from app.service.recent_prompts import RecentPrompts
from app.service.records import Clock, Records

MOST_TRAFFIC = 10_000
"""The greatest number of recent prompts of a namespace in contrast to which scopes are set."""


class Answers:
    """The reading half of the service: it changes nothing but counters, recent prompts and the answers that may be
    reported."""

    def __init__(
        self,
        engine: EngineClient,
        records: Records,
        pins: Pins,
        recent: RecentPrompts,
        feedback: Feedback,
        clock: Clock,
        max_new_tokens_limit: int,
    ) -> None:
        self._engine, self._records, self._pins, self._recent, self._clock = engine, records, pins, recent, clock
        self._feedback, self._max_new_tokens_limit = feedback, max_new_tokens_limit
        engine.scope.hear(self._traffic)

    def _traffic(self, namespace: str) -> Traffic:
        """The questions of a namespace's recent prompts."""
        turns = self._engine.text.turns
        recent, others = self._recent.both(namespace)
        return Traffic(*(tuple(turns(prompt)[-1] for prompt in each[-MOST_TRAFFIC:]) for each in (others, recent)))

    async def scope_of(self, prompts: Sequence[str], namespace: str) -> list[tuple[Hit | None, Hit | None]]:
        """The live edit in whose scope each prompt is, and the nearest edit. Generates no answer."""
        decisions = await scope_decisions_of(self._engine, prompts, self._pins.current(namespace))
        return [(hit_of(scope_decision.decision), hit_of(scope_decision.nearest)) for scope_decision in decisions]

    def false_hits(self, namespace: str) -> float:
        """The share of unrelated questions that the namespace's edits may answer."""
        return self._engine.scope.false_hits(namespace)

    @property
    def model_name(self) -> str:
        """The name under which clients address the model."""
        return self._engine.model_name

    @property
    def max_tokens(self) -> int:
        """The most tokens of one request, its prompt and answer together."""
        return self._engine.max_tokens

    def render(self, messages: Sequence[Mapping[str, Any]], *, continues: bool = False) -> str:
        """A conversation as the prompt that is served; if it `continues`, its last message is continued. Takes time
        with its length; any thread may call it. Raises InvalidRequest for a model without a chat template."""
        return self._engine.text.render(messages, continues=continues)

    @property
    def chats(self) -> bool:
        """True if the model has a chat template."""
        return self._engine.text.chats

    def question(self, prompt: str) -> str:
        """The question of a prompt: the last user turn of a conversation; any other prompt is a question as a whole."""
        start, end = self._engine.text.question(prompt)
        return plain(prompt[start:end])

    def room(self, prompt: str) -> int:
        """The most tokens that an answer may have; at least 1, and then the request is refused with the reason.
        Tokenises the prompt; any thread may call it."""
        text, limit = self._engine.text, self._engine.max_tokens
        return max(1, min(self._max_new_tokens_limit, limit - len(text.encode(prompt))))

    def prompt_tokens(self, prompts: Sequence[str]) -> int:
        """The tokens of all prompts together. Tokenises them; any thread may call it."""
        return sum(len(self._engine.text.encode(prompt)) for prompt in prompts)

    async def stream(
        self, prompts: Sequence[str], parameters: GenerationParameters, n: int = 1
    ) -> AsyncGenerator[tuple[int, Token | Generation], None]:
        """Yields the tokens of `n` answers to each prompt at one revision, as (index, token), and each answer's
        Generation last. The indices run over the n answers to the first prompt, then over those to the next."""
        if parameters.max_new_tokens > self._max_new_tokens_limit:
            raise InvalidRequest(f"`max_new_tokens` may be at most {self._max_new_tokens_limit} on this server.")
        began = time.monotonic()
        edition, revision = await self._pins.pin(parameters)
        requests = [(prompt, seeded(parameters, at)) for prompt in prompts for at in range(n)]
        async with aclosing(items_of(self._engine, requests, edition, revision, began)) as items:
            async for at, item in items:
                if isinstance(item, Generation):
                    self._count(requests[at][0], parameters, item)
                    self._feedback.remember(requests[at][0], at, parameters, item)
                yield at, item

    def _count(self, prompt: str, parameters: GenerationParameters, generation: Generation) -> None:
        hits = [hit.edit_id for hit in generation.hits]
        note(namespace=parameters.namespace, **edit_fields(hits))
        if not parameters.counted:
            return
        self._records.count_hits(hits, self._clock())
        self._records.hits.count_not_given(hit.edit_id for hit in generation.not_given)
        if parameters.edits == "live" and not parameters.forced:
            self._recent.add(parameters.namespace, prompt)


def seeded(parameters: GenerationParameters, at: int) -> GenerationParameters:
    """The parameters of one of several answers: each has its own seed, and the first has the one given."""
    if parameters.seed is None or not at:
        return parameters
    return replace(parameters, seed=(parameters.seed + at + 2**63) % 2**64 - 2**63)
