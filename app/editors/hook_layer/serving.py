"""CoachHooK, first called COMEBA-HK (Li et al. 2024, arXiv 2403.05330): hook layers for consecutive batch editing.

This is the preset `serving`. As published, several MLP down-projections each have a hook layer, a changed copy of their
weight in which all edits live. An edit consists of pairs of a key, the layer's input at one of its tokens, and a value
that makes the model say the target (sections 3.2 and 3.3, MEMIT's recipe). Pairs are solved in closed form against the
second moment of generic text. A hook layer acts on a token only if its change there is large enough. The deviations,
each for what live serving needs:
- There is a pair for each target token, at the position that predicts it and in middle layers, instead of one pair at
  the subject's last token in early layers. One vector there rarely carries a name of several tokens (app/DECISIONS.md
  has the figures). No subject is needed, and keys and values in the cache stay those of the base model up to the
  prompt's last token.
- A prompt must be in an edit's scope (app/scope) before its hook layers act. The published z-score fires on some 1.4 %
  of all tokens at 2.2, and more as the threshold falls.
- A token passes where the change is at least RHO times the change at the edit's own key. This is an absolute threshold
  for each layer and each edit that answers. The published z-score cannot reach 2.2 in prompts of fewer than 7 tokens,
  counts pads, and is undefined for the single token of a cached decode step.
- Each edit's pairs are measured with no other edit in place, so that an edition is the least-squares solution over the
  live edits, whatever their order and batches (`dual_form`). A rollback is solving without the edit's pairs.
- C_0 = lambda E[x x'] has lambda = D_in / LEVERAGE instead of 15,000. The published weight gives an average key a
  leverage k' C_0^-1 k of D_in / 15,000, which is 1.1 for D_in = 16,384 and makes only half of the change.
- Edits are fitted on the target and end-of-text, on the prompt and its paraphrases, with early stopping.
Defects of the official code that are not reproduced: weights are rounded to fp16 in place, pads are in the statistics,
thresholds are recorded with the other layers unhooked and hooks validated with the old threshold, and subjects are
tokenised apart from the prompt.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from weakref import WeakSet

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.editors.base import (
    Capabilities,
    Decision,
    Editor,
    FitProgress,
    FitRequest,
    Fitted,
    PromptView,
    RowView,
    Site,
    check_shapes,
    target_of,
)
from app.editors.fitting.contexts import collate
from app.editors.fitting.corpus import Statistics
from app.editors.fitting.foundation import Foundation
from app.editors.fitting.loop import fit_deltas, in_batches
from app.editors.fitting.row_buffer import RowBuffer
from app.editors.fitting.value_search import FitParameters
from app.editors.hook_layer.dual_form import Prior, WeightChange, solve
from app.editors.hook_layer.layer_spread import LayerSpread

LEVERAGE = 40.0
"""The leverage of an average key. Each layer meets a new pair to 1 - 1 / (1 + LEVERAGE), which is 98 %."""
RHO = 0.4
"""The least change at which a hook layer acts on a token, as a share of the least change at the edit's own keys."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class HookPart:
    """The hook layers of an edition, lowest first, and the thresholds of each edit, one per layer, by edit id."""

    layers: tuple[WeightChange, ...]
    thresholds: Mapping[str, tuple[float, ...]]


def build(foundation: Foundation) -> "HookLayers":
    layers = hooked_layers(foundation.layer_count)
    sites = foundation.down_sites(layers)
    (site_above,) = foundation.down_sites([layers[-1] + 1])
    spread = LayerSpread(foundation.view(sites[-1], sites), foundation.view(site_above), sites)
    return HookLayers(spread, foundation.statistics)


