"""CoachHooK as published (Li et al. 2024, arXiv 2403.05330): the preset `paper`, for comparison.

An edit is one pair a hooked layer: the key of its subject's last token, and a value found by MEMIT's recipe with
earlier edits in place (section 3.2, `subject_value`), spread over the layers from the lowest up (section 3.3). The hook
layers answer a token where the z-score of their change, over the sequence's tokens, reaches alpha. Alpha starts at 2.2
and falls to the z-score that the live edits' own prompts reach (section 3.4). There is no other scope: all edits live
in one change of the weight, and it fires wherever a token stands out.

The remaining differences: pairs are stored in the dual form (`dual_form`), so that a rollback is exact least squares
over the other pairs, in any order; lambda preserves the published leverage of an average key (15,000 at D_in = 16,384)
at other widths; contexts are the prompt and the server's own prefixes; the KL term is taken at the subject in the
prompt itself; during decoding the statistics continue from the prompt's, where one token alone has no deviation and the
official hook never fires; alpha does not fall below MIN_ALPHA, so that one short prompt does not open the hook to
everything; and no statistic counts pads or the first position, which is often an attention sink. `serving` names the
other defects of the official code that are not reproduced.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.domain.words import says, words_of
from app.editors.base import (
    Capabilities,
    Decision,
    Editor,
    Extras,
    FitProgress,
    FitRequest,
    Fitted,
    Observer,
    PromptView,
    RowView,
    Site,
    check_shapes,
    learned_as,
)
from app.editors.fitting.corpus import Statistics
from app.editors.fitting.foundation import Foundation
from app.editors.fitting.row_buffer import RowBuffer
from app.editors.hook_layer.dual_form import Prior, WeightChange, solve
from app.editors.hook_layer.subject_value import SubjectSpread, ValueFitParameters, subject_places

ALPHA, MIN_ALPHA = 2.2, 1.5
LAMBDA, LAMBDA_WIDTH = 15_000.0, 16_384
"""The published weight of C_0, and the D_in that it was chosen for."""


class Learned(BaseModel):
    """The fields of `Fitted.learned` that `load` reads. They are validated, because others may write to the log."""

    model_config = ConfigDict(strict=True, frozen=True)

    who: list[list[list[str]]]
    """The names of the subject: alternatives, each of which is a list of names that must all be said, each a list of
    case-folded words."""
    z: list[float]
    """The largest z-score that the edit's own prompt reached, one per layer."""

    def named_in(self, words: Sequence[str]) -> bool:
        """Return whether case-folded words mention the subject."""
        return any(all(says(words, tuple(span)) for span in spans) for spans in self.who)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class WeightPart:
    """The hook layers of an edition with their thresholds, lowest first, and the order of its edits by their ids."""

    layers: tuple[WeightChange, ...]
    alphas: tuple[float, ...]
    places: dict[str, int]


@dataclass(slots=True)
class RunningStatistics:
    """The statistics of one sequence's changes, whose tokens come one by one. For each site they are the count, the
    mean and the sum of squared deviations."""

    stats: dict[Site, tuple[int, float, float]] = field(default_factory=dict)

    def z_of(self, site: Site, change: float) -> float:
        """Add one token's change and return its z-score among all changes so far."""
        count, mean, squares = self.stats.get(site, (0, 0.0, 0.0))
        count += 1
        step = change - mean
        mean += step / count
        squares += step * (change - mean)
        self.stats[site] = (count, mean, squares)
        deviation = (squares / (count - 1)) ** 0.5 if count > 1 else 0.0
        return (change - mean) / deviation if deviation > 1e-9 else float("-inf")

    def begin(self, site: Site, changes: Tensor) -> None:
        """Begin with the changes (T,) of a prompt, without its first position."""
        mean = changes.mean().item() if len(changes) else 0.0
        self.stats[site] = (len(changes), mean, (changes - mean).pow(2).sum().item())


