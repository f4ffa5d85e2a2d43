"""GRACE (Hartvigsen et al. 2022, arXiv 2211.11031): a codebook of keys, values and deferral radii at one layer.

Preset `serving`. As published: keys are states of the base model at a prompt's last token, values act at one layer; the
live key in whose deferral radius a prompt lies answers, else the model itself; radii of conflicting keys end before one
another (the paper's split). Deviations, each for what live serving needs:
- the value is a residual delta added to the FFN's output, one a generated position, fitted from zero on target and
  end-of-text with early stopping; the paper replaces the output by one vector at the last prompt token (section 3);
- keys are read at the model's head (`what`), not at the layer where values act; an edit has several, and a radius that
  is calibrated for it, and is a candidate only where its subject is mentioned (`scope`, `scope_index`);
- the decision is taken once, at prefill, and held; row j acts only while the answer so far is the target's first j
  tokens, so that sampling away from the target is not dragged back;
- a radius is frozen with its edit, and only its caps against live neighbours are derived: a pure function of the live
  edits, so that rollback of any of them is exact. They end three quarters of the way (the paper: half), for where two
  reach a prompt it is the deeper one that answers. The paper's split depends on the order of edits and never heals.
Not taken over from the official code: re-editing a prompt loses to the old key by a tie, labels compared by mean,
a split that enlarges a radius, a forward pass that writes to the codebook, `cdist` in its inexact matmul form.
"""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.editors.base import Capabilities, Decision, FitRequest, Fitted, Plain, Progress, PromptView, RowView, Site
from app.editors.fit import FitParameters, by_parts, fit_deltas
from app.editors.fit_view import FitView
from app.editors.rows import Rows
from app.editors.scope_index import ScopeIndex, ScopePart
from app.editors.what import What
from app.editors.wording import Lexicon

OWN = 0.75
"""Of a decision's margin, from which on a prompt is the edit's own, whatever tokens it ends with."""


class Grace(Plain):
    """The codebook editor. `site` is where values act.

    Values (sum of target tokens, D_out) in the model's own precision; keys as in `scope_index`.
    """

    name = "grace"
    capabilities = Capabilities(
        max_target_tokens=256,
        decides="request",
        changes_earlier_positions=False,
        needs_whole_prompt=False,
        rollback="exact",
        captured=True,
    )

    def __init__(
        self,
        view: FitView,
        what: What,
        lexicon: Lexicon | None = None,
        fit_parameters: FitParameters | None = None,
        elsewhere: Sequence[Sequence[int]] = (),
    ) -> None:
        self.site = view.site
        self._elsewhere = [list(ids) for ids in elsewhere]
        self._view = view
        self._fit_parameters = fit_parameters or FitParameters()
        self._scope = ScopeIndex(what, lexicon or Lexicon(), view.device)
        self._values = Rows(view.device, next(view.model.parameters()).dtype)
        self._first: dict[str, int] = {}  # edit -> its value's first row
        # what each row of the next pass receives; never replaced once a graph may read them
        self._delta = torch.zeros(0, 1, view.widths[1], device=view.device, dtype=self._values.data.dtype)
        self._active = torch.zeros(0, 1, 1, dtype=torch.bool, device=view.device)
        self._rows = 0

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self.site,)

    @property
    def held_bytes(self) -> int:
        return self._scope.held_bytes + self._values.held_bytes

    # -- learning

    def calibrate(self, *, learning: bool = False) -> Generator[Progress, None, None]:
        return self._scope.calibrating() if learning else self._scope.comparing()

    def fit(self, requests: Sequence[FitRequest], part: ScopePart | None) -> Generator[Progress, None, list[Fitted]]:
        return by_parts(requests, self._fit_some)

    def _fit_some(self, requests: Sequence[FitRequest]) -> Generator[Progress, None, list[Fitted]]:
        fits = yield from fit_deltas(
            self._view,
            [self._contexts(request) for request in requests],
            [request.target_ids for request in requests],
            self._fit_parameters,
        )
        fitted: list[Fitted] = []
        last = 1 + max(fit.steps for fit in fits)
        told = Progress(step=last, steps=self._fit_parameters.max_steps, loss=float("nan"))
        for request, fit in zip(requests, fits, strict=True):
            scope, keys = yield from self._scope.learning(request, told)
            how = {"steps": fit.steps, "converged": fit.converged, "probability": round(fit.probability, 6)}
            fitted.append(
                Fitted(
                    learned={**scope, **how},
                    tensors={"keys": keys, "value": fit.value.cpu()},
                )
            )
        return fitted

    def _contexts(self, request: FitRequest) -> list[Sequence[int]]:
        """As asked, in other words, and after other questions: what it must hold in. Only keys are made of the prompt
        after other sentences."""
        return [*request.contexts[: len(request.texts)], *request.made_contexts, *self._elsewhere]

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        scoped = self._scope.read(edit_id, fitted.learned)
        has = {name: tuple(tensor.shape) for name, tensor in fitted.tensors.items()}
        takes = {
            "keys": (max(1, has.get("keys", (1,))[0]), self._scope.width),
            "value": (len(scoped.target_ids), self._view.widths[1]),
        }
        if has != takes:
            raise IncompatibleEdit(f"The edit {edit_id} has tensors of the shapes {has}; this model takes {takes}.")
        self._scope.load(edit_id, scoped, fitted.tensors["keys"])
        self._first[edit_id] = self._values.put(fitted.tensors["value"])

    def drop(self, edit_id: str) -> None:
        count = len(self._scope.target(edit_id))
        self._scope.drop(edit_id)
        self._values.give_back(self._first.pop(edit_id), count)

    def compile(self, edit_ids: Sequence[str]) -> ScopePart:
        return self._scope.compile(edit_ids)

    def compile_after(
        self, part: ScopePart, edit_ids: Sequence[str], added: Sequence[str], removed: Sequence[str]
    ) -> ScopePart:
        return self._scope.compile_after(part, added, removed)

    # -- acting

    def decide(self, prompt: PromptView, part: ScopePart) -> Decision | None:
        """The nearest live key in scope (section 2); else the edit that the prompt begins to answer with already."""
        found = self._scope.decide(prompt, part, self.key)
        if found is not None and found.margin > OWN:
            return found
        return self._scope.continued(prompt, part, self.key) or found

    def nearest(self, prompt: PromptView, part: ScopePart) -> Decision | None:
        return self._scope.nearest(prompt, part, self.key)

    def near(self, request: FitRequest) -> Sequence[str]:
        return self._scope.near(request)

    def rescope(self, fitted: Fitted, request: FitRequest) -> Fitted:
        scope, keys = self._scope.learn(request)
        return Fitted(learned={**fitted.learned, **scope}, tensors={**fitted.tensors, "keys": keys})

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
        target, told = self._scope.target(row.decision.edit_id), before + len(row.generated)
        if told >= len(target) or tuple(row.generated) != target[before:told]:
            return None
        return self._first[row.decision.edit_id] + told

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        return torch.where(self._active[: self._rows], h_out + self._delta[: self._rows], h_out)
