"""GRACE (Hartvigsen et al. 2022, arXiv 2211.11031): a codebook of keys, values and deferral radii at one layer.

This is the preset `serving`. As published, values act at one layer, an edit that is in scope answers, and any other
prompt is answered by the model itself. The deviations, each for what live serving needs:
- The value is a residual delta that is added to the FFN's output, one row for each generated position. It is fitted
  from zero on the target and end-of-text, with early stopping. The paper replaces the output by one vector at the
  prompt's last token (section 3).
- The distance between states does not decide the scope. The scope index decides it by meaning, for all editors under
  `serving` (app/scope), so that no key and no deferral radius is learned here.
- The decision is taken once, at prefill, and held. Row j acts only while the answer so far equals the first j tokens of
  the target, so that an answer that has left the target is not pulled back.
- Radii are therefore never split and the order of edits does not matter: the rollback of any edit is exact.
Defects of the official code that are not reproduced: a prompt that is edited again loses to its old key by a tie,
labels are compared by their mean, a split enlarges a radius, a forward pass writes to the codebook, and `cdist` runs in
its inexact matrix-product form.
"""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.editors.base import Capabilities, Editor, Extras, FitProgress, FitRequest, Fitted, RowView, Site, target_of
from app.editors.fitting.foundation import Foundation
from app.editors.fitting.loop import fit_deltas, in_batches
from app.editors.fitting.row_buffer import RowBuffer
from app.editors.fitting.value_search import FitParameters
from app.editors.fitting.view import FitView

GENERIC_CONTEXTS = 2
"""The number of generic questions that become contexts of every edit. A paraphrase may lie far from its prompt, and a
value that also holds after unrelated questions holds there too."""


def build(foundation: Foundation) -> "Grace":
    stride = max(1, len(foundation.bank_ids) // GENERIC_CONTEXTS)
    generic = foundation.bank_ids[stride // 2 :: stride][:GENERIC_CONTEXTS]
    return Grace(foundation.shared_view, generic_contexts=generic)


class Grace(Editor):
    """The codebook editor: `site` is where values act, and the buffer holds (sum of target tokens, D_out) values in the
    model's own precision."""

    name = "grace"
    capabilities = Capabilities(
        max_target_tokens=256,
        changes_earlier_positions=False,
        rollback="exact",
        continues=True,
        lookahead=True,
    )

    def __init__(
        self,
        view: FitView,
        fit_parameters: FitParameters | None = None,
        generic_contexts: Sequence[Sequence[int]] = (),
    ) -> None:
        self.site = view.site
        self.extras = Extras(reserve_rows=self._reserve_rows)
        self._generic_contexts = [list(ids) for ids in generic_contexts]
        self._view = view
        self._fit_parameters = fit_parameters or FitParameters()
        self._values = RowBuffer(view.device, next(view.model.parameters()).dtype)
        self._first: dict[str, int] = {}  # edit -> the first row of its value
        self._targets: dict[str, tuple[int, ...]] = {}
        # The deltas of the next pass's rows. A CUDA graph reads these tensors, so that they may grow before it is
        # recorded, but must not be replaced afterwards.
        self._delta = torch.zeros(0, 1, view.widths[1], device=view.device, dtype=self._values.data.dtype)
        self._active = torch.zeros(0, 1, 1, dtype=torch.bool, device=view.device)
        self._acting = self._active, self._delta  # of the next pass: (B, T, 1) and (B, T, D_out)

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self.site,)

    @property
    def held_bytes(self) -> int:
        return self._values.held_bytes

    # -- learning

    def fit(self, requests: Sequence[FitRequest], part: None) -> Generator[FitProgress, None, list[Fitted]]:
        return in_batches(requests, self._fit_batch)

    def _fit_batch(self, requests: Sequence[FitRequest]) -> Generator[FitProgress, None, list[Fitted]]:
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
        """The contexts in which the value must give the target: the prompt, its paraphrases and generic questions."""
        return [*request.contexts[: 1 + request.given], *request.made_contexts, *self._generic_contexts]

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        target = target_of(edit_id, fitted)
        value = fitted.tensors.get("value")
        expected = (len(target), self._view.widths[1])
        if value is None or tuple(value.shape) != expected:
            shape = None if value is None else tuple(value.shape)
            raise IncompatibleEdit(
                f"The edit {edit_id} has a value of the shape {shape}; this model takes the shape {expected}."
            )
        self._targets[edit_id] = target
        self._first[edit_id] = self._values.add(value)

    def drop(self, edit_id: str) -> None:
        self._values.release(self._first.pop(edit_id), len(self._targets.pop(edit_id)))

    def compile(self, edit_ids: Sequence[str]) -> None:
        """Return nothing: an edition sees values only through its decisions."""

    # -- acting

    def _reserve_rows(self, rows: int) -> None:
        if rows > len(self._active):
            self._delta = self._delta.new_zeros(rows, 1, self._delta.shape[-1])
            self._active = self._active.new_zeros(rows, 1, 1)

    def bind(self, rows: Sequence[RowView]) -> None:
        self._reserve_rows(len(rows))
        value_rows = [self._value_rows(row) for row in rows]
        width = max(1, *map(len, value_rows))
        indices = torch.tensor([[*row, *[-1] * (width - len(row))] for row in value_rows], device=self._view.device)
        active, indices = (indices >= 0)[..., None], indices.clamp(min=0)
        if width > 1:  # lookahead, which is part of no CUDA graph
            self._acting = active, self._values.data[indices]
            return
        self._acting = self._active[: len(rows)], self._delta[: len(rows)]
        self._acting[0].copy_(active)
        if any(value_rows):
            self._acting[1].copy_(self._values.data[indices])

    def _value_rows(self, row: RowView) -> range:
        """The indices of the value's rows that act at a row's next positions. None acts after an answer that has left
        the target."""
        if row.decision is None or row.decision.editor != self.key or row.decision.edit_id is None:
            return range(0)
        target, begun = self._targets[row.decision.edit_id], row.decision.begun_tokens
        answered = begun + len(row.generated)
        if tuple(row.generated) != target[begun:answered]:
            return range(0)
        first = self._first[row.decision.edit_id]
        return range(first + answered, first + min(answered + row.count, len(target)))

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        active, delta = self._acting
        return torch.where(active, h_out + delta, h_out)
