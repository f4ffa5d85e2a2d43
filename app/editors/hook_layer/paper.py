"""CoachHooK as published (Li et al. 2024, arXiv 2403.05330): preset `paper`, for comparison.

An edit is one pair a hooked layer: the key of its subject's last token, and a value found by MEMIT's recipe with
earlier edits in place (section 3.2, `subject_value`), spread over the layers from the lowest up (section 3.3). A token
is answered by the hook layers of its sequence where the z-score of what they change, over the sequence's tokens,
reaches alpha; alpha starts at 2.2 and falls to what the live edits' own prompts reach (section 3.4). There is no other
scope: all edits live in one change of the weight, and it fires wherever a token stands out.

What remains different: pairs are kept in the dual form (`dual_form`), so that rollback is exact least squares over the
others' pairs, in any order; lambda keeps the published leverage of an average key (15,000 at D_in = 16,384) at other
widths; contexts are the prompt and the server's own prefixes; the KL term is taken at the subject in the prompt itself;
while decoding, the statistics run on from the prompt's, where one token alone has no deviation and the official hook
never fires; alpha does not fall below FLOOR, so that one short prompt does not open the hook to everything; pads and
the first position, often a sink, are in no statistic. Other defects left out: see `serving`.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.domain.words import says, words_of
from app.editors.base import Capabilities, Decision, FitRequest, Fitted, Plain, Progress, PromptView, RowView, Site
from app.editors.fitting.corpus import Statistics
from app.editors.fitting.row_buffer import Rows
from app.editors.hook_layer.dual_form import Prior, WeightChange, solve
from app.editors.hook_layer.subject_value import SubjectSweep, ValueFit, subject_places

ALPHA, FLOOR = 2.2, 1.5
LAMBDA, LAMBDA_WIDTH = 15_000.0, 16_384


class Learned(BaseModel):
    """What a stored edit must have learned. It is read from a log that others may write to."""

    model_config = ConfigDict(strict=True, frozen=True)

    who: list[list[list[str]]]
    """Folded words of the names that it goes by: all of an alternative's."""
    z: list[float]
    """By layer, the largest z-score that the edit's own prompt reached."""

    def named_in(self, words: Sequence[str]) -> bool:
        return any(all(says(words, tuple(span)) for span in spans) for spans in self.who)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class WeightPart:
    """An edition's hook layers with their thresholds, from the lowest, and which edits are in them."""

    layers: tuple[WeightChange, ...]
    alphas: tuple[float, ...]
    places: dict[str, int]


@dataclass(slots=True)
class Running:
    """One sequence's count, mean and sum of squared deviations of the change, by layer: its tokens come one by one."""

    stats: dict[Site, tuple[int, float, float]] = field(default_factory=dict)

    def z_of(self, site: Site, change: float) -> float:
        """Takes in one token's change, and says how far it stands out among all so far."""
        count, mean, squares = self.stats.get(site, (0, 0.0, 0.0))
        count += 1
        step = change - mean
        mean += step / count
        squares += step * (change - mean)
        self.stats[site] = (count, mean, squares)
        deviation = (squares / (count - 1)) ** 0.5 if count > 1 else 0.0
        return (change - mean) / deviation if deviation > 1e-9 else float("-inf")

    def begin(self, site: Site, changes: Tensor) -> None:
        """(T,) changes of a prompt, its first position left out."""
        mean = changes.mean().item() if len(changes) else 0.0
        self.stats[site] = (len(changes), mean, (changes - mean).pow(2).sum().item())


def z_scores(changes: Tensor) -> Tensor:
    """(T,) how much each token would be changed -> (T,) its z-score, the first position left out; -inf where there is
    none: fewer than two tokens, or all alike."""
    scored = torch.full_like(changes, float("-inf"))
    rest = changes[1:]
    if len(rest) > 1 and rest.std() > 1e-9:
        scored[1:] = (rest - rest.mean()) / rest.std()
    return scored


