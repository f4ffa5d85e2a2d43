"""ELDER (Li et al. 2024, arXiv 2408.11869): a router over a mixture of LoRAs at several FFNs, with deferral.

This is the preset `serving`. As published, each of several mid-to-late FFN down-projections has LoRAs that many edits
share, and a linear router that picks k of them by one query per sequence. The routers learn each edit's own random
allocation by the guided loss (section 3.3). A prompt is in scope only if its allocation code lies near an edit's
(section 3.4). The decision is taken at the prompt's last token and held. The deviations, each for what live serving
needs:
- The edits of one batch, at most 16, share LoRAs: a *page*. A page is fitted once and then frozen, so that no later
  edit makes it forget, and its size is bounded. The published sequence trains on and never looks back.
- Deferral has a second gate, because codes alone let nearly everything through from 64 edits on (6 sites, 2 of 4,
  distance below 12: 99.9 % at 16 stored edits, 100 % at 64). The scope index must name the edit, and then at most a
  quarter of the code may differ from the edit's own.
- Edits are fitted on the target and end-of-text with early stopping, at a higher rate than the published 1e-4.
- A rollback takes an edit out of scope at once. Its traces in the page's LoRAs go when the page is fitted again without
  it, from the same seed, which lands as an event. A page of one edit leaves no trace.
Defects of the official code that are not reproduced: global variables couple requests, codes are decided anew at every
generated token, and stored codes go stale while routers learn on.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers.pytorch_utils import Conv1D

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
    FixedAdapters,
    PromptView,
    RowView,
    Site,
    learned_as,
)
from app.editors.fitting.contexts import collate
from app.editors.fitting.foundation import Foundation
from app.editors.fitting.view import FitView
from app.editors.lora_mixture.adapter_files import adapter_tensors, read, write
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

PAGE_EDITS = 16
RANK = 4
K = 2
MAX_LORAS = 16
"""The greatest number of LoRAs at a site of a page. A page of n edits has n, but at least K."""
FIT_PARAMETERS = MixtureFitParameters(k=K, learning_rate=1e-2, steps=200, guided=0.05, probability=0.95)


class Learned(BaseModel):
    """The fields of `Fitted.learned` that `load` reads. They are validated, because others may write to the log."""

    model_config = ConfigDict(strict=True, frozen=True)

    shared: str
    """The name of the edit's page: the digest of its tensors."""
    code: list[list[int]]
    """The allocation code: for each of M sites, 1 for a LoRA that acts and 0 for any other, (M, A)."""


def build(foundation: Foundation) -> "LoraMixture":
    sites = foundation.down_sites(mixture_layers(foundation.layer_count))
    return LoraMixture(foundation.view(sites[0], sites), sites, foundation.shared_view)


