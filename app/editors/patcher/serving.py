"""Transformer-Patcher (Huang et al. 2023, arXiv 2301.09785): one mistake, one patch neuron in the last FFN.

Preset `serving`. As published: for each target token that the model gets wrong, end-of-text included, a neuron
`g(q . k + b) v` is added to the last FFN; its pre-activation is 1 at its own query q, and it is silent on a memory of
generic queries, on counter-examples and on the edit's other tokens (sections 3.2 to 3.4). Deviations, each for what
live serving needs:
- the gate g is a step (1 above zero, else 0) whatever the model's own activation is: a silent neuron adds exactly
  nothing, where the published GELU or SiLU leaks a little of every patch into every token, and one that fires on a
  paraphrase says what it says on its own prompt;
- k and b come in closed form, not from the activation and memory losses: k is the direction in which the query stands
  out from the memory's covariance, and b puts zero between the query and what lies nearest to it, so that both margins
  hold by construction; only v is learned by gradient, through the head, until the answer is right;
- the neurons of at most one edit act on a request: the one that the scope index names, if its first neuron fires at
  the prompt's last token. So edits do not add up, need not be silent on one another, and rollback is exact;
- a first neuron stands at the prompt's last token even where the first target token was right: it carries the decision.
Below the last FFN nothing changes, so keys and values in the cache stay those of the base model.
Not taken over from the official code: margins that never reach the patch on zsRE, weights kept from after the best
check, a memory filled with copies of one example.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.editors.base import Capabilities, Decision, FitRequest, Fitted, Plain, Progress, PromptView, RowView, Site
from app.editors.fitting.corpus import Statistics
from app.editors.fitting.loop import Contexts, FitParameters, by_parts, collate, fit_deltas
from app.editors.fitting.row_buffer import Rows
from app.editors.fitting.view import KEYS_AT_ONCE, FitView
from app.editors.patcher.memory import MAX_ROWS, Memory, without_first

SURE = 0.95
"""A target token that the model gives with less has a neuron: at temperature 1 it would often be missed."""
SILENT_SHARE = 0.4
"""Where zero lies between the nearest memory row (0) and the neuron's own query (1)."""


class Learned(BaseModel):
    """What a stored edit must have learned. It is read from a log that others may write to."""

    model_config = ConfigDict(strict=True, frozen=True)

    own: float = Field(gt=0, allow_inf_nan=False)
    """The first neuron's activation at the edit's own prompt."""


@dataclass(frozen=True, slots=True)
class _Patch:
    """Where an edit's neurons stand: `count` rows from `first_key` and from `first_value` on."""

    edit_id: str
    first_key: int
    first_value: int
    count: int
    own: float


