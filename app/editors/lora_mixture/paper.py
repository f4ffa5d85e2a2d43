"""ELDER as published (Li et al. 2024, arXiv 2408.11869): preset `paper`, for comparison.

One mixture of LoRAs that all edits of a namespace share and train on, in batches of 4, 50 steps each, without looking
back; the routers learn each edit's random allocation by the guided loss; a prompt is in scope where its allocation code
lies within a Hamming distance below `reach` of a live edit's (half of what two codes can differ in, 12 of 24 at 6
sites). At that size nearly every prompt is in scope once some 16 edits are stored (`serving` has the figures), and
later batches make the mixture forget earlier ones: this preset is what the serving one is measured against.

LoRAs start as in the official code, which keeps A as (D_in, r) and draws it by `kaiming_uniform_`: PyTorch takes r for
the fan-in of that shape, so that A lies within 1 / sqrt(r). At D_in = 1,600 that is 14 times as wide as the usual
1 / sqrt(D_in). The published rate suits it: what B learns in a step acts through A.

The state that a batch leaves is kept with it, so that an edition is that of its newest live edit; a rolled-back edit
leaves the code store at once and stays in the LoRAs that were trained after it: `approximate`. What remains different:
end-of-text is a target token; an edit trains on its prompt and on the paraphrases that came with its request, not on
half of a data set's, and a batch is of 4 edits with theirs; the code store holds one code an edit, its prompt's.
Defects of the official code left out: see `serving`; codes are computed anew under each state, where
the official ones go stale.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.editors.base import Capabilities, Decision, FitRequest, Fitted, Plain, Progress, PromptView, RowView, Site
from app.editors.fitting.loop import collate
from app.editors.fitting.view import FitView
from app.editors.lora_mixture.mixture import (
    Mixture,
    MixtureFit,
    allocate,
    fit_mixture,
    hamming,
    new_mixture,
    scores,
    top,
)
from app.editors.lora_mixture.pages import Pages, Routing, route

LORAS, RANK, K, BATCH = 4, 8, 2, 4
HOW = MixtureFit(k=K, learning_rate=1e-4, steps=50, guided=1e-2, probability=None, by_direction=False)


class Learned(BaseModel):
    """What a stored edit must have learned. It is read from a log that others may write to."""

    model_config = ConfigDict(strict=True, frozen=True)

    shared: str
    """The state of the mixture after the edit's batch."""
    after: str
    """The state before it; empty for a mixture that was new."""


@dataclass(frozen=True, slots=True)
class CodesPart:
    """An edition's state, and the code (K, M, A) of each live edit under it."""

    state: str
    edit_ids: tuple[str, ...]
    codes: Tensor