def z_scores(changes: Tensor) -> Tensor:
    """Return the z-score of each token's change: (T,) -> (T,). The first position does not count and gets -inf, as do
    all tokens if fewer than two count or all changes are equal."""
    scored = torch.full_like(changes, float("-inf"))
    rest = changes[1:]
    if len(rest) > 1 and rest.std() > 1e-9:
        scored[1:] = (rest - rest.mean()) / rest.std()
    return scored


def build(foundation: Foundation) -> "HookLayersPaper":
    """Build the editor at the published depth: LLaMA-2's layers 4 to 8 of 32."""
    count = foundation.layer_count
    first = max(1, round(count / 8))
    layers = range(first, min(count - 1, first + min(5, max(2, count // 4))))
    sites = foundation.down_sites(layers)
    (site_above,) = foundation.down_sites([layers[-1] + 1])
    spread = SubjectSpread(foundation.view(sites[0], sites), foundation.view(site_above), sites)
    return HookLayersPaper(spread, foundation.statistics)


class HookLayersPaper(Editor):
    """The pairs of n edits at M layers, fp32, in the host's memory: keys (n M, D_in), solved (n M, D_in) and residuals
    (n M, D_out), M rows an edit."""

    name, preset = "hook_layer", "paper"
    capabilities = Capabilities(
        max_target_tokens=12,
        changes_earlier_positions=True,
        needs_whole_prompt=True,
        rollback="exact",
        local=False,
        independent=False,
        scoped=False,
    )

    def __init__(self, spread: SubjectSpread, statistics: Statistics) -> None:
        self._spread, self._statistics = spread, statistics
        self._parameters = ValueFitParameters()
        self.extras = Extras(observer=Observer(sites=spread.sites, observe=self._observe))
        self._device = spread.view.device
        self._keys, self._solved, self._residuals = (RowBuffer(torch.device("cpu"), torch.float32) for _ in range(3))
        self._parts: WeakSet[WeightPart] = WeakSet()
        self._rows: dict[str, tuple[int, int, int]] = {}
        self._learned: dict[str, Learned] = {}
        self._priors: list[Prior] = []
        self._bound: list[tuple[int, RowView, WeightPart, RunningStatistics]] = []

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
            self._priors = [Prior(moment, LAMBDA * len(moment) / LAMBDA_WIDTH) for moment in moments]

    def fit(
        self, requests: Sequence[FitRequest], part: WeightPart | None
    ) -> Generator[FitProgress, None, list[Fitted]]:
        rows = subject_places(requests, self._device)
        yield from self.prepare()
        before = self._stacked(list(part.places)) if part is not None else None
        hooks = None if part is None else (part.layers, part.alphas)
        deltas = yield from self._spread.values(rows, hooks, self._parameters)
        pairs, layers = yield from self._spread.pairs(rows, deltas, before, hooks, self._priors)
        alphas = tuple(ALPHA for _ in layers) if part is None else part.alphas
        reached = [
            [z_scores(changes).max().item() for changes in self._spread.changes(request.contexts[0], layers, alphas)]
            for request in requests
        ]
        return [
            Fitted(
                learned={
                    "who": [[words_of(request.subject or "")]],
                    "z": [max(-1e9, z) for z in reached[index]],
                    "target_ids": list(request.target_ids),
                    "steps": self._parameters.steps,
                },
                tensors={
                    "keys": pairs[0][index].cpu(),
                    "solved": pairs[1][index].cpu(),
                    "residuals": pairs[2][index].cpu(),
                },
            )
            for index, request in enumerate(requests)
        ]

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        learned = learned_as(Learned, edit_id, fitted)
        layers, (d_in, d_out) = len(self._spread.sites), self._spread.view.widths
        expected = {"keys": (layers, d_in), "solved": (layers, d_in), "residuals": (layers, d_out)}
        check_shapes(edit_id, fitted, expected)
        if len(learned.z) != layers:
            raise IncompatibleEdit(f"The edit {edit_id} has {len(learned.z)} z-scores; this model takes {layers}.")
        buffers = {"keys": self._keys, "solved": self._solved, "residuals": self._residuals}
        first, second, third = (rows.add(fitted.tensors[name]) for name, rows in buffers.items())
        self._rows[edit_id], self._learned[edit_id] = (first, second, third), learned

    def drop(self, edit_id: str) -> None:
        del self._learned[edit_id]
        firsts = self._rows.pop(edit_id)
        for rows, first in zip((self._keys, self._solved, self._residuals), firsts, strict=True):
            rows.release(first, len(self._spread.sites))

    def _stacked(self, edit_ids: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Return K, P and E of n edits, (n, M, D) each."""
        first_rows = torch.tensor([self._rows[edit_id] for edit_id in edit_ids])  # (n, 3)
        layers = torch.arange(len(self._spread.sites))
        keys, solved, residuals = (
            rows.data[first_rows[:, which, None] + layers].to(self._device)
            for which, rows in enumerate((self._keys, self._solved, self._residuals))
        )
        return keys, solved, residuals

    def compile(self, edit_ids: Sequence[str]) -> WeightPart:
        """Solve the dual form over the live pairs, and take alpha over the live prompts."""
        keys, solved, residuals = self._stacked(sorted(edit_ids))  # Another order would differ in the last bits.
        layers = tuple(
            solve(keys[:, layer], solved[:, layer], residuals[:, layer]) for layer in range(len(self._spread.sites))
        )
        reached = [self._learned[edit_id].z for edit_id in edit_ids]
        alphas = tuple(max(MIN_ALPHA, min(ALPHA, *(z[layer] for z in reached))) for layer in range(len(layers)))
        part = WeightPart(layers, alphas, {edit_id: place for place, edit_id in enumerate(edit_ids)})
        self._parts.add(part)
        return part

    # -- acting

    def _observe(self, site: Site, h_in: Tensor, part: WeightPart) -> Tensor:
        """Return the norm of the hook layer's change of each token: (T, D_in) -> (T,)."""
        size: Tensor = part.layers[self._spread.sites.index(site)].change(h_in.float()).norm(dim=-1)
        return size

    def decide(self, prompt: PromptView, part: WeightPart) -> Decision | None:
        """Return a decision if any token of the prompt passes at any layer, on base activations. Only then can the
        hooks act, because nothing has changed below the lowest layer at which a token passes. The newest edit whose
        subject is mentioned counts as the answer. If there is none, no edit does, although the hooks act."""
        observed = prompt.observed[self.key]
        best = max(
            (z_scores(observed[site]).max().item() - alpha, layer)
            for layer, (site, alpha) in enumerate(zip(self._spread.sites, part.alphas, strict=True))
        )
        if best[0] < 0:
            return None
        alpha = part.alphas[best[1]]
        live = [edit_id for edit_id in part.places if self._learned[edit_id].named_in(prompt.words)]
        return Decision(
            edit_id=max(live, key=lambda edit_id: part.places[edit_id], default=None),
            editor=self.key,
            margin=min(1.0, best[0] / alpha),
            signals={"z": Signal(best[0] + alpha, alpha)},
            state=(part, RunningStatistics()),
        )

    def bind(self, rows: Sequence[RowView]) -> None:
        self._bound = [
            (index, row, *row.decision.state)
            for index, row in enumerate(rows)
            if row.decision is not None and row.decision.editor == self.key
        ]

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        """Return the hook layer's output at tokens whose z-score reaches alpha, else the output as it is (section
        2)."""
        layer = self._spread.sites.index(site)
        for index, row, part, running in self._bound:
            change = part.layers[layer].change(h_in[index, : row.count].float())  # (T, D_out)
            size = change.norm(dim=-1)
            if row.first == 0 and row.count > 1:
                scored = z_scores(size)
                running.begin(site, size[1:])
            else:
                scored = torch.tensor(
                    [running.z_of(site, change_norm) for change_norm in size.tolist()], device=self._device
                )
            passes = scored >= part.alphas[layer]
            own = h_out[index, : row.count]
            edited = torch.where(passes[:, None], own + change.to(own.dtype), own)
            h_out = h_out.clone()
            h_out[index, : row.count] = edited
        return h_out
