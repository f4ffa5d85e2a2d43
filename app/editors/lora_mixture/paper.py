"""ELDER as published (Li et al. 2024, arXiv 2408.11869): the preset `paper`, for comparison.

All edits of a namespace share one mixture of LoRAs. It is trained in batches of 4 edits, 50 steps each, without looking
back. The routers learn each edit's random allocation by the guided loss. A prompt is in scope if the Hamming distance
from its allocation code to a live edit's is less than `code_radius`, half of the greatest distance (12 of 24 at 6
sites). At that size nearly every prompt is in scope once some 16 edits are stored (`serving` has the figures), and
later batches make the mixture forget earlier ones: this preset is what the serving one is measured against.

LoRAs start as in the official code, which stores A as (D_in, r) and draws it by `kaiming_uniform_`. PyTorch takes r for
the fan-in of that shape, so that A lies within 1 / sqrt(r). At D_in = 1,600 that is 14 times as wide as the usual
1 / sqrt(D_in). The published rate suits it: what B learns in a step acts through A.

The state after each batch is stored with the batch, so that an edition is the state of its newest live edit. A
rolled-back edit leaves the code store at once and stays in the LoRAs that were trained after it: `approximate`. The
remaining differences: end-of-text is a target token; an edit trains on its prompt and on the paraphrases that came with
its request, not on half of a data set's, and a batch has 4 edits with theirs; and the code store has one code an edit,
its prompt's. Defects of the official code that are not reproduced: those named in `serving`, except that codes here are
computed anew under each state, where the official ones go stale.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.editors.base import (
    Capabilities,
    Decision,
    Editor,
    Extras,
    FitProgress,
    FitRequest,
    Fitted,
    PromptView,
    RowView,
    Site,
    learned_as,
)
from app.editors.fitting.contexts import collate
from app.editors.fitting.foundation import Foundation
from app.editors.fitting.view import FitView
from app.editors.lora_mixture.mixture import (
    Mixture,
    MixtureFitParameters,
    allocate_loras,
    fit_mixture,
    hamming,
    mixture_layers,
    new_mixture,
    scores,
    top_k_mask,
)
from app.editors.lora_mixture.pages import Pages, Routing, active_loras

LORAS, RANK, K, BATCH = 4, 8, 2, 4
"""LoRAs a site, their rank, LoRAs that act at once, and edits in a batch, as published."""
FIT_PARAMETERS = MixtureFitParameters(
    k=K, learning_rate=1e-4, steps=50, guided=1e-2, probability=None, normalise_queries=False
)


class Learned(BaseModel):
    """The fields of `Fitted.learned` that `load` reads. They are validated, because others may write to the log."""

    model_config = ConfigDict(strict=True, frozen=True)

    shared: str
    """The digest of the mixture after the edit's batch."""
    after: str
    """The digest of the mixture before the batch, or an empty text for a new mixture."""


@dataclass(frozen=True, slots=True)
class CodesPart:
    """The state of an edition: the digest of its mixture, and the code of each of K live edits under it, (K, M, A)."""

    state: str
    edit_ids: tuple[str, ...]
    codes: Tensor


def build(foundation: Foundation) -> "LoraMixturePaper":
    """Build the editor. As published, the query is the input of the down-projection below the first mixture."""
    sites = foundation.down_sites(mixture_layers(foundation.layer_count))
    (query_site,) = foundation.down_sites([max(0, sites[0].layer - 1)])
    return LoraMixturePaper(foundation.view(sites[0], sites), sites, foundation.view(query_site))