class LoraMixturePaper(Plain):
    """States of the mixture by digest; queries (D,) fp32, one an edit."""

    name, preset = "lora_mixture", "paper"
    capabilities = Capabilities(
        max_target_tokens=64,
        decides="request",
        changes_earlier_positions=True,
        needs_whole_prompt=False,
        scoped=False,
        rollback="approximate",
        independent=False,
        order_free=False,
    )

    def __init__(self, view: FitView, sites: Sequence[Site], query_view: FitView, how: MixtureFit = HOW) -> None:
        self._view, self._query_view, self._how = view, query_view, how
        self._routing = Routing(sites, view.device)
        self._pages = Pages(len(sites), view.widths, query_view.widths[0], view.device, torch.float32)
        self._learned: dict[str, Learned] = {}
        self._queries: dict[str, Tensor] = {}
        self.reach = len(sites) * K
        """Codes nearer than this are in scope: 12 at the published 6 sites and 2 of 4."""

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self._query_view.site, *self._routing.sites)

    @property
    def held_bytes(self) -> int:
        return self._pages.held_bytes

    # -- learning

    def fit(self, requests: Sequence[FitRequest], part: CodesPart | None) -> Generator[Progress, None, list[Fitted]]:
        """Sections 3.2 and 3.3, batch after batch, from the state of the newest live edit on."""
        d_in, d_out = self._view.widths
        width, sites = self._query_view.widths[0], len(self._routing.sites)
        if part is None:
            mixture = new_mixture(sites, LORAS, RANK, d_in, d_out, width, requests[0].seed, RANK**-0.5)
        else:
            mixture = self._pages.mixture(part.state)
        after = "" if part is None else part.state
        went: list[tuple[FitRequest, int, float]] = []
        keys: list[Tensor] = []
        for first in range(0, len(requests), BATCH):
            some = requests[first : first + BATCH]
            # the prompt and its paraphrases: behind them stand variants that the server makes for other editors
            told = [request.contexts[: 1 + request.given] for request in some]
            batch = collate(told, [request.target_ids for request in some], self._view.device)
            queries = self._query_view.keys([context for contexts in told for context in contexts])
            # the same knowledge, told by its target, has the same allocation
            drawn = [allocate(1, sites, LORAS, K, hash_of(request.target_ids)) for request in some]
            allocation = torch.cat(drawn).to(self._view.device)[batch.owner]
            steps = fit_mixture(self._view, self._routing.sites, mixture, batch, queries, allocation, self._how)
            mixture, group = yield from steps
            went.extend((r, group.steps, group.least[at].item()) for at, r in enumerate(some))
            keys.extend(queries[batch.owner == at][0].cpu() for at in range(len(some)))
        shared = mixture.digest()
        state = {name: tensor.cpu() for name, tensor in mixture.tensors().items()}
        return [
            Fitted(
                learned={
                    "shared": shared,
                    "brings": at == 0,
                    "after": after,
                    "target_ids": list(request.target_ids),
                    "steps": steps_taken,
                    "probability": round(least, 6),
                },
                tensors={"key": key, **(state if at == 0 else {})},
            )
            for at, ((request, steps_taken, least), key) in enumerate(zip(went, keys, strict=True))
        ]

    def still_fits(self, learned: Mapping[str, Any], part: CodesPart | None) -> bool:
        return bool(learned.get("after") == ("" if part is None else part.state))

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        try:
            learned = Learned.model_validate({name: fitted.learned.get(name) for name in Learned.model_fields})
        except ValidationError as error:
            raise IncompatibleEdit(f"What the edit {edit_id} learned cannot be read: {error}") from error
        key = fitted.tensors.get("key")
        if key is None or tuple(key.shape) != (self._query_view.widths[0],):
            raise IncompatibleEdit(f"The edit {edit_id} has no query of this model's width.")
        self._pages.take(edit_id, learned.shared, fitted.tensors)
        self._learned[edit_id] = learned
        self._queries[edit_id] = key.float().to(self._view.device)

    def drop(self, edit_id: str) -> None:
        self._pages.give_back(self._learned.pop(edit_id).shared)
        del self._queries[edit_id]

    def compile(self, edit_ids: Sequence[str]) -> CodesPart:
        state = self._learned[edit_ids[-1]].shared
        queries = torch.stack([self._queries[edit_id] for edit_id in edit_ids])
        return CodesPart(state, tuple(edit_ids), top(self._scores(self._pages.mixture(state), queries), K))

    def _scores(self, mixture: Mixture, queries: Tensor) -> Tensor:
        return scores(mixture, queries, by_direction=self._how.by_direction)

    # -- acting

    def decide(self, prompt: PromptView, part: CodesPart) -> Decision | None:
        """In scope iff the smallest code distance is below `reach` (Algorithm 1); of equally near ones, the newest."""
        mixture = self._pages.mixture(part.state)
        scored = self._scores(mixture, prompt.features[self._query_view.site].to(self._view.device)[None])[0]
        chosen = top(scored, K)
        distances = hamming(chosen, part.codes).tolist()
        distance, at = min((distance, -at) for at, distance in enumerate(distances))
        if distance >= self.reach:
            return None
        return Decision(
            edit_id=part.edit_ids[-at],
            editor=self.key,
            margin=1 - distance / self.reach,
            signals={"code": Signal(float(distance), float(self.reach))},
            part=route(mixture, scored * chosen, K),
        )

    def bind(self, rows: Sequence[RowView]) -> None:
        self._routing.bind(self.key, rows)

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        return self._routing.apply(site, h_in, h_out)


def hash_of(tokens: Sequence[int]) -> int:
    """A seed that stands for these tokens, the same in every process."""
    seed = 0
    for token in tokens:
        seed = (seed * 1_000_003 + token + 1) % 2**31
    return seed
