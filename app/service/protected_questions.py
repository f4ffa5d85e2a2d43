"""A check of protected questions: which of them are answered otherwise than by the model alone. Changes nothing."""

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
"""The maximum length of each answer, in tokens: an edit shows in the first tokens of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectedAnswer:
    """A question with its answers with and without edits. `edit_id` is the edit that gives the answer now, if any."""

    prompt: str
    base: str
    """The answer without edits."""
    now: str
    edit_id: str | None

    @property
    def changed(self) -> bool:
        return self.base != self.now


async def protected_answers(
    service: "Service", prompts: Sequence[str], namespace: str
) -> AsyncIterator[ProtectedAnswer]:
    """Yield each prompt with its answers at one revision, with the edits of a namespace and without them.

    These questions count neither as hits nor as recent prompts. Raises InvalidRequest for one that the model cannot
    take.
    """
    revision = service.revision
    for first in range(0, len(prompts), AT_ONCE):
        some = prompts[first : first + AT_ONCE]
        pairs = await asyncio.gather(*(_both(service, prompt, namespace, revision) for prompt in some))
        for prompt, (base, now) in zip(some, pairs, strict=True):
            edit = now.hits[0].edit_id if now.hits else None
            yield ProtectedAnswer(prompt=plain(prompt), base=base.said, now=now.said, edit_id=edit)


async def _both(service: "Service", prompt: str, namespace: str, revision: int) -> tuple[Generation, Generation]:
    most = min(MOST_TOKENS, await asyncio.to_thread(service.answers.room, prompt))

    async def answer(edits: Literal["live", "off"]) -> Generation:
        parameters = GenerationParameters(
            max_new_tokens=most, edits=edits, namespace=namespace, revision=revision, counted=False
        )
        (generation,) = await service.generate_all([prompt], parameters)
        return generation

    base, now = await asyncio.gather(answer("off"), answer("live"))
    return base, now
