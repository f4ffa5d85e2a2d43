"""The semantic cache: embeds the prompt and returns the stored answer of the nearest key within a threshold, else asks
the model.

It is the alternative that a user would otherwise build. Its threshold is set where it best separates, on the bundled
generic questions, phrasings of one question from near ones: the same relation of another subject, or another relation
of the same subject.
"""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from app.domain.words import words_of
from app.engine.serving_engine import ServingEngine
from app.evaluation.candidates import EditAttempt
from app.evaluation.cases import Case
from app.evaluation.questioner import ForcedScore, Questioner
from app.scope.bank import BankPrompt

MAX_EMBEDDED_TOKENS = 512
"""Maximum number of a prompt's tokens that are embedded."""


class Embed(Protocol):
    """Prompts -> (N, D) unit vectors, compared by inner product."""

    async def __call__(self, prompts: Sequence[str]) -> Tensor: ...


class IdfBag:
    """Bag of words with inverse document frequencies over the generic questions, hashed to a fixed width."""

    WIDTH = 1 << 14

    def __init__(self, bank: Sequence[BankPrompt]) -> None:
        seen = Counter(word for prompt in bank for word in set(words_of(prompt.text)))
        self._idf = {word: math.log((1 + len(bank)) / (1 + count)) for word, count in seen.items()}
        self._unseen = math.log(1 + len(bank))
        self._place: dict[str, int] = {}

    async def __call__(self, prompts: Sequence[str]) -> Tensor:
        bags = torch.zeros(len(prompts), self.WIDTH)
        for row, prompt in enumerate(prompts):
            for word in words_of(prompt):
                at = self._place.setdefault(word, len(self._place)) % self.WIDTH
                bags[row, at] += self._idf.get(word, self._unseen)
        return torch.nn.functional.normalize(bags, dim=-1)


class MeanState:
    """The served model's last hidden states, averaged over a prompt, minus their mean over all generic prompts."""

    def __init__(self, questioner: Questioner, bank: Sequence[BankPrompt]) -> None:
        self._service, self._bank = questioner.service, bank
        self._common: Tensor | None = None

    async def __call__(self, prompts: Sequence[str]) -> Tensor:
        if self._common is None:
            self._common = (await self._states([prompt.text for prompt in self._bank])).mean(0)
        return torch.nn.functional.normalize(await self._states(prompts) - self._common, dim=-1)

    async def _states(self, prompts: Sequence[str]) -> Tensor:
        futures = [self._service.on_engine(partial(_mean_state, prompt)) for prompt in prompts]
        return torch.stack([await asyncio.wrap_future(future) for future in futures])


@torch.inference_mode()
def _mean_state(prompt: str, engine: ServingEngine) -> Tensor:
    hosted = engine.hosted
    ids = torch.tensor([engine.text.encode(prompt)[-MAX_EMBEDDED_TOKENS:]], device=hosted.device)
    states = hosted.model(ids, output_hidden_states=True, use_cache=False).hidden_states[-1]
    mean: Tensor = states[0].float().mean(0).cpu()
    return mean


class SemanticCache:
    """A cache of answers in front of the model."""

    def __init__(self, questioner: Questioner, embed: Embed, bank: Sequence[BankPrompt]) -> None:
        self._questioner, self._embed, self._bank = questioner, embed, bank
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
        missed = [prompt for prompt, found in zip(prompts, stored, strict=True) if found is None]
        bare = iter(
            await (self._questioner.answers(missed, edits="off", **how) if how else self._questioner.bare(missed))
        )
        return [next(bare) if found is None else found for found in stored]

    async def scores(self, pairs: Sequence[tuple[str, str]]) -> list[ForcedScore | None]:
        """None for every pair. A stored answer is certain and any other impossible, so there is nothing to force;
        scoring only the prompts without a stored answer would compare other prompts than an editor's figure does."""
        return [None] * len(pairs)

    async def overhead(self, prompts: Sequence[str]) -> float | None:
        return None

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