class HookLayersPaper(Plain):
    """keys (n M, D_in), solved (n M, D_in), residuals (n M, D_out) fp32, on the host: M rows an edit, one a layer."""

    name, preset = "hook_layer", "paper"
    capabilities = Capabilities(
        max_target_tokens=12,
        decides="position",
        changes_earlier_positions=True,
        needs_whole_prompt=True,
        rollback="exact",
        local=False,
        independent=False,
        scoped=False,
    )

    def __init__(self, sweep: SubjectSweep, statistics: Statistics, how: ValueFit | None = None) -> None:
        self._sweep, self._statistics, self._how = sweep, statistics, how or ValueFit()
        self._device = sweep.view.device
        self._keys, self._solved, self._residuals = (Rows(torch.device("cpu"), torch.float32) for _ in range(3))
        self._parts: WeakSet[WeightPart] = WeakSet()
        self._rows: dict[str, tuple[int, int, int]] = {}
        self._learned: dict[str, Learned] = {}
        self._priors: list[Prior] = []
        self._bound: list[tuple[int, RowView, WeightPart, Running]] = []

    @property
    def sites(self) -> tuple[Site, ...]:
        return self._sweep.sites

    @property
    def observed(self) -> tuple[Site, ...]:
        return self._sweep.sites

    @property
    def held_bytes(self) -> int:
        return sum(layer.held_bytes for part in self._parts for layer in part.layers)

    # -- learning

    def prepare(self) -> Generator[Progress, None, None]:
        """C_0 of each hooked layer, factored."""
        if not self._priors:
            moments = yield from self._statistics.moments(self._sweep.sites)
            self._priors = [Prior(moment, LAMBDA * len(moment) / LAMBDA_WIDTH) for moment in moments]

    def fit(self, requests: Sequence[FitRequest], part: WeightPart | None) -> Generator[Progress, None, list[Fitted]]:
        rows = subject_places(requests, self._device)
        yield from self.prepare()
        before = self._stacked(list(part.places)) if part is not None else None
        hooks = None if part is None else (part.layers, part.alphas)
        deltas = yield from self._sweep.values(rows, hooks, self._how)
        pairs, layers = yield from self._sweep.pairs(rows, deltas, before, hooks, self._priors)
        alphas = tuple(ALPHA for _ in layers) if part is None else part.alphas
        reached = [
            [z_scores(changes).max().item() for changes in self._sweep.changes(request.contexts[0], layers, alphas)]
            for request in requests
        ]
        return [
            Fitted(
                learned={
                    "who": [[words_of(request.subject or "")]],
                    "z": [max(-1e9, z) for z in reached[at]],
                    "target_ids": list(request.target_ids),
                    "steps": self._how.steps,
                },
                tensors={"keys": pairs[0][at].cpu(), "solved": pairs[1][at].cpu(), "residuals": pairs[2][at].cpu()},
            )
            for at, request in enumerate(requests)
        ]

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        try:
            learned = Learned.model_validate({name: fitted.learned.get(name) for name in Learned.model_fields})
        except ValidationError as error:
            raise IncompatibleEdit(f"What the edit {edit_id} learned cannot be read: {error}") from error
        layers, (d_in, d_out) = len(self._sweep.sites), self._sweep.view.widths
        takes = {"keys": (layers, d_in), "solved": (layers, d_in), "residuals": (layers, d_out)}
        has = {name: tuple(tensor.shape) for name, tensor in fitted.tensors.items()}
        if has != takes or len(learned.z) != layers:
            raise IncompatibleEdit(f"The edit {edit_id} has tensors of the shapes {has}; this model takes {takes}.")
        buffers = {"keys": self._keys, "solved": self._solved, "residuals": self._residuals}
        first, second, third = (rows.put(fitted.tensors[name]) for name, rows in buffers.items())
        self._rows[edit_id], self._learned[edit_id] = (first, second, third), learned

    def drop(self, edit_id: str) -> None:
        del self._learned[edit_id]
        firsts = self._rows.pop(edit_id)
        for rows, first in zip((self._keys, self._solved, self._residuals), firsts, strict=True):
            rows.give_back(first, len(self._sweep.sites))

    def _stacked(self, edit_ids: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """K, P, E (n, M, D) of these edits."""
        at = torch.tensor([self._rows[edit_id] for edit_id in edit_ids])  # (n, 3)
        layers = torch.arange(len(self._sweep.sites))
        keys, solved, residuals = (
            rows.data[at[:, which, None] + layers].to(self._device)
            for which, rows in enumerate((self._keys, self._solved, self._residuals))
        )
        return keys, solved, residuals

    def compile(self, edit_ids: Sequence[str]) -> WeightPart:
        """Section 8's dual form over the live pairs, and alpha over the live prompts."""
        keys, solved, residuals = self._stacked(sorted(edit_ids))  # another order would differ in the last bits
        layers = tuple(solve(keys[:, at], solved[:, at], residuals[:, at]) for at in range(len(self._sweep.sites)))
        reached = [self._learned[edit_id].z for edit_id in edit_ids]
        alphas = tuple(max(FLOOR, min(ALPHA, *(z[at] for z in reached))) for at in range(len(layers)))
        part = WeightPart(layers, alphas, {edit_id: place for place, edit_id in enumerate(edit_ids)})
        self._parts.add(part)
        return part

    # -- acting

    def observe(self, site: Site, h_in: Tensor, part: WeightPart) -> Tensor:
        """How much the hook layer would change each token: (T, D_in) -> (T,)."""
        size: Tensor = part.layers[self._sweep.sites.index(site)].change(h_in.float()).norm(dim=-1)
        return size

    def decide(self, prompt: PromptView, part: WeightPart) -> Decision | None:
        """Whether any token of the prompt passes at any layer, on base activations. That is when the hooks do anything:
        below the lowest layer at which one passes, nothing has changed. The newest edit whose subject is mentioned is
        told to have answered; where none is, none is, though hooks act."""
        observed = prompt.observed[self.key]
        best = max(
            (z_scores(observed[site]).max().item() - alpha, at)
            for at, (site, alpha) in enumerate(zip(self._sweep.sites, part.alphas, strict=True))
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
            part=(part, Running()),
        )

    def bind(self, rows: Sequence[RowView]) -> None:
        self._bound = [
            (at, row, *row.decision.part)
            for at, row in enumerate(rows)
            if row.decision is not None and row.decision.editor == self.key
        ]

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        """Section 2: out_i = O_i where z_i >= alpha, else P_i."""
        layer = self._sweep.sites.index(site)
        for at, row, part, running in self._bound:
            change = part.layers[layer].change(h_in[at, : row.count].float())  # (T, D_out)
            size = change.norm(dim=-1)
            if row.first == 0 and row.count > 1:
                scored = z_scores(size)
                running.begin(site, size[1:])
            else:
                scored = torch.tensor([running.z_of(site, each) for each in size.tolist()], device=self._device)
            passes = scored >= part.alphas[layer]
            own = h_out[at, : row.count]
            edited = torch.where(passes[:, None], own + change.to(own.dtype), own)
            h_out = h_out.clone()
            h_out[at, : row.count] = edited
        return h_out
