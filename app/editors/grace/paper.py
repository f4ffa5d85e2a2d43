"""GRACE as published (Hartvigsen et al. 2022, arXiv 2211.11031): the preset `paper`, for comparison.

The key is the input of one late down-projection at the prompt's last token. The value replaces the output at the
positions that `replacement` names. Keys are added, split and expanded by the published table (`geometry`). Values are
trained from a random start by Adam, for a fixed number of steps, on the prompt alone. The deferral radius is the only
scope. `GraceOptions` has all of the paper's hyperparameters.

The remaining differences: the target ends with end-of-text, as it is served; and each edit keeps a value of its own,
trained from a random start, even if it shares a key. The newest value acts, where the paper trains the shared value
again. This makes the removal of an edit exact. Defects of the official code that are not reproduced: a prompt that is
edited again loses to its old key by a tie, labels are compared by the mean of their token ids, a split widens a radius,
a forward pass writes to the codebook, a scalar query position is wrong for batches, queries are decided anew at every
generated token, and `cdist` runs in its inexact form.
"""

from collections.abc import Generator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
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
from app.editors.fitting.contexts import collate
from app.editors.fitting.foundation import Foundation
from app.editors.fitting.row_buffer import RowBuffer
from app.editors.fitting.view import FitView, placing
from app.editors.grace.geometry import Geometry, KeyedEdit, Replay