class LoraMixturePaper(Editor):
    """States of the mixture by their digests, and one query (D,) fp32 for each edit."""

    name, preset = "lora_mixture", "paper"
    capabilities = Capabilities(
        max_target_tokens=64,
        changes_earlier_positions=True,
        scoped=False,
        rollback="approximate",
        independent=False,
        order_free=False,
    )

    def __init__(
        self,
        view: FitView,
        sites: Sequence[Site],
        query_view: FitView,
        parameters: MixtureFitParameters = FIT_PARAMETERS,
    ) -> None:
        self._view, self._query_view, self._parameters = view, query_view, parameters
        self.extras = Extras(still_fits=self._still_fits)
        self._routing = Routing(sites, view.device)
        self._pages = Pages(len(sites), view.widths, query_view.widths[0], view.device, torch.float32)
        self._learned: dict[str, Learned] = {}
        self._queries: dict[str, Tensor] = {}
        self.code_radius = len(sites) * K
        """Codes at a distance below this are in scope: 12 at the published 6 sites and 2 of 4."""

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self._query_view.site, *self._routing.sites)

    @property
    def held_bytes(self) -> int:
        return self._pages.held_bytes

    # -- learning

    def fit(self, requests: Sequence[FitRequest], part: CodesPart | None) -> Generator[FitProgress, None, list[Fitted]]:
        """Fit batch after batch (sections 3.2 and 3.3), beginning with the state of the newest live edit."""
        d_in, d_out = self._view.widths
        width, sites = self._query_view.widths[0], len(self._routing.sites)
        if part is None:
            mixture = new_mixture(sites, LORAS, RANK, d_in, d_out, width, requests[0].seed, RANK**-0.5)
        else:
            mixture = self._pages.mixture(part.state)
        after = "" if part is None else part.state
        outcomes: list[tuple[FitRequest, int, float]] = []  # request, steps, least probability
        keys: list[Tensor] = []
        progress = FitProgress(step=0, steps=self._parameters.steps, loss=float("nan"))
        for first in range(0, len(requests), BATCH):
            group = requests[first : first + BATCH]
            # The prompt and its paraphrases. The other contexts are variants that the server makes for other editors.
            given_contexts = [request.contexts[: 1 + request.given] for request in group]
            batch = collate(given_contexts, [request.target_ids for request in group], self._view.device)
            prompts = [context for contexts in given_contexts for context in contexts]
            queries = yield from self._query_view.by_passes(
                (len(prompts), max(map(len, prompts))), partial(self._last_inputs, prompts), progress
            )
            # As published, edits of the same knowledge have the same allocation. The target represents the knowledge.
            drawn = [allocate_loras(1, sites, LORAS, K, seed_of(request.target_ids)) for request in group]
            allocation = torch.cat(drawn).to(self._view.device)[batch.owner]
            steps = fit_mixture(self._view, self._routing.sites, mixture, batch, queries, allocation, self._parameters)
            mixture, outcome = yield from steps
            outcomes.extend(
                (request, outcome.steps, outcome.least[index].item()) for index, request in enumerate(group)
            )
            keys.extend(queries[batch.owner == index][0].cpu() for index in range(len(group)))
        shared = mixture.digest()
        state = {name: tensor.cpu() for name, tensor in mixture.tensors().items()}
        return [
            Fitted(
                learned={
                    "shared": shared,
                    "brings": index == 0,
                    "after": after,
                    "target_ids": list(request.target_ids),
                    "steps": steps_taken,
                    "probability": round(least, 6),
                },
                tensors={"key": key, **(state if index == 0 else {})},
            )
            for index, ((request, steps_taken, least), key) in enumerate(zip(outcomes, keys, strict=True))
        ]

    def _last_inputs(self, prompts: Sequence[Sequence[int]], rows: slice) -> Tensor:
        return self._query_view.last_inputs(prompts[rows])

    def _still_fits(self, learned: Mapping[str, Any], part: CodesPart | None) -> bool:
        return bool(learned.get("after") == ("" if part is None else part.state))

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        learned = learned_as(Learned, edit_id, fitted)
        key = fitted.tensors.get("key")
        if key is None or tuple(key.shape) != (self._query_view.widths[0],):
            raise IncompatibleEdit(f"The edit {edit_id} has no query of this model's width.")
        self._pages.acquire(edit_id, learned.shared, fitted.tensors)
        self._learned[edit_id] = learned
        self._queries[edit_id] = key.float().to(self._view.device)

    def drop(self, edit_id: str) -> None:
        self._pages.release(self._learned.pop(edit_id).shared)
        del self._queries[edit_id]

    def compile(self, edit_ids: Sequence[str]) -> CodesPart:
        state = self._learned[edit_ids[-1]].shared
        queries = torch.stack([self._queries[edit_id] for edit_id in edit_ids])
        return CodesPart(state, tuple(edit_ids), top_k_mask(self._scores(self._pages.mixture(state), queries), K))

    def _scores(self, mixture: Mixture, queries: Tensor) -> Tensor:
        return scores(mixture, queries, normalise_queries=self._parameters.normalise_queries)

    # -- acting

    def decide(self, prompt: PromptView, part: CodesPart) -> Decision | None:
        """Return the edit with the nearest code if it lies within `code_radius` (Algorithm 1). Among equals the newest
        answers."""
        mixture = self._pages.mixture(part.state)
        scored = self._scores(mixture, prompt.features[self._query_view.site].to(self._view.device)[None])[0]
        chosen = top_k_mask(scored, K)
        distances = hamming(chosen, part.codes).tolist()
        distance, negative_index = min((distance, -index) for index, distance in enumerate(distances))
        if distance >= self.code_radius:
            return None
        return Decision(
            edit_id=part.edit_ids[-negative_index],
            editor=self.key,
            margin=1 - distance / self.code_radius,
            signals={"code": Signal(float(distance), float(self.code_radius))},
            state=active_loras(mixture, scored * chosen, K),
        )

    def bind(self, rows: Sequence[RowView]) -> None:
        self._routing.bind(self.key, rows)

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        return self._routing.apply(site, h_in, h_out)


def seed_of(tokens: Sequence[int]) -> int:
    """Return a seed that depends only on these token ids, so that it is the same in every process."""
    seed = 0
    for token in tokens:
        seed = (seed * 1_000_003 + token + 1) % 2**31
    return seed
