"""ELDER (Li et al. 2024, arXiv 2408.11869): a router over a mixture of LoRAs at several FFNs, and deferral.

Preset `serving`. As published: at each of several mid-to-late FFN down-projections there are LoRAs that many edits
share, and a linear router that picks k of them, from one query a sequence; the routers learn each edit's own random
allocation by the guided loss (section 3.3); a prompt is in scope only if its allocation code lies near an edit's
(section 3.4); the decision is taken at the prompt's last token and held. Deviations, each for what live serving needs:
- LoRAs are shared by a *page*: the edits of one batch, at most 16 of them. A page is fitted once and then frozen, so
  that no later edit makes it forget (the published sequence trains on and never looks back), and its size is bounded;
- deferral has a second gate: codes alone let nearly everything through from 64 edits on (6 sites, 2 of 4, distance
  below 12: 99.9 % at 16 stored edits, 100 % at 64). The scope index must name the edit; then the code must be the
  edit's own, but for a quarter of it;
- fitted on target and end-of-text with early stopping, at a higher rate than the published 1e-4;
- rolling back an edit takes it out of scope at once; what it left in its page's LoRAs goes when the page is fitted
  again without it, from the same seed, which lands as an event. A page of one edit leaves nothing.
Not taken over from the official code: globals that couple requests, codes decided anew at every generated token, codes
that go stale while routers learn on.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.editors.base import Capabilities, Decision, FitRequest, Fitted, Plain, Progress, PromptView, RowView, Site
from app.editors.fitting.loop import collate
from app.editors.fitting.view import FitView
from app.editors.lora_mixture.adapter_files import read, write
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

PAGE_EDITS = 16
RANK = 4
K = 2
MOST_LORAS = 16
"""Of a page. A page of one edit has K, of n edits n, never more than this."""
HOW = MixtureFit(k=K, learning_rate=1e-2, steps=200, guided=0.05, probability=0.95)


class Learned(BaseModel):
    """What a stored edit must have learned besides its scope. It is read from a log that others may write to."""

    model_config = ConfigDict(strict=True, frozen=True)

    shared: str
    code: list[list[int]]
    """By site, which LoRAs act."""


class LoraMixture(Plain):
    """Pages of `Mixture`s in the model's own precision; `scope_site` is where queries and keys are read."""

    name = "lora_mixture"
    capabilities = Capabilities(
        max_target_tokens=64,
        decides="request",
        changes_earlier_positions=True,
        needs_whole_prompt=False,
        rollback="exact_async",
        independent=False,
    )

    def __init__(
        self,
        view: FitView,
        sites: Sequence[Site],
        scope_view: FitView,
        how: MixtureFit = HOW,
    ) -> None:
        self._view, self._scope_view, self._how = view, scope_view, how
        self._dtype = next(view.model.parameters()).dtype
        # GPT-2 keeps its linear maps transposed, which PEFT wants to know
        down = view.model.get_submodule(sites[0].module)
        self._fan_in_fan_out = bool(getattr(down, "fan_in_fan_out", isinstance(down, Conv1D)))
        self._pages = Pages(len(sites), view.widths, scope_view.widths[0], view.device, self._dtype)
        self._routing = Routing(sites, view.device)
        self._learned: dict[str, Learned] = {}

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self._scope_view.site, *self._routing.sites)

    @property
    def held_bytes(self) -> int:
        return self._pages.held_bytes

    # -- learning

    def fit(self, requests: Sequence[FitRequest], part: None) -> Generator[Progress, None, list[Fitted]]:
        fitted: list[Fitted] = []
        for first in range(0, len(requests), PAGE_EDITS):
            page = yield from self._fit_page(requests[first : first + PAGE_EDITS])
            fitted.extend(page)
        return fitted

    def _fit_page(self, requests: Sequence[FitRequest]) -> Generator[Progress, None, list[Fitted]]:
        contexts = [context for request in requests for context in request.contexts]
        queries = self._scope_view.keys(contexts)
        batch = collate([r.contexts for r in requests], [r.target_ids for r in requests], self._view.device)
        d_in, d_out = self._view.widths
        count = min(max(K, len(requests)), MOST_LORAS)
        seed = requests[0].seed
        start = new_mixture(len(self._routing.sites), count, RANK, d_in, d_out, queries.shape[-1], seed)
        allocations = allocate(len(requests), len(self._routing.sites), count, K, seed).to(self._view.device)
        steps = fit_mixture(self._view, self._routing.sites, start, batch, queries, allocations[batch.owner], self._how)
        mixture, went = yield from steps
        fitted = self._owning(requests, queries, batch.owner, mixture.to(self._dtype))
        for at, each in enumerate(fitted):
            how = {"steps": went.steps, "converged": went.converged, "probability": round(went.least[at].item(), 6)}
            fitted[at] = Fitted(learned={**each.learned, **how}, tensors=each.tensors)
        return fitted

    def take(self, request: FitRequest, folder: Path) -> Fitted:
        """An adapter in PEFT's format as the edit that is asked for. Raises InvalidRequest where it does not fit."""
        queries = self._scope_view.keys(request.contexts)
        mixture = read(folder, list(map(str, self._routing.sites)), self._view.widths, queries.shape[-1])
        mixture = mixture.to(self._view.device, self._dtype)
        owner = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
        return self._owning([request], queries, owner, mixture)[0]

    def _owning(self, requests: Sequence[FitRequest], queries: Tensor, owner: Tensor, mixture: Mixture) -> list[Fitted]:
        """What each edit of a page owns; queries (R, D) of their contexts, with owners (R,)."""
        shared = mixture.digest()
        codes = top(scores(mixture.to(torch.float32), queries), K)
        fitted: list[Fitted] = []
        for at, request in enumerate(requests):
            own = queries[owner == at]
            learned = {
                "target_ids": list(request.target_ids),
                "shared": shared,
                "brings": at == 0,
                "code": codes[owner == at][0].int().tolist(),
                "page_edits": len(requests),
                "modules": list(map(str, self._routing.sites)),
                "fan_in_fan_out": self._fan_in_fan_out,
            }
            tensors = {"key": own[0].cpu()}
            if at == 0:  # the first of a page brings what the page shares
                tensors |= {name: tensor.cpu() for name, tensor in mixture.tensors().items()}
            fitted.append(Fitted(learned=learned, tensors=tensors))
        return fitted

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        try:
            learned = Learned.model_validate(
                {n: fitted.learned[n] for n in Learned.model_fields if n in fitted.learned}
            )
        except ValidationError as error:
            raise IncompatibleEdit(f"What the edit {edit_id} learned cannot be read: {error}") from error
        key = fitted.tensors.get("key")
        if key is None or tuple(key.shape) != (self._scope_view.widths[0],):
            raise IncompatibleEdit(f"The edit {edit_id} has no key of this model's width.")
        mixture = self._pages.take(edit_id, learned.shared, fitted.tensors)
        if [len(row) for row in learned.code] != [mixture.bias.shape[1]] * len(mixture.bias):
            self._pages.give_back(learned.shared)
            raise IncompatibleEdit(f"The edit {edit_id} has an allocation that is not of its page's shape.")
        self._learned[edit_id] = learned

    def drop(self, edit_id: str) -> None:
        self._pages.give_back(self._learned.pop(edit_id).shared)

    def compile(self, edit_ids: Sequence[str]) -> None:
        """An edition sees pages through its decisions alone."""

    # -- acting

    def confirm(self, prompt: PromptView, part: None, decision: Decision) -> Decision | None:
        """Whether its code is near (section 3.4, second gate above), and then what it is routed to."""
        assert decision.edit_id is not None
        learned = self._learned[decision.edit_id]
        mixture = self._pages.mixture(learned.shared)
        query = prompt.features[self._scope_view.site].to(self._view.device)
        scored = scores(mixture.to(torch.float32), query[None])[0]
        chosen = top(scored, K)
        own = torch.tensor(learned.code, dtype=torch.bool, device=chosen.device)
        distance, bound = int(hamming(chosen, own[None])[0]), len(self._routing.sites) * K // 2
        signals = {**decision.signals, "code": Signal(float(distance), float(bound))}
        if distance > bound:
            return None
        return replace(decision, signals=signals, part=route(mixture, scored * chosen, K))

    def bind(self, rows: Sequence[RowView]) -> None:
        self._routing.bind(self.key, rows)

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        return self._routing.apply(site, h_in, h_out)


def export_lora(folder: Path, learned: Mapping[str, Any], key: Tensor, shared: Mapping[str, Tensor]) -> None:
    """What an edit does to its own prompt, as a PEFT adapter: from what it learned, its key, and its page's tensors."""
    mixture = Mixture(**{name: shared[name].float() for name in ("down", "up", "router", "bias")})
    scored = scores(mixture, key[None].float())[0]
    write(folder, mixture, scored * top(scored, K), learned["modules"], bool(learned["fan_in_fan_out"]))