class LoraMixture(Editor):
    """Pages in the model's own precision. The site of `query_view` is where queries and keys are read."""

    name = "lora_mixture"
    capabilities = Capabilities(
        max_target_tokens=64,
        changes_earlier_positions=True,
        rollback="exact_async",
        independent=False,
    )

    def __init__(
        self,
        view: FitView,
        sites: Sequence[Site],
        query_view: FitView,
        parameters: MixtureFitParameters = FIT_PARAMETERS,
    ) -> None:
        self._view, self._query_view, self._parameters = view, query_view, parameters
        self.extras = Extras(
            read_adapter=self.read_adapter,
            fixed_adapters=FixedAdapters(modules=tuple(map(str, sites)), rank=K * RANK, of=self._fixed_adapter),
        )
        self._dtype = next(view.model.parameters()).dtype
        # GPT-2 stores its linear maps transposed, and PEFT needs to know.
        down = view.model.get_submodule(sites[0].module)
        self._fan_in_fan_out = bool(getattr(down, "fan_in_fan_out", isinstance(down, Conv1D)))
        self._pages = Pages(len(sites), view.widths, query_view.widths[0], view.device, self._dtype)
        self._routing = Routing(sites, view.device)
        self._learned: dict[str, Learned] = {}

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self._query_view.site, *self._routing.sites)

    @property
    def held_bytes(self) -> int:
        return self._pages.held_bytes

    # -- learning

    def fit(self, requests: Sequence[FitRequest], part: None) -> Generator[FitProgress, None, list[Fitted]]:
        fitted: list[Fitted] = []
        for first in range(0, len(requests), PAGE_EDITS):
            page = yield from self._fit_page(requests[first : first + PAGE_EDITS])
            fitted.extend(page)
        return fitted

    def _fit_page(self, requests: Sequence[FitRequest]) -> Generator[FitProgress, None, list[Fitted]]:
        contexts = [context for request in requests for context in request.contexts]
        view, progress = self._query_view, FitProgress(step=0, steps=self._parameters.steps, loss=float("nan"))
        queries = yield from view.by_passes(
            (len(contexts), max(map(len, contexts))), lambda rows: view.last_inputs(contexts[rows]), progress
        )
        batch = collate([r.contexts for r in requests], [r.target_ids for r in requests], self._view.device)
        d_in, d_out = self._view.widths
        count = min(max(K, len(requests)), MAX_LORAS)
        seed = requests[0].seed
        start = new_mixture(len(self._routing.sites), count, RANK, d_in, d_out, queries.shape[-1], seed)
        allocations = allocate_loras(len(requests), len(self._routing.sites), count, K, seed).to(self._view.device)
        mixture, outcome = yield from fit_mixture(
            self._view, self._routing.sites, start, batch, queries, allocations[batch.owner], self._parameters
        )
        fitted = self._owned(requests, queries, batch.owner, mixture.to(self._dtype))
        for index, each in enumerate(fitted):
            course = {
                "steps": outcome.steps,
                "converged": outcome.converged,
                "probability": round(outcome.least[index].item(), 6),
            }
            fitted[index] = Fitted(learned={**each.learned, **course}, tensors=each.tensors)
        return fitted

    def read_adapter(self, request: FitRequest, folder: Path) -> Fitted:
        """Return an adapter in PEFT's format as the requested edit. Raises InvalidRequest if it does not fit."""
        queries = self._query_view.last_inputs(request.contexts)
        mixture = read(folder, list(map(str, self._routing.sites)), self._view.widths, queries.shape[-1])
        mixture = mixture.to(self._view.device, self._dtype)
        owner = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
        return self._owned([request], queries, owner, mixture)[0]

    def _owned(self, requests: Sequence[FitRequest], queries: Tensor, owner: Tensor, mixture: Mixture) -> list[Fitted]:
        """Return the data that each edit of a page owns, from the queries (R, D) of their contexts and owners (R,)."""
        shared = mixture.digest()
        codes = top_k_mask(scores(mixture.to(torch.float32), queries), K)
        fitted: list[Fitted] = []
        for index, request in enumerate(requests):
            own = queries[owner == index]
            learned = {
                "target_ids": list(request.target_ids),
                "shared": shared,
                "brings": index == 0,
                "code": codes[owner == index][0].int().tolist(),
                "page_edits": len(requests),
                "modules": list(map(str, self._routing.sites)),
                "fan_in_fan_out": self._fan_in_fan_out,
            }
            tensors = {"key": own[0].cpu()}
            if index == 0:  # The first edit of a page carries the page's tensors.
                tensors |= {name: tensor.cpu() for name, tensor in mixture.tensors().items()}
            fitted.append(Fitted(learned=learned, tensors=tensors))
        return fitted

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        learned = learned_as(Learned, edit_id, fitted)
        key = fitted.tensors.get("key")
        if key is None or tuple(key.shape) != (self._query_view.widths[0],):
            raise IncompatibleEdit(f"The edit {edit_id} has no key of this model's width.")
        mixture = self._pages.acquire(edit_id, learned.shared, fitted.tensors)
        if [len(row) for row in learned.code] != [mixture.bias.shape[1]] * len(mixture.bias):
            self._pages.release(learned.shared)
            raise IncompatibleEdit(f"The edit {edit_id} has an allocation code that does not have its page's shape.")
        self._learned[edit_id] = learned

    def drop(self, edit_id: str) -> None:
        self._pages.release(self._learned.pop(edit_id).shared)

    def compile(self, edit_ids: Sequence[str]) -> None:
        """Return nothing: an edition sees pages only through its decisions."""

    def _fixed_adapter(self, fitted: Fitted) -> dict[str, Tensor]:
        mixture = self._pages.mixture(str(fitted.learned["shared"]))
        gates = own_gates(mixture, fitted.tensors["key"])
        return adapter_tensors(mixture, gates, [site.module for site in self._routing.sites])

    # -- acting

    def confirm(self, prompt: PromptView, part: None, decision: Decision) -> Decision | None:
        """Return the decision with the LoRAs that act, if the prompt's code lies near the edit's (section 3.4)."""
        assert decision.edit_id is not None
        learned = self._learned[decision.edit_id]
        mixture = self._pages.mixture(learned.shared)
        query = prompt.features[self._query_view.site].to(self._view.device)
        scored = scores(mixture.to(torch.float32), query[None])[0]
        chosen = top_k_mask(scored, K)
        own = torch.tensor(learned.code, dtype=torch.bool, device=chosen.device)
        distance, bound = int(hamming(chosen, own[None])[0]), len(self._routing.sites) * K // 2
        signals = {**decision.signals, "code": Signal(float(distance), float(bound))}
        if distance > bound:
            return None
        return replace(decision, signals=signals, state=active_loras(mixture, scored * chosen, K))

    def bind(self, rows: Sequence[RowView]) -> None:
        self._routing.bind(self.key, rows)

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        return self._routing.apply(site, h_in, h_out)


def own_gates(mixture: Mixture, key: Tensor) -> Tensor:
    """Return the gates (M, A) that the router gives an edit's own prompt, from the edit's key (D,)."""
    scored = scores(mixture.to(torch.float32), key[None].to(mixture.router.device, torch.float32))[0]
    return scored * top_k_mask(scored, K)


def export_lora(folder: Path, learned: Mapping[str, Any], key: Tensor, shared: Mapping[str, Tensor]) -> None:
    """Write an edit's effect on its own prompt as a PEFT adapter, given what it learned, its key (D,) and its page's
    tensors."""
    mixture = Mixture(**{name: shared[name].float() for name in ("down", "up", "router", "bias")})
    write(folder, mixture, own_gates(mixture, key), learned["modules"], bool(learned["fan_in_fan_out"]))
