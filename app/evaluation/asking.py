"""Questions put to a service as its clients put them: only the question goes in, and the whole answer comes out."""

import asyncio
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.domain.errors import InvalidRequest
from app.domain.generation import Generation, GenerationParameters, Token
from app.service.service import Service

AT_ONCE = 256
"""Requests that wait or run; fewer than the engine's queue takes."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A continuation under teacher forcing: its tokens, how many the model would have chosen itself, their summed
    log-probability (nats). End-of-text is not counted, as in the papers. `chosen` says it of each token."""

    tokens: int
    likeliest: int
    logprob: float
    chosen: tuple[bool, ...] = ()

    @classmethod
    def of(cls, tokens: Sequence[Token]) -> "Scored":
        counted = tokens[:-1] if tokens[-1].special and len(tokens) > 1 else tokens
        chosen = tuple(token.likeliest for token in counted)
        return cls(len(counted), sum(chosen), sum(token.logprob for token in counted), chosen)


def perplexity(scored: Sequence[Scored | None]) -> float | None:
    """Of all tokens together; None without any."""
    counted = [each for each in scored if each is not None]
    tokens = sum(each.tokens for each in counted)
    return math.exp(-sum(each.logprob for each in counted) / tokens) if tokens else None


def _seed(draw: int, prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{draw}/{prompt}".encode()).digest()[:4], "big")


class Asking:
    """`most_tokens` caps every answer alike, well beyond the longest target: nothing tells a target's length."""

    def __init__(self, service: Service, most_tokens: int) -> None:
        self.service = service
        self._parameters = GenerationParameters(max_new_tokens=most_tokens)
        self._bare: dict[str, str | None] = {}

    async def generations(
        self, prompts: Sequence[str], parameters: GenerationParameters | None = None, draw: int | None = None
    ) -> list[Generation | None]:
        """None for a prompt that the model cannot take."""
        how = parameters or self._parameters
        found: list[Generation | None] = []
        for first in range(0, len(prompts), AT_ONCE):
            some = (
                self._one(prompt, how if draw is None else replace(how, seed=_seed(draw, prompt)))
                for prompt in prompts[first : first + AT_ONCE]
            )
            found.extend(await asyncio.gather(*some))
        return found

    async def answers(self, prompts: Sequence[str], *, draw: int | None = None, **how: object) -> list[str | None]:
        """`how` changes the parameters: `edits="off"`, `temperature=1.0` and so on. Under `draw` each prompt has a seed
        of its own, the same whatever else is asked: one seed for all would be one draw."""
        parameters = replace(self._parameters, **how)  # type: ignore[arg-type]
        return [None if each is None else each.said for each in await self.generations(prompts, parameters, draw)]

    async def bare(self, prompts: Sequence[str]) -> list[str | None]:
        """What the model answers without any edit; asked once each, for it is frozen."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._bare]
        self._bare.update(zip(new, await self.answers(new, edits="off"), strict=True))
        return [self._bare[prompt] for prompt in prompts]

    async def scores(self, pairs: Sequence[tuple[str, str]], **how: object) -> list[Scored | None]:
        """(prompt, continuation) under teacher forcing; None where they do not fit together into a sequence."""
        parameters = replace(self._parameters, **how)  # type: ignore[arg-type]
        found: list[Scored | None] = []
        for first in range(0, len(pairs), AT_ONCE):
            some = (self._score(*pair, parameters) for pair in pairs[first : first + AT_ONCE])
            found.extend(await asyncio.gather(*some))
        return found

    async def _one(self, prompt: str, parameters: GenerationParameters) -> Generation | None:
        try:
            return await self.service.generate(prompt, parameters)
        except InvalidRequest as error:
            limit, used = error.details.get("limit"), error.details.get("prompt_tokens")
            if limit is None or used is None or used >= limit:
                return None
            # a long prompt leaves less room than the cap: then to the end of the sequence
            return await self.service.generate(prompt, replace(parameters, max_new_tokens=limit - used))

    async def _score(self, prompt: str, continuation: str, parameters: GenerationParameters) -> Scored | None:
        try:
            return Scored.of((await self.service.score(prompt, continuation, parameters)).tokens)
        except InvalidRequest:
            return None