class Patcher(Plain):
    """keys (N, D_in + 1) fp32, the bias last | values (N, D_out) fp32."""

    name = "patcher"
    capabilities = Capabilities(
        max_target_tokens=64,
        decides="request",
        changes_earlier_positions=False,
        needs_whole_prompt=False,
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
        self._fit_parameters = fit_parameters or FitParameters(probability=SURE, max_steps=60)
        self._keys, self._values = Rows(view.device, torch.float32), Rows(view.device, torch.float32)
        self._patches: dict[int, _Patch] = {}  # by the row of the first neuron's key
        self._row_of: dict[str, int] = {}
        self._acting: tuple[Tensor, Tensor, Tensor] | None = None  # keys (B, J, D_in + 1), values, rows' mask

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self.site,)

    @property
    def held_bytes(self) -> int:
        return self._keys.held_bytes + self._values.held_bytes

    # -- learning

    def prepare(self) -> Generator[Progress, None, None]:
        """The memory: the FFN's inputs over questions that ship with Errata and over generic text."""
        if self._memory is None:
            inputs: list[Tensor] = []
            for first in range(0, len(self._questions), KEYS_AT_ONCE):
                inputs.extend(self._view.inputs_of(self._questions[first : first + KEYS_AT_ONCE]))
                yield Progress(step=len(inputs), steps=len(self._questions), loss=float("nan"))
            questions = without_first(inputs, self._view.widths[0], self._view.device)
            text = yield from self._statistics.inputs(self.site, MAX_ROWS - len(questions))
            self._memory = Memory(torch.cat([questions, text]), self._view.widths[0], self._view.device)

    def fit(self, requests: Sequence[FitRequest], part: None) -> Generator[Progress, None, list[Fitted]]:
        yield from self.prepare()
        return (yield from by_parts(requests, self._fit_some))

    def _fit_some(self, requests: Sequence[FitRequest]) -> Generator[Progress, None, list[Fitted]]:
        contexts = [request.contexts for request in requests]
        targets = [request.target_ids for request in requests]
        batch = collate(contexts, targets, self._view.device)
        queries = self._queries(batch)  # (R, J, D_in)
        wrong = self._wrong(batch)  # (R, J) bool
        keys = [self._neurons(request, queries[batch.owner == e]) for e, request in enumerate(requests)]
        needed = [self._needed(wrong[batch.owner == e], len(target)) for e, target in enumerate(targets)]
        mix = torch.zeros(*batch.position.shape, batch.position.shape[1], device=self._view.device)
        for row, owner in enumerate(batch.owner.tolist()):
            count = len(targets[owner])
            fired = _fired(queries[row, :count], keys[owner])  # (J, J)
            mix[row, :count, :count] = fired * needed[owner]
        yield Progress(step=0, steps=self._fit_parameters.max_steps, loss=float("nan"))
        fits = yield from fit_deltas(self._view, contexts, targets, self._fit_parameters, mix)
        fitted: list[Fitted] = []
        for e, fit in enumerate(fits):
            prompt_query = queries[batch.owner == e][0, 0]
            kept = needed[e].nonzero()[:, 0]
            fitted.append(
                Fitted(
                    learned={
                        "own": _pre_activations(prompt_query[None], keys[e][:1]).item(),
                        "neurons": len(kept),
                        "steps": fit.steps,
                        "converged": fit.converged,
                        "probability": round(fit.probability, 6),
                    },
                    tensors={"keys": keys[e][kept].cpu(), "values": fit.value[kept].cpu()},
                )
            )
        return fitted

    def _queries(self, batch: Contexts) -> Tensor:
        """(R, J, D_in): the FFN's input where each target token is predicted. No edit changes it: it lies below."""
        inputs = self._view.inputs(batch.ids)
        return inputs.gather(1, batch.position[..., None].expand(-1, -1, inputs.shape[-1]))

    def _wrong(self, batch: Contexts) -> Tensor:
        """(R, J) bool: target tokens that the model does not give, or gives without being sure."""
        chances = self._view.base_logits(batch.ids, batch.position).softmax(-1)  # (R, J, V)
        chance = chances.gather(2, batch.target[..., None])[..., 0]
        missed = (chances.argmax(-1) != batch.target) | (chance < SURE)
        return missed & batch.real

    @staticmethod
    def _needed(wrong: Tensor, count: int) -> Tensor:
        """(R, J) of one edit -> (count,) bool: which of its target tokens get a neuron."""
        needed = wrong[:, :count].any(0)
        needed[0] = True
        return needed

    def _neurons(self, request: FitRequest, queries: Tensor) -> Tensor:
        """(R, J, D_in) queries of one edit -> (J, D_in + 1): a key and a bias for each target token."""
        assert self._memory is not None, "prepared before"
        counter = [self._view.keys(request.counter_contexts)] if request.counter_contexts else []
        count, rows = len(request.target_ids), []
        for j in range(count):
            # each is silent where its neighbours speak, so that every token has its own value
            others = [queries[:, k] for k in range(count) if k != j] + (counter if j == 0 else [])
            rows.append(self._memory.neuron(queries[:, j], others, share=SILENT_SHARE))
        return torch.stack(rows)

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        try:
            learned = Learned.model_validate({"own": fitted.learned.get("own")})
        except ValidationError as error:
            raise IncompatibleEdit(f"What the edit {edit_id} learned cannot be read: {error}") from error
        d_in, d_out = self._view.widths
        has = {name: tuple(tensor.shape) for name, tensor in fitted.tensors.items()}
        count = has.get("keys", (0,))[0]
        takes = {"keys": (max(1, count), d_in + 1), "values": (max(1, count), d_out)}
        if has != takes:
            raise IncompatibleEdit(
                f"The edit {edit_id} has tensors of the shapes {has}; the site {self.site} takes {takes}."
            )
        assert edit_id not in self._row_of, f"{edit_id} is loaded already"
        row = self._keys.put(fitted.tensors["keys"])
        value = self._values.put(fitted.tensors["values"])
        self._patches[row] = _Patch(edit_id, row, value, count, learned.own)
        self._row_of[edit_id] = row

    def drop(self, edit_id: str) -> None:
        row = self._row_of.pop(edit_id)
        patch = self._patches.pop(row)
        self._keys.give_back(patch.first_key, patch.count)
        self._values.give_back(patch.first_value, patch.count)

    def compile(self, edit_ids: Sequence[str]) -> None:
        """An edition sees neurons through its decisions alone."""

    # -- acting

    def confirm(self, prompt: PromptView, part: None, decision: Decision) -> Decision | None:
        """Whether the edit's first neuron fires, in parts of what rouses it at its own prompt."""
        assert decision.edit_id is not None
        row = self._row_of[decision.edit_id]
        query = prompt.features[self.site].to(self._view.device)
        activation = _pre_activations(query[None], self._keys.data[row][None]).item()
        signals = {**decision.signals, "activation": Signal(activation, 0.0)}
        return replace(decision, signals=signals) if activation > 0 else None

    def bind(self, rows: Sequence[RowView]) -> None:
        held = [self._held(row) for row in rows]
        width = max((patch.count for patch in held if patch is not None), default=0)
        if not width:
            self._acting = None
            return
        keys = [[patch.first_key + j for j in range(patch.count)] if patch else [] for patch in held]
        values = [[patch.first_value + j for j in range(patch.count)] if patch else [] for patch in held]
        real = torch.tensor([[j < len(row) for j in range(width)] for row in keys], device=self._view.device)
        self._acting = self._padded(self._keys, keys, width), self._padded(self._values, values, width), real

    def _held(self, row: RowView) -> _Patch | None:
        if row.decision is None or row.decision.editor != self.key or row.decision.edit_id is None:
            return None
        return self._patches[self._row_of[row.decision.edit_id]]

    def _padded(self, rows: Rows, at: Sequence[Sequence[int]], width: int) -> Tensor:
        padded = [[*each, *[0] * (width - len(each))] for each in at]
        return rows.data[torch.tensor(padded, device=self._view.device)]

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        if self._acting is None:
            return h_out
        keys, values, real = self._acting
        fired = _fired(h_in.float(), keys) * real[:, None]  # (B, T, J)
        active = (fired > 0).any(-1, keepdim=True)
        return torch.where(active, h_out + (fired @ values).to(h_out.dtype), h_out)


def _pre_activations(queries: Tensor, neurons: Tensor) -> Tensor:
    """(..., T, D_in), (..., J, D_in + 1) -> q . k + b (..., T, J)."""
    return queries @ neurons[..., :-1].transpose(-1, -2) + neurons[..., None, :, -1]


def _fired(queries: Tensor, neurons: Tensor) -> Tensor:
    """The gate: 1 where the pre-activation is positive, else exactly 0."""
    return (_pre_activations(queries, neurons) > 0).to(queries.dtype)