class GraceOptions(BaseModel):
    """The paper's hyperparameters. `radius` is its eps_init. Its decoder models use `replace_last`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    radius: float = Field(default=1.0, gt=0)
    learning_rate: float = Field(default=1.0, gt=0)
    steps: int = Field(default=100, ge=1)
    replacement: Literal["replace_last", "replace_prompt", "replace_all"] = "replace_last"
    value_init: Literal["cold", "warm"] = "cold"
    expand: Literal["coverage", "moving_average"] = "coverage"


class Learned(BaseModel):
    """The fields of `Fitted.learned` that `load` reads. They are validated, because others may write to the log."""

    model_config = ConfigDict(strict=True, frozen=True)

    target_ids: list[int]


def build(foundation: Foundation) -> "GracePaper":
    """Build the editor at the published depth: LLaMA-2's layer 27 of 32."""
    count = foundation.layer_count
    (site,) = foundation.down_sites([min(count - 1, 27 * count // 32)])
    return GracePaper(foundation.view(site), foundation.options.get("grace/paper"))


class GracePaper(Editor):
    """The codebook as published: values (N, D_out) in the model's own precision, queries (D_in,) fp32."""

    name, preset = "grace", "paper"

    def __init__(self, view: FitView, options: GraceOptions | None = None) -> None:
        self.site, self._view = view.site, view
        self.options = options or GraceOptions()
        self.capabilities = Capabilities(
            max_target_tokens=16,
            changes_earlier_positions=self.options.replacement != "replace_last",
            scoped=False,
            rollback="exact",
            order_free=False,
        )
        self._replay = Replay(
            view.widths[0],
            view.device,
            radius=self.options.radius,
            moving_average=self.options.expand == "moving_average",
        )
        self._values = RowBuffer(view.device, next(view.model.parameters()).dtype)
        self._keyed_edits: dict[str, KeyedEdit] = {}
        self._row_of: dict[str, int] = {}
        self._acting: tuple[Tensor, Tensor] | None = None  # values (B, 1, D_out) and replaced positions (B, T) bool

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self.site,)

    @property
    def held_bytes(self) -> int:
        return self._values.held_bytes

    # -- learning

    def fit(self, requests: Sequence[FitRequest], part: Geometry | None) -> Generator[FitProgress, None, list[Fitted]]:
        """Train the values (section 3). Rows do not see one another and Adam works by element, so that a batch gives
        the same values as each edit alone."""
        options, view = self.options, self._view
        batch = collate([r.contexts[:1] for r in requests], [r.target_ids for r in requests], view.device)
        hidden = view.hidden_below(batch.ids)
        queries = view.last_inputs([r.contexts[0] for r in requests])
        last = batch.position[:, 0]
        value = torch.stack([self._random_value(request.seed) for request in requests])
        if options.value_init == "warm":
            value = view.outputs(batch.ids)[torch.arange(len(requests)), last]
        value = value.to(view.device).requires_grad_()
        replaced = self._replaced(torch.arange(batch.ids.shape[1], device=view.device)[None], last[:, None])
        optimiser = torch.optim.Adam([value], lr=options.learning_rate)
        for step in range(options.steps + 1):
            with torch.enable_grad():
                logits = view.logits(batch.ids, hidden, {self.site: placing(value, replaced)}, batch.position)
                nll = F.cross_entropy(logits.flatten(0, 1), batch.target.flatten(), reduction="none")
                by_row = nll.view_as(batch.real).masked_fill(~batch.real, 0.0).sum(1) / batch.real.sum(1)
                loss = by_row.sum()
            yield FitProgress(step=step, steps=options.steps, loss=loss.item())
            if step < options.steps:
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
        correct = ((logits.argmax(-1) == batch.target) | ~batch.real).all(1).tolist()
        lowest = torch.exp(-nll.detach().view_as(batch.real)).masked_fill(~batch.real, 1.0).amin(1).tolist()
        return [
            Fitted(
                learned={
                    "target_ids": list(request.target_ids),
                    "steps": options.steps,
                    "converged": correct[index],
                    "probability": round(lowest[index], 6),
                },
                tensors={"key": queries[index].cpu(), "value": value.detach()[index].cpu()},
            )
            for index, request in enumerate(requests)
        ]

    def _random_value(self, seed: int) -> Tensor:
        """A random value (D_out,), uniform in [0, 1)."""
        return torch.rand(self._view.widths[1], generator=torch.Generator().manual_seed(seed))

    def _replaced(self, positions: Tensor, last: Tensor) -> Tensor:
        """The set S of section 2 as a mask (B, T): `positions` (B, T) that are replaced, given the last token of each
        prompt, `last` (B, 1)."""
        match self.options.replacement:
            case "replace_last":
                return positions == last
            case "replace_prompt":
                return positions < last
            case "replace_all":
                return torch.ones_like(positions + last, dtype=torch.bool)

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        learned = learned_as(Learned, edit_id, fitted)
        d_in, d_out = self._view.widths
        check_shapes(edit_id, fitted, {"key": (d_in,), "value": (d_out,)})
        assert edit_id not in self._keyed_edits, f"{edit_id} is loaded already"
        self._keyed_edits[edit_id] = KeyedEdit(edit_id, fitted.tensors["key"].float(), tuple(learned.target_ids))
        self._row_of[edit_id] = self._values.add(fitted.tensors["value"][None])

    def drop(self, edit_id: str) -> None:
        del self._keyed_edits[edit_id]
        self._values.release(self._row_of.pop(edit_id), 1)

    def compile(self, edit_ids: Sequence[str]) -> Geometry:
        return self._replay([self._keyed_edits[edit_id] for edit_id in edit_ids])

    # -- acting

    def decide(self, prompt: PromptView, part: Geometry) -> Decision | None:
        """Only the nearest key can answer. A query on its radius is inside, because an expansion puts it there (section
        2)."""
        if not part.entries:
            return None
        distance, index = part.nearest(prompt.features[self.site])
        entry = part.entries[index]
        if distance > entry.radius:
            return None
        margin = 1 - distance / entry.radius if entry.radius > 0 else 0.0
        signals = {"distance": Signal(distance, entry.radius)}
        return Decision(edit_id=entry.members[-1], editor=self.key, margin=margin, signals=signals)

    def bind(self, rows: Sequence[RowView]) -> None:
        decisions = [
            row.decision if row.decision is not None and row.decision.editor == self.key else None for row in rows
        ]
        width = max(row.count for row in rows)
        device = self._view.device
        positions = torch.tensor([[row.first + offset for offset in range(width)] for row in rows], device=device)
        last = torch.tensor([[row.prompt_tokens - 1] for row in rows], device=device)
        real = torch.tensor(
            [
                [decision is not None and offset < row.count for offset in range(width)]
                for decision, row in zip(decisions, rows, strict=True)
            ],
            device=device,
        )
        value_rows = [0 if decision is None else self._row_of[decision.edit_id or ""] for decision in decisions]
        values = self._values.data[torch.tensor(value_rows, device=device)]
        self._acting = values[:, None], self._replaced(positions, last) & real

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        if self._acting is None:
            return h_out
        values, replaced = self._acting
        return torch.where(replaced[..., None], values.to(h_out.dtype), h_out)
