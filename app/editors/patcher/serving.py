"""Transformer-Patcher (Huang et al. 2023, arXiv 2301.09785): one mistake, one patch neuron in the last FFN.

This is the preset `serving`. As published, each target token that the model gets wrong, end-of-text included, adds a
neuron `g(q . k + b) v` to the last FFN. Its pre-activation is 1 at its own query q, and it is silent on a memory of
generic queries, on counter-examples and on the edit's other tokens (sections 3.2 to 3.4). The deviations, each for what
live serving needs:
- The gate g is a step (1 above zero, else 0), whatever the model's own activation is. A silent neuron adds exactly
  nothing, where the published GELU or SiLU leaks a little of every patch into every token; and a neuron that fires on a
  paraphrase has the same effect as on its own prompt.
- The key k and the bias b come in closed form, not from the activation and memory losses. The key is the direction in
  which the query stands out from the memory's covariance, and the bias puts zero between the query and its nearest
  neighbour, so that both margins hold by construction. Only v is learned by gradient, through the head, until the
  answer is right.
- The neurons of at most one edit act on a request: the edit that the scope index names, if its first neuron fires at
  the prompt's last token. Edits therefore do not add up, need not be silent on one another, and roll back exactly.
- The first neuron is placed at the prompt's last token even if the first target token was right, because it carries the
  decision.
Nothing changes below the last FFN, so that keys and values in the cache stay those of the base model.
Defects of the official code that are not reproduced: margins never reach the patch on zsRE, weights are kept from after
the best check, and the memory is filled with copies of one example.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

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
    learned_as,
)
from app.editors.fitting.contexts import Contexts, collate
from app.editors.fitting.corpus import Statistics
from app.editors.fitting.foundation import Foundation
from app.editors.fitting.loop import fit_deltas, in_batches
from app.editors.fitting.row_buffer import RowBuffer
from app.editors.fitting.value_search import FitParameters
from app.editors.fitting.view import FitView
from app.editors.patcher.memory import MAX_ROWS, Memory, without_first

SURE_PROBABILITY = 0.95
"""A target token with a lower probability gets a neuron even if it is the greedy choice: sampling at temperature 1
would often miss it."""
SILENT_SHARE = 0.4
"""The place of the gate's zero on the way from the nearest memory row (0) to the neuron's own query (1)."""


class Learned(BaseModel):
    """The fields of `Fitted.learned` that `load` reads. They are validated, because others may write to the log."""

    model_config = ConfigDict(strict=True, frozen=True)

    own: float = Field(gt=0, allow_inf_nan=False)
    """The first neuron's pre-activation at the edit's own prompt."""


@dataclass(frozen=True, slots=True)
class _Patch:
    """An edit's `count` neurons: rows from `first_key` on hold the keys, rows from `first_value` on the values."""

    edit_id: str
    first_key: int
    first_value: int
    count: int
    own: float


def build(foundation: Foundation) -> "Patcher":
    return Patcher(foundation.last_ffn_view, foundation.statistics, foundation.bank_ids)


