"""The semantic cache: embeds the prompt and returns the stored answer of the nearest key within a threshold, else asks
the model.

It is the alternative that a user would otherwise build. Its threshold is set where it best separates, on the bundled
generic questions, phrasings of one question from near ones: the same relation of another subject, or another relation
of the same subject.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from app.evaluation.candidates import EditAttempt
from app.evaluation.cases import Case
from app.evaluation.questioner import ForcedScore, Questioner
from app.scope.bank import BankPrompt
from app.scope.encoder import Encoder


class SemanticCache:
    """A cache of answers in front of the model, as GPTCache and others build it: over a sentence encoder."""

    def __init__(self, questioner: Questioner, encoder: Encoder, bank: Sequence[BankPrompt]) -> None:
        self._questioner, self._encoder, self._bank = questioner, encoder, bank
        self._keys: list[Tensor] = []
        self._targets: list[str] = []
        self._threshold: float | None = None

    @property
    def held_bytes(self) -> int:
        return sum(key.nbytes for key in self._keys)

    async def edit(self, cases: Sequence[Case], superseded: Sequence[Sequence[str]]) -> list[EditAttempt]:
        await self.restore(cases)
        return [EditAttempt(edit_id=case.id) for case in cases]

    async def restore(self, cases: Sequence[Case]) -> None:
        for key, case in zip(await self._embed([case.prompt for case in cases]), cases, strict=True):
            self._keys.append(key)
            self._targets.append(case.target)

    async def answers(self, prompts: Sequence[str], **how: Any) -> list[str | None]:
        stored = await self._lookup(prompts)
        missed = [prompt for prompt, answer in zip(prompts, stored, strict=True) if answer is None]
        bare = iter(
            await (self._questioner.answers(missed, edits="off", **how) if how else self._questioner.bare(missed))
        )
        return [next(bare) if answer is None else answer for answer in stored]

    async def scores(self, pairs: Sequence[tuple[str, str]]) -> list[ForcedScore | None]:
        """None for every pair. A stored answer is certain and any other impossible, so there is nothing to force;
        scoring only the prompts without a stored answer would compare other prompts than an editor's figure does."""
        return [None] * len(pairs)

    async def overhead(self, prompts: Sequence[str]) -> float | None:
        return None

    async def _embed(self, prompts: Sequence[str]) -> Tensor:
        """(N, E) unit vectors."""
        return await asyncio.to_thread(self._encoder.vectors, prompts)

    async def _lookup(self, prompts: Sequence[str]) -> list[str | None]:
        if not self._keys or not prompts:
            return [None] * len(prompts)
        if self._threshold is None:
            self._threshold = await self._calibrate()
        nearest = ((await self._embed(prompts)) @ torch.stack(self._keys).T).flip(-1).max(-1)  # the newest wins a tie
        return [
            self._targets[-1 - at] if value >= self._threshold else None
            for value, at in zip(nearest.values.tolist(), nearest.indices.tolist(), strict=True)
        ]

    async def _calibrate(self) -> float:
        keys = await self._embed([prompt.text for prompt in self._bank])
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for at, prompt in enumerate(self._bank):
            groups[prompt.relation, prompt.subject].append(at)
        same = [(a, b) for rows in groups.values() for a in rows for b in rows if a < b]
        firsts: dict[str, list[int]] = defaultdict(list)
        for (relation, subject), rows in groups.items():
            firsts[f"relation {relation}"].append(rows[0])
            firsts[f"subject {subject}"].append(rows[0])
        other = [pair for rows in firsts.values() for pair in pairwise(rows)]
        near, far = (torch.tensor([float(keys[a] @ keys[b]) for a, b in pairs]) for pairs in (same, other))
        bounds = torch.linspace(0, 1, 201)
        gain = [(near >= bound).float().mean() - (far >= bound).float().mean() for bound in bounds]
        return float(bounds[int(torch.stack(gain).argmax())])
