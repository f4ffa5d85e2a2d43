"""CoachHooK, first called COMEBA-HK (Li et al. 2024, arXiv 2403.05330): hook layers for consecutive batch editing.

Preset `serving`. As published: several early MLP down-projections each have a hook layer, a changed copy of their
weight in which all edits live; an edit is pairs of a key, the input at one of its tokens, and a value that makes the
model say the target (sections 3.2 and 3.3, MEMIT's recipe); pairs are solved in closed form against the second moment
of generic text; a token is answered by the hook layer where what the hook would change stands out. Deviations, each
for what live serving needs:
- a pair for each target token, at the position that predicts it, in middle layers, instead of one at the subject's last
  token in early ones: one vector there rarely carries a name of several tokens (app/DECISIONS.md has the figures). So
  no subject is needed, and keys and values in the cache stay those of the base model up to the prompt's last token;
- a prompt must be in an edit's scope (app/scope) before its hook layers act: the
  published z-score fires on some 1.4 % of all tokens at 2.2, and more as the threshold falls;
- a token passes where the change is at least RHO of what it is at the edit's own key: an absolute threshold, by layer
  and by the edit that answers, in place of a z-score that cannot reach 2.2 in prompts of fewer than 7 tokens, counts
  pads, and is undefined for the single token of a cached decode step;
- each edit's pairs are measured with no other edit in place, so that an edition is the least-squares solution over the
  live edits, whatever their order and batches (`dual_form`, the dual form): rollback is solving without the pair;
- C_0 = lambda E[x x'] with lambda = D_in / LEVERAGE instead of 15,000: the published weight suits D_in = 16,384, where
  an average key has a leverage k' C_0^-1 k of 1.1, and leaves half of the change undone;
- fitted on target and end-of-text, on the prompt and its paraphrases, with early stopping.
Not taken over from the official code: weights rounded to fp16 in place, pads in the statistics, thresholds recorded
with the other layers unhooked and hooks validated with the old threshold, subjects tokenised apart from the prompt.
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
    FitRequest,
    Fitted,
    Plain,
    Progress,
    PromptView,
    RowView,
    Site,
    target_of,
)
from app.editors.fitting.corpus import Statistics
from app.editors.fitting.loop import FitParameters, by_parts, collate, fit_deltas
from app.editors.fitting.row_buffer import Rows
from app.editors.hook_layer.dual_form import Prior, WeightChange, solve
from app.editors.hook_layer.layer_spread import Sweep

LEVERAGE = 40.0
"""Of an average key: a new pair is met to 1 - 1 / (1 + LEVERAGE), 98 %, by each layer."""
RHO = 0.4


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class HookPart:
    """An edition's hook layers, from the lowest, and each edit's threshold in each of them."""

    layers: tuple[WeightChange, ...]
    thresholds: Mapping[str, tuple[float, ...]]


class HookLayers(Plain):
    """keys (N, D_in), solved (N, D_in), residuals (N, D_out) fp32: of an edit M J rows, M layers of J target tokens.

    Pairs are wanted when an edition is compiled, and stay in the host's memory; on the model's device are an edition's
    changes of M weights, which do not grow with the edits beyond the weights' own size.
    """

    name = "hook_layer"
    capabilities = Capabilities(
        max_target_tokens=32,
        decides="request",
        changes_earlier_positions=False,
        needs_whole_prompt=False,
        rollback="exact",
    )

    def __init__(
        self,
        sweep: Sweep,
        statistics: Statistics,
        fit_parameters: FitParameters | None = None,
    ) -> None:
        self._sweep, self._statistics = sweep, statistics
        self._fit_parameters = fit_parameters or FitParameters(probability=0.98, max_steps=100, beyond=6.0)
        self._device = sweep.view.device
        self._keys, self._solved, self._residuals = (Rows(torch.device("cpu"), torch.float32) for _ in range(3))
        self._parts: WeakSet[HookPart] = WeakSet()
        self._rows: dict[str, tuple[int, int, int]] = {}  # edit -> its first row in each
        self._tokens: dict[str, int] = {}  # edit -> its target tokens
        self._priors: list[Prior] = []
        self._bound: list[tuple[HookPart, Tensor, Tensor]] = []  # a part, its rows (N,), their thresholds (N, M)

    @property
    def sites(self) -> tuple[Site, ...]:
        return self._sweep.sites

    @property
    def held_bytes(self) -> int:
        return sum(layer.held_bytes for part in self._parts for layer in part.layers)

    # -- learning

    def prepare(self) -> Generator[Progress, None, None]:
        """C_0 of each hooked layer, factored."""
        if not self._priors:
            moments = yield from self._statistics.moments(self._sweep.sites)
            self._priors = [Prior(moment, len(moment) / LEVERAGE) for moment in moments]

    def fit(self, requests: Sequence[FitRequest], part: HookPart | None) -> Generator[Progress, None, list[Fitted]]:
        return by_parts(requests, self._fit_some)

    def _fit_some(self, requests: Sequence[FitRequest]) -> Generator[Progress, None, list[Fitted]]:
        yield from self.prepare()
        contexts = [request.contexts for request in requests]
        targets = [request.target_ids for request in requests]
        fits = yield from fit_deltas(self._sweep.view, contexts, targets, self._fit_parameters)
        batch = collate(contexts, targets, self._device)
        deltas = pad_sequence([fit.value for fit in fits], batch_first=True)  # (E, J, D)
        steps = self._sweep.pairs(batch.ids, batch.owner, batch.position, batch.real, deltas, self._priors)
        pairs = yield from steps
        fitted: list[Fitted] = []
        for edit, (request, fit) in enumerate(zip(requests, fits, strict=True)):
            how = {"steps": fit.steps, "converged": fit.converged, "probability": round(fit.probability, 6)}
            fitted.append(
                Fitted(
                    learned={
                        "target_ids": list(request.target_ids),
                        "moments_of": self._statistics.corpus,
                        **how,
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
        layers, tokens = len(self._sweep.sites), len(target_of(edit_id, fitted))
        d_in, d_out = self._sweep.view.widths
        takes = {
            "keys": (layers, tokens, d_in),
            "solved": (layers, tokens, d_in),
            "residuals": (layers, tokens, d_out),
        }
        has = {name: tuple(fitted.tensors[name].shape) for name in takes if name in fitted.tensors}
        if has != takes:
            raise IncompatibleEdit(f"The edit {edit_id} has tensors of the shapes {has}; this model takes {takes}.")
        if fitted.learned.get("moments_of") != self._statistics.corpus:
            raise IncompatibleEdit(
                f"The edit {edit_id} was fitted against other generic text than this server's: its keys cannot be "
                "solved together with those of others. Set ERRATA_CORPUS as it was."
            )
        self._tokens[edit_id] = tokens
        self._rows[edit_id] = (
            self._keys.put(fitted.tensors["keys"].flatten(0, 1)),
            self._solved.put(fitted.tensors["solved"].flatten(0, 1)),
            self._residuals.put(fitted.tensors["residuals"].flatten(0, 1)),
        )

    def drop(self, edit_id: str) -> None:
        count = len(self._sweep.sites) * self._tokens.pop(edit_id)
        for rows, first in zip((self._keys, self._solved, self._residuals), self._rows.pop(edit_id), strict=True):
            rows.give_back(first, count)

    def compile(self, edit_ids: Sequence[str]) -> HookPart:
        """Sections 3.3 and 8: one least-squares solution a layer over all live pairs."""
        edit_ids = sorted(edit_ids)  # sums in another order would differ in their last bits
        counts = [self._tokens[edit_id] for edit_id in edit_ids]
        layers: list[WeightChange] = []
        thresholds: dict[str, list[float]] = {edit_id: [] for edit_id in edit_ids}
        for layer in range(len(self._sweep.sites)):
            keys, solved, residuals = (
                rows.data[self._at(edit_ids, counts, which, layer)].to(self._device)
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

    def _at(self, edit_ids: Sequence[str], counts: Sequence[int], which: int, layer: int) -> Tensor:
        """The rows of these edits' pairs at a layer, in one of the three buffers."""
        at = [
            self._rows[edit_id][which] + layer * count + token
            for edit_id, count in zip(edit_ids, counts, strict=True)
            for token in range(count)
        ]
        return torch.tensor(at)

    # -- acting

    def confirm(self, prompt: PromptView, part: HookPart, decision: Decision) -> Decision | None:
        """Whether the prompt's last token stands out at the lowest hook layer."""
        assert decision.edit_id is not None
        thresholds = part.thresholds[decision.edit_id]
        change = part.layers[0].change(prompt.features[self._sweep.sites[0]].to(self._device)).norm().item()
        if change < thresholds[0]:
            return None
        signals = {**decision.signals, "change": Signal(change, thresholds[0])}
        return replace(decision, signals=signals, part=(part, torch.tensor(thresholds, device=self._device)))

    def bind(self, rows: Sequence[RowView]) -> None:
        parts: dict[int, tuple[HookPart, list[int], list[Tensor]]] = {}
        for at, row in enumerate(rows):
            if row.decision is not None and row.decision.editor == self.key:
                part, thresholds = row.decision.part
                _, held, bounds = parts.setdefault(id(part), (part, [], []))
                held.append(at)
                bounds.append(thresholds)
        self._bound = [
            (part, torch.tensor(held, device=self._device), torch.stack(bounds))
            for part, held, bounds in parts.values()
        ]

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        if site not in self._sweep.sites:
            return h_out
        at = self._sweep.sites.index(site)
        for part, rows, thresholds in self._bound:
            change = part.layers[at].change(h_in[rows].float())  # (N, T, D_out)
            passes = change.norm(dim=-1) >= thresholds[:, at, None]
            own = h_out[rows]
            h_out = h_out.index_copy(0, rows, torch.where(passes[..., None], own + change.to(own.dtype), own))
        return h_out
