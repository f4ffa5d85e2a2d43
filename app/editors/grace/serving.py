"""GRACE (Hartvigsen et al. 2022, arXiv 2211.11031): a codebook of keys, values and deferral radii at one layer.

Preset `serving`. As published: keys are states of the base model at a prompt's last token, values act at one layer; the
live key in whose deferral radius a prompt lies answers, else the model itself; radii of conflicting keys end before one
another (the paper's split). Deviations, each for what live serving needs:
- the value is a residual delta added to the FFN's output, one a generated position, fitted from zero on target and
  end-of-text with early stopping; the paper replaces the output by one vector at the last prompt token (section 3);
- scope is not decided by the distance of states: the scope index does it by meaning, for all serving editors
  (app/scope), so that no key and no deferral radius is learned here;
- the decision is taken once, at prefill, and held; row j acts only while the answer so far is the target's first j
  tokens, so that sampling away from the target is not dragged back;
- so there is no split and no order of edits: rollback of any of them is exact.
Not taken over from the official code: re-editing a prompt loses to the old key by a tie, labels compared by mean,
a split that enlarges a radius, a forward pass that writes to the codebook, `cdist` in its inexact matmul form.
"""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.editors.base import Capabilities, FitRequest, Fitted, Plain, Progress, RowView, Site, target_of
from app.editors.fitting.loop import FitParameters, by_parts, fit_deltas
from app.editors.fitting.row_buffer import Rows
from app.editors.fitting.view import FitView


class Grace(Plain):
    """The codebook editor. `site` is where values act.

    Values (sum of target tokens, D_out) in the model's own precision.
    """

    name = "grace"
    capabilities = Capabilities(
        max_target_tokens=256,
        decides="request",
        changes_earlier_positions=False,
        needs_whole_prompt=False,
        rollback="exact",
        captured=True,
        continues=True,
    )

    def __init__(
        self,
        view: FitView,
        fit_parameters: FitParameters | None = None,
        elsewhere: Sequence[Sequence[int]] = (),
    ) -> None:
        self.site = view.site
        self._elsewhere = [list(ids) for ids in elsewhere]
        self._view = view
        self._fit_parameters = fit_parameters or FitParameters()
        self._values = Rows(view.device, next(view.model.parameters()).dtype)
        self._first: dict[str, int] = {}  # edit -> its value's first row
        self._targets: dict[str, tuple[int, ...]] = {}
        # what each row of the next pass receives; never replaced once a graph may read them
        self._delta = torch.zeros(0, 1, view.widths[1], device=view.device, dtype=self._values.data.dtype)
        self._active = torch.zeros(0, 1, 1, dtype=torch.bool, device=view.device)
        self._rows = 0

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self.site,)

    @property
    def held_bytes(self) -> int:
        return self._values.held_bytes

    # -- learning

    def fit(self, requests: Sequence[FitRequest], part: None) -> Generator[Progress, None, list[Fitted]]:
        return by_parts(requests, self._fit_some)

    def _fit_some(self, requests: Sequence[FitRequest]) -> Generator[Progress, None, list[Fitted]]:
        fits = yield from fit_deltas(
            self._view,
            [self._contexts(request) for request in requests],
            [request.target_ids for request in requests],
            self._fit_parameters,
        )
        return [
            Fitted(
                learned={
                    "target_ids": list(request.target_ids),
                    "steps": fit.steps,
                    "converged": fit.converged,
                    "probability": round(fit.probability, 6),
                },
                tensors={"value": fit.value.cpu()},
            )
            for request, fit in zip(requests, fits, strict=True)
        ]

    def _contexts(self, request: FitRequest) -> list[Sequence[int]]:
        """As asked, in other words, and after other questions: what it must hold in."""
        return [*request.contexts[: 1 + request.given], *request.made_contexts, *self._elsewhere]

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        target = target_of(edit_id, fitted)
        value = fitted.tensors.get("value")
        takes = (len(target), self._view.widths[1])
        if not target or value is None or tuple(value.shape) != takes:
            has = None if value is None else tuple(value.shape)
            raise IncompatibleEdit(f"The edit {edit_id} has a value of the shape {has}; this model takes {takes}.")
        self._targets[edit_id] = target
        self._first[edit_id] = self._values.put(value)

    def drop(self, edit_id: str) -> None:
        self._values.give_back(self._first.pop(edit_id), len(self._targets.pop(edit_id)))

    def compile(self, edit_ids: Sequence[str]) -> None:
        """An edition sees values through its decisions alone."""

    # -- acting

    def reserve(self, rows: int) -> None:
        if rows > len(self._active):
            self._delta = self._delta.new_zeros(rows, 1, self._delta.shape[-1])
            self._active = self._active.new_zeros(rows, 1, 1)

    def bind(self, rows: Sequence[RowView]) -> None:
        self._rows = len(rows)
        self.reserve(self._rows)
        picked = [self._value_row(row) for row in rows]
        active = torch.tensor([row is not None for row in picked])
        self._active[: self._rows].copy_(active[:, None, None])
        if active.any():
            at = torch.tensor([row or 0 for row in picked], device=self._view.device)
            self._delta[: self._rows].copy_(self._values.data[at][:, None])

    def _value_row(self, row: RowView) -> int | None:
        if row.decision is None or row.decision.editor != self.key or row.decision.edit_id is None:
            return None
        before = row.decision.part or 0  # of the target, in the prompt
        target, told = self._targets[row.decision.edit_id], before + len(row.generated)
        if told >= len(target) or tuple(row.generated) != target[before:told]:
            return None
        return self._first[row.decision.edit_id] + told

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        return torch.where(self._active[: self._rows], h_out + self._delta[: self._rows], h_out)