def hooked_layers(count: int) -> range:
    """Return the hooked layers of a model with `count` layers: at most five middle layers, with at least one above."""
    first = min(count // 2, count - 2)
    return range(first, min(count - 1, first + min(5, max(2, count // 4))))


class HookLayers(Editor):
    """The pairs of all edits, fp32: keys (N, D_in), solved (N, D_in) and residuals (N, D_out).

    An edit has M J rows: M layers of J target tokens. Pairs are read only when an edition is compiled, and stay in the
    host's memory. The model's device has an edition's changes of M weights, which never grow beyond the weights' size.
    """

    name = "hook_layer"
    capabilities = Capabilities(
        max_target_tokens=32,
        changes_earlier_positions=False,
        rollback="exact",
    )

    def __init__(self, spread: LayerSpread, statistics: Statistics) -> None:
        self._spread, self._statistics = spread, statistics
        self._fit_parameters = FitParameters(probability=0.98, max_steps=100, beyond=6.0)
        self._device = spread.view.device
        self._keys, self._solved, self._residuals = (RowBuffer(torch.device("cpu"), torch.float32) for _ in range(3))
        self._parts: WeakSet[HookPart] = WeakSet()
        self._rows: dict[str, tuple[int, int, int]] = {}  # edit -> its first row in keys, solved and residuals
        self._tokens: dict[str, int] = {}  # edit -> the number of its target tokens
        self._priors: list[Prior] = []
        self._bound: list[tuple[HookPart, Tensor, Tensor]] = []  # part, row indices (N,), thresholds (N, M)

    @property
    def sites(self) -> tuple[Site, ...]:
        return self._spread.sites

    @property
    def held_bytes(self) -> int:
        return sum(layer.held_bytes for part in self._parts for layer in part.layers)

    # -- learning

    def prepare(self) -> Generator[FitProgress, None, None]:
        """Compute and factor C_0 of each hooked layer."""
        if not self._priors:
            moments = yield from self._statistics.moments(self._spread.sites)
            self._priors = [Prior(moment, len(moment) / LEVERAGE) for moment in moments]

    def fit(self, requests: Sequence[FitRequest], part: HookPart | None) -> Generator[FitProgress, None, list[Fitted]]:
        return in_batches(requests, self._fit_batch)

    def _fit_batch(self, requests: Sequence[FitRequest]) -> Generator[FitProgress, None, list[Fitted]]:
        yield from self.prepare()
        contexts = [request.contexts for request in requests]
        targets = [request.target_ids for request in requests]
        fits = yield from fit_deltas(self._spread.view, contexts, targets, self._fit_parameters)
        batch = collate(contexts, targets, self._device)
        deltas = pad_sequence([fit.value for fit in fits], batch_first=True)  # (E, J, D)
        pairs = yield from self._spread.pairs(batch.ids, batch.owner, batch.position, batch.real, deltas, self._priors)
        fitted: list[Fitted] = []
        for edit, (request, fit) in enumerate(zip(requests, fits, strict=True)):
            course = {"steps": fit.steps, "converged": fit.converged, "probability": round(fit.probability, 6)}
            fitted.append(
                Fitted(
                    learned={
                        "target_ids": list(request.target_ids),
                        "moments_of": self._statistics.corpus,
                        **course,
                    },
                    tensors={
                        "keys": pairs.keys[edit, :, : len(request.target_ids)].cpu(),
                        "solved": pairs.solved[edit, :, : len(request.target_ids)].cpu(),
                        "residuals": pairs.residuals[edit, :, : len(request.target_ids)].cpu(),
                    },
                )
            )
        return fitted

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        layers, tokens = len(self._spread.sites), len(target_of(edit_id, fitted))
        d_in, d_out = self._spread.view.widths
        keys, residuals = (layers, tokens, d_in), (layers, tokens, d_out)
        check_shapes(edit_id, fitted, {"keys": keys, "solved": keys, "residuals": residuals})
        if fitted.learned.get("moments_of") != self._statistics.corpus:
            raise IncompatibleEdit(
                f"The edit {edit_id} was fitted with other generic text than this server's, so that its keys cannot be "
                "solved together with those of other edits. Set ERRATA_CORPUS to the text that it was fitted with."
            )
        self._tokens[edit_id] = tokens
        self._rows[edit_id] = (
            self._keys.add(fitted.tensors["keys"].flatten(0, 1)),
            self._solved.add(fitted.tensors["solved"].flatten(0, 1)),
            self._residuals.add(fitted.tensors["residuals"].flatten(0, 1)),
        )

    def drop(self, edit_id: str) -> None:
        count = len(self._spread.sites) * self._tokens.pop(edit_id)
        for rows, first in zip((self._keys, self._solved, self._residuals), self._rows.pop(edit_id), strict=True):
            rows.release(first, count)

    def compile(self, edit_ids: Sequence[str]) -> HookPart:
        """Solve one least-squares system a layer over all live pairs (section 3.3)."""
        edit_ids = sorted(edit_ids)  # Sums in another order would differ in their last bits.
        counts = [self._tokens[edit_id] for edit_id in edit_ids]
        layers: list[WeightChange] = []
        thresholds: dict[str, list[float]] = {edit_id: [] for edit_id in edit_ids}
        for layer in range(len(self._spread.sites)):
            keys, solved, residuals = (
                rows.data[self._pair_rows(edit_ids, counts, which, layer)].to(self._device)
                for which, rows in enumerate((self._keys, self._solved, self._residuals))
            )
            layers.append(solve(keys, solved, residuals))
            changes = layers[-1].change(keys).norm(dim=-1).split(counts)
            for edit_id, change in zip(edit_ids, changes, strict=True):
                thresholds[edit_id].append(RHO * change.min().item())
        by_edit = {edit_id: tuple(row) for edit_id, row in thresholds.items()}
        part = HookPart(tuple(layers), by_edit)
        self._parts.add(part)
        return part

    def _pair_rows(self, edit_ids: Sequence[str], counts: Sequence[int], which: int, layer: int) -> Tensor:
        """Return the row indices of the edits' pairs at a layer, (N,), in the buffer `which`: 0 for keys, 1 for solved,
        2 for residuals."""
        rows = [
            self._rows[edit_id][which] + layer * count + token
            for edit_id, count in zip(edit_ids, counts, strict=True)
            for token in range(count)
        ]
        return torch.tensor(rows)

    # -- acting

    def confirm(self, prompt: PromptView, part: HookPart, decision: Decision) -> Decision | None:
        """Return the decision if the prompt's last token stands out at the lowest hook layer."""
        assert decision.edit_id is not None
        thresholds = part.thresholds[decision.edit_id]
        change = part.layers[0].change(prompt.features[self._spread.sites[0]].to(self._device)).norm().item()
        if change < thresholds[0]:
            return None
        signals = {**decision.signals, "change": Signal(change, thresholds[0])}
        return replace(decision, signals=signals, state=(part, torch.tensor(thresholds, device=self._device)))

    def bind(self, rows: Sequence[RowView]) -> None:
        parts: dict[int, tuple[HookPart, list[int], list[Tensor]]] = {}
        for index, row in enumerate(rows):
            if row.decision is not None and row.decision.editor == self.key:
                part, thresholds = row.decision.state
                _, row_indices, row_thresholds = parts.setdefault(id(part), (part, [], []))
                row_indices.append(index)
                row_thresholds.append(thresholds)
        self._bound = [
            (part, torch.tensor(row_indices, device=self._device), torch.stack(row_thresholds))
            for part, row_indices, row_thresholds in parts.values()
        ]

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        if site not in self._spread.sites:
            return h_out
        layer = self._spread.sites.index(site)
        for part, rows, thresholds in self._bound:
            change = part.layers[layer].change(h_in[rows].float())  # (N, T, D_out)
            passes = change.norm(dim=-1) >= thresholds[:, layer, None]
            own = h_out[rows]
            h_out = h_out.index_copy(0, rows, torch.where(passes[..., None], own + change.to(own.dtype), own))
        return h_out
