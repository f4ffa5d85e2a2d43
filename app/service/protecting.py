"""Protected questions, asked now: which are answered otherwise than the model alone answers them. Changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from app.domain.generation import Generation, GenerationParameters
from app.engine.controls import plain

if TYPE_CHECKING:
    from app.service.service import Service

AT_ONCE = 16
MOST_TOKENS = 64
"""Of each answer: what an edit says first tells it from the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A question with its two answers. `edit_id` is the edit that gives the answer now, where one does."""

    prompt: str
    base: str
    """Without edits."""
    now: str
    edit_id: str | None

    @property
    def changed(self) -> bool:
        return self.base != self.now


async def guarded(service: "Service", prompts: Sequence[str], namespace: str) -> AsyncIterator[Guarded]:
    """Each prompt as it is answered at one revision, with the edits of a namespace and without them.

    Neither hits nor recent prompts count these questions. Raises InvalidRequest for one that the model cannot take.
    """
    revision = service.revision
    for first in range(0, len(prompts), AT_ONCE):
        some = prompts[first : first + AT_ONCE]
        pairs = await asyncio.gather(*(_both(service, prompt, namespace, revision) for prompt in some))
        for prompt, (base, now) in zip(some, pairs, strict=True):
            edit = now.hits[0].edit_id if now.hits else None
            yield Guarded(prompt=plain(prompt), base=base.said, now=now.said, edit_id=edit)


async def _both(service: "Service", prompt: str, namespace: str, revision: int) -> tuple[Generation, Generation]:
    most = min(MOST_TOKENS, await asyncio.to_thread(service.answering.room, prompt))

    async def answer(edits: Literal["live", "off"]) -> Generation:
        asked = GenerationParameters(
            max_new_tokens=most, edits=edits, namespace=namespace, revision=revision, counted=False
        )
        (found,) = await service.generate_all([prompt], asked)
        return found

    base, now = await asyncio.gather(answer("off"), answer("live"))
    return base, now