class Patcher(Editor):
    """The patch neurons of all edits: keys (N, D_in + 1) fp32 with the bias last, and values (N, D_out) fp32."""

    name = "patcher"
    capabilities = Capabilities(
        max_target_tokens=64,
        changes_earlier_positions=False,
        rollback="exact",
    )

    def __init__(
        self,
        view: FitView,
        statistics: Statistics,
        questions: Sequence[Sequence[int]] = (),
        fit_parameters: FitParameters | None = None,
    ) -> None:
        self.site = view.site
        self._view = view
        self._statistics, self._questions = statistics, questions
        self._memory: Memory | None = None
        self._fit_parameters = fit_parameters or FitParameters(probability=SURE_PROBABILITY, max_steps=60)
        self._keys, self._values = RowBuffer(view.device, torch.float32), RowBuffer(view.device, torch.float32)
        self._patches: dict[int, _Patch] = {}  # keyed by the row of the first neuron's key
        self._row_of: dict[str, int] = {}
        self._acting: tuple[Tensor, Tensor, Tensor] | None = None  # keys (B, J, D_in + 1), values, mask (B, J)

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self.site,)

    @property
    def held_bytes(self) -> int:
        return self._keys.held_bytes + self._values.held_bytes

    # -- learning

    def prepare(self) -> Generator[FitProgress, None, None]:
        """Compute the memory: the FFN's inputs over the questions that ship with Errata and over generic text."""
        if self._memory is None:
            inputs: list[Tensor] = []
            at_once = self._view.rows_at_once(max(map(len, self._questions), default=1))
            for first in range(0, len(self._questions), at_once):
                inputs.extend(self._view.inputs_of(self._questions[first : first + at_once]))
                yield FitProgress(step=len(inputs), steps=len(self._questions), loss=float("nan"))
            questions = without_first(inputs, self._view.widths[0], self._view.device)
            text = yield from self._statistics.inputs(self.site, MAX_ROWS - len(questions))
            self._memory = Memory(torch.cat([questions, text]), self._view.widths[0], self._view.device)

    def fit(self, requests: Sequence[FitRequest], part: None) -> Generator[FitProgress, None, list[Fitted]]:
        yield from self.prepare()
        return (yield from in_batches(requests, self._fit_batch))

    def _fit_batch(self, requests: Sequence[FitRequest]) -> Generator[FitProgress, None, list[Fitted]]:
        contexts = [request.contexts for request in requests]
        targets = [request.target_ids for request in requests]
        batch = collate(contexts, targets, self._view.device)
        progress = FitProgress(step=0, steps=self._fit_parameters.max_steps, loss=float("nan"))

        def by_passes(compute: Callable[[Contexts], Tensor]) -> Generator[FitProgress, None, Tensor]:
            return self._view.by_passes(batch.ids.shape, lambda rows: compute(batch.only(rows)), progress)

        queries = yield from by_passes(self._queries)  # (R, J, D_in)
        wrong = yield from by_passes(self._wrong)  # (R, J) bool
        keys: list[Tensor] = []
        for e, request in enumerate(requests):
            own, prompts = queries[batch.owner == e], request.counter_contexts
            counter = (yield from self._counter_queries(prompts, progress)) if prompts else own[:0, 0]
            keys.append(self._neurons(len(request.target_ids), own, counter))
        needed = [self._needed(wrong[batch.owner == e], len(target)) for e, target in enumerate(targets)]
        mix = torch.zeros(*batch.position.shape, batch.position.shape[1], device=self._view.device)
        for row, owner in enumerate(batch.owner.tolist()):
            count = len(targets[owner])
            fired = fired_by(queries[row, :count], keys[owner])  # (J, J)
            mix[row, :count, :count] = fired * needed[owner]
        yield progress
        fits = yield from fit_deltas(self._view, contexts, targets, self._fit_parameters, mix)
        fitted: list[Fitted] = []
        for e, fit in enumerate(fits):
            prompt_query = queries[batch.owner == e][0, 0]
            tokens = needed[e].nonzero()[:, 0]  # target tokens that have a neuron
            fitted.append(
                Fitted(
                    learned={
                        "own": pre_activations(prompt_query[None], keys[e][:1]).item(),
                        "neurons": len(tokens),
                        "steps": fit.steps,
                        "converged": fit.converged,
                        "probability": round(fit.probability, 6),
                    },
                    tensors={"keys": keys[e][tokens].cpu(), "values": fit.value[tokens].cpu()},
                )
            )
        return fitted

    def _queries(self, batch: Contexts) -> Tensor:
        """Return the FFN's input (R, J, D_in) at each position that predicts a target token. No edit changes it,
        because all edits act above it."""
        inputs = self._view.inputs(batch.ids)
        return inputs.gather(1, batch.position[..., None].expand(-1, -1, inputs.shape[-1]))

    def _wrong(self, batch: Contexts) -> Tensor:
        """Mark (R, J) bool the target tokens that the model does not give, or gives with too low a probability."""
        probabilities = self._view.base_logits(batch.ids, batch.position).softmax(-1)  # (R, J, V)
        probability = probabilities.gather(2, batch.target[..., None])[..., 0]
        missed = (probabilities.argmax(-1) != batch.target) | (probability < SURE_PROBABILITY)
        return missed & batch.real

    @staticmethod
    def _needed(wrong: Tensor, count: int) -> Tensor:
        """Mark the target tokens of one edit that get a neuron: wrong (R, J) -> (count,) bool."""
        needed = wrong[:, :count].any(0)
        needed[0] = True
        return needed

    def _counter_queries(
        self, prompts: Sequence[Sequence[int]], progress: FitProgress
    ) -> Generator[FitProgress, None, Tensor]:
        """Return the FFN's inputs (C, D_in) at the ends of counter-examples."""

        def inputs(rows: slice) -> Tensor:
            return self._view.last_inputs(prompts[rows])

        return self._view.by_passes((len(prompts), max(map(len, prompts))), inputs, progress)

    def _neurons(self, count: int, queries: Tensor, counter: Tensor) -> Tensor:
        """Return a key and a bias for each of the `count` target tokens of one edit: queries (R, J, D_in) and the
        counter-examples' (C, D_in) -> (count, D_in + 1)."""
        assert self._memory is not None, "prepare() runs before the fit"
        rows = []
        for j in range(count):
            # A neuron is silent at the positions of its neighbours, so that every token has a value of its own.
            others = [queries[:, k] for k in range(count) if k != j] + ([counter] if j == 0 else [])
            rows.append(self._memory.neuron(queries[:, j], others, share=SILENT_SHARE))
        return torch.stack(rows)

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        learned = learned_as(Learned, edit_id, fitted)
        d_in, d_out = self._view.widths
        count = max(1, len(fitted.tensors.get("keys", ())))
        check_shapes(edit_id, fitted, {"keys": (count, d_in + 1), "values": (count, d_out)})
        assert edit_id not in self._row_of, f"{edit_id} is loaded already"
        row = self._keys.add(fitted.tensors["keys"])
        value = self._values.add(fitted.tensors["values"])
        self._patches[row] = _Patch(edit_id, row, value, count, learned.own)
        self._row_of[edit_id] = row

    def drop(self, edit_id: str) -> None:
        row = self._row_of.pop(edit_id)
        patch = self._patches.pop(row)
        self._keys.release(patch.first_key, patch.count)
        self._values.release(patch.first_value, patch.count)

    def compile(self, edit_ids: Sequence[str]) -> None:
        """Return nothing: an edition sees neurons only through its decisions."""

    # -- acting

    def confirm(self, prompt: PromptView, part: None, decision: Decision) -> Decision | None:
        """Return the decision if the edit's first neuron fires at the prompt's last token."""
        assert decision.edit_id is not None
        row = self._row_of[decision.edit_id]
        query = prompt.features[self.site].to(self._view.device)
        activation = pre_activations(query[None], self._keys.data[row][None]).item()
        signals = {**decision.signals, "activation": Signal(activation, 0.0)}
        return replace(decision, signals=signals) if activation > 0 else None

    def bind(self, rows: Sequence[RowView]) -> None:
        patches = [self._patch_of(row) for row in rows]
        width = max((patch.count for patch in patches if patch is not None), default=0)
        if not width:
            self._acting = None
            return
        keys = [[patch.first_key + j for j in range(patch.count)] if patch else [] for patch in patches]
        values = [[patch.first_value + j for j in range(patch.count)] if patch else [] for patch in patches]
        real = torch.tensor([[j < len(row) for j in range(width)] for row in keys], device=self._view.device)
        self._acting = self._padded(self._keys, keys, width), self._padded(self._values, values, width), real

    def _patch_of(self, row: RowView) -> _Patch | None:
        if row.decision is None or row.decision.editor != self.key or row.decision.edit_id is None:
            return None
        return self._patches[self._row_of[row.decision.edit_id]]

    def _padded(self, rows: RowBuffer, at: Sequence[Sequence[int]], width: int) -> Tensor:
        padded = [[*each, *[0] * (width - len(each))] for each in at]
        return rows.data[torch.tensor(padded, device=self._view.device)]

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        if self._acting is None:
            return h_out
        keys, values, real = self._acting
        fired = fired_by(h_in.float(), keys) * real[:, None]  # (B, T, J)
        active = (fired > 0).any(-1, keepdim=True)
        return torch.where(active, h_out + (fired @ values).to(h_out.dtype), h_out)


def pre_activations(queries: Tensor, neurons: Tensor) -> Tensor:
    """Return q . k + b: queries (..., T, D_in), neurons (..., J, D_in + 1) -> (..., T, J)."""
    return queries @ neurons[..., :-1].transpose(-1, -2) + neurons[..., None, :, -1]


def fired_by(queries: Tensor, neurons: Tensor) -> Tensor:
    """Return the gate (..., T, J): 1 where the pre-activation is positive, else exactly 0."""
    return (pre_activations(queries, neurons) > 0).to(queries.dtype)
