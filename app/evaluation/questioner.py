"""Sends questions to a service as its clients do: only the question goes in, and the whole answer comes out."""

import asyncio
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.domain.errors import InvalidRequest
from app.domain.generation import Generation, GenerationParameters, Token
from app.service.service import Service

AT_ONCE = 256
"""Number of concurrent requests; below the engine's queue limit."""


@dataclass(frozen=True, slots=True)
class ForcedScore:
    """A continuation scored under teacher forcing: its token count, how many tokens the model would have chosen
    (`chosen` per token), and their summed log probability in nats. As in the papers, end-of-text is not counted."""

    tokens: int
    likeliest: int
    logprob: float
    chosen: tuple[bool, ...] = ()

    @classmethod
    def of(cls, tokens: Sequence[Token]) -> "ForcedScore":
        counted = tokens[:-1] if tokens[-1].special and len(tokens) > 1 else tokens
        chosen = tuple(token.likeliest for token in counted)
        return cls(len(counted), sum(chosen), sum(token.logprob for token in counted), chosen)


def perplexity(scored: Sequence[ForcedScore | None]) -> float | None:
    """Perplexity over all tokens together; None without any."""
    counted = [each for each in scored if each is not None]
    tokens = sum(each.tokens for each in counted)
    return math.exp(-sum(each.logprob for each in counted) / tokens) if tokens else None


def _seed(draw: int, prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{draw}/{prompt}".encode()).digest()[:4], "big")


class Questioner:
    """Asks a service. `most_tokens` caps every answer alike, well above the longest target, so that the cap reveals no
    target's length."""

    def __init__(self, service: Service, most_tokens: int) -> None:
        self.service = service
        self._parameters = GenerationParameters(max_new_tokens=most_tokens)
        self._bare: dict[str, str | None] = {}

    async def generations(
        self, prompts: Sequence[str], parameters: GenerationParameters | None = None, draw: int | None = None
    ) -> list[Generation | None]:
        """Generations in the order of the prompts; None for a prompt that the model cannot take."""
        how = parameters or self._parameters
        generations: list[Generation | None] = []
        for first in range(0, len(prompts), AT_ONCE):
            some = (
                self._one(prompt, how if draw is None else replace(how, seed=_seed(draw, prompt)))
                for prompt in prompts[first : first + AT_ONCE]
            )
            generations.extend(await asyncio.gather(*some))
        return generations

    async def answers(self, prompts: Sequence[str], *, draw: int | None = None, **how: object) -> list[str | None]:
        """Answers in the order of the prompts. `how` overrides parameters, such as `edits="off"` or `temperature=1.0`.
        With `draw`, each prompt gets a seed of its own that depends on nothing else: a common seed would make all
        answers one draw."""
        parameters = replace(self._parameters, **how)  # type: ignore[arg-type]
        return [None if each is None else each.said for each in await self.generations(prompts, parameters, draw)]

    async def bare(self, prompts: Sequence[str]) -> list[str | None]:
        """Answers of the unedited model, cached per prompt since it is frozen."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._bare]
        self._bare.update(zip(new, await self.answers(new, edits="off"), strict=True))
        return [self._bare[prompt] for prompt in prompts]

    async def scores(self, pairs: Sequence[tuple[str, str]], **how: object) -> list[ForcedScore | None]:
        """Scores of (prompt, continuation) pairs under teacher forcing; None for a pair that exceeds a sequence."""
        parameters = replace(self._parameters, **how)  # type: ignore[arg-type]
        scores: list[ForcedScore | None] = []
        for first in range(0, len(pairs), AT_ONCE):
            some = (self._score(*pair, parameters) for pair in pairs[first : first + AT_ONCE])
            scores.extend(await asyncio.gather(*some))
        return scores

    async def _one(self, prompt: str, parameters: GenerationParameters) -> Generation | None:
        try:
            return await self.service.generate(prompt, parameters)
        except InvalidRequest as error:
            limit, used = error.details.get("limit"), error.details.get("prompt_tokens")
            if limit is None or used is None or used >= limit:
                return None
            # a long prompt leaves less room than the cap: generate to the end of the sequence
            return await self.service.generate(prompt, replace(parameters, max_new_tokens=limit - used))

    async def _score(self, prompt: str, continuation: str, parameters: GenerationParameters) -> ForcedScore | None:
        try:
            return ForcedScore.of((await self.service.score(prompt, continuation, parameters)).tokens)
        except InvalidRequest:
            return None
