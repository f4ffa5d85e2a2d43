"""Verification: what an edit does, by real generation through the serving path, before anyone else can see it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.edit import EditRequest
from app.domain.generation import Generation, GenerationParameters
from app.engine.editions import Edition
from app.engine.owner import EngineOwner
from app.service.serving import generation_of

ROOM_TOKENS = 32
"""Tokens beyond the target's own that a verified answer may take: enough to see that it does not stop."""


def same_text(answer: str, target: str) -> bool:
    """Whole-answer equality; only white space at the ends and in runs is forgiven."""
    return " ".join(answer.split()) == " ".join(target.split())


@dataclass(frozen=True, slots=True)
class Verdict:
    """`report` goes to whoever asked; `problems` say in words what failed."""

    after: str
    report: Mapping[str, Any]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.problems


class Verifier:
    """Generates under editions and trials with a capped share of the engine."""

    def __init__(self, owner: EngineOwner, share: int) -> None:
        self._owner = owner
        self._share = asyncio.Semaphore(share)

    async def answer(self, prompt: str, edition: Edition, target: str) -> Generation:
        """Greedy, to the natural end, or well beyond the target's length."""
        text = self._owner.engine.text
        room = self._owner.engine.hosted.max_tokens - len(text.encode(prompt))
        wanted = len(text.encode_target(prompt, target)) + ROOM_TOKENS
        parameters = GenerationParameters(max_new_tokens=min(room, wanted), namespace=edition.namespace)
        async with self._share:
            return await generation_of(self._owner, prompt, parameters, edition, edition.revision)

    async def answers(self, prompts: Sequence[str], edition: Edition, target: str) -> list[Generation]:
        return list(await asyncio.gather(*(self.answer(prompt, edition, target) for prompt in prompts)))

    async def verify(self, request: EditRequest, edit_id: str, base: Edition, trial: Edition) -> Verdict:
        """The prompt and its paraphrases must answer the target, probes and counter-examples as they did before."""
        untouched = (*request.probes, *request.counter_examples)
        (after, *paraphrases), before, now = await asyncio.gather(
            self.answers((request.prompt, *request.paraphrases), trial, request.target),
            self.answers(untouched, base, request.target),
            self.answers(untouched, trial, request.target),
        )
        problems: list[str] = []
        if not same_text(after.text, request.target):
            problems.append(f"the prompt is answered {after.text!r}, not {request.target!r}")
        missed = [p for p, g in zip(request.paraphrases, paraphrases, strict=True) if not self._right(g, request)]
        problems.extend(f"the paraphrase {prompt!r} is not answered with the target" for prompt in missed)
        changed = [p for p, b, n in zip(untouched, before, now, strict=True) if b.text != n.text]
        problems.extend(f"the answer to {prompt!r} would change" for prompt in changed)
        report = {
            "exact": same_text(after.text, request.target),
            "finish_reason": after.finish_reason,
            "answered_by": [hit.edit_id for hit in after.hits] == [edit_id],
            "paraphrases": {"asked": len(paraphrases), "right": len(paraphrases) - len(missed), "missed": missed},
            "unchanged": {"asked": len(untouched), "right": len(untouched) - len(changed), "changed": changed},
        }
        return Verdict(after.text, report, tuple(problems))

    @staticmethod
    def _right(generation: Generation, request: EditRequest) -> bool:
        return same_text(generation.text, request.target)
