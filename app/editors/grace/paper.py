"""GRACE as published (Hartvigsen et al. 2022, arXiv 2211.11031): preset `paper`, for comparison.

The key is the input of one late down-projection at the prompt's last token, the value replaces its output at the
positions that `replacement` names; keys are added, split and expanded by the published table (`geometry`), values are
trained cold by Adam for a fixed number of steps on the prompt alone, with no scope beyond the deferral radius. All of
the paper's hyperparameters are in `GraceOptions`.

What remains different: the target ends with end-of-text, as it is served; of edits that share a key each has a value of
its own, trained cold, and the newest one's acts, where the paper trains the shared one again: so that taking one out is
exact. Defects of the official code left out: the same prompt edited again loses to its old key by a tie; labels
compared by the mean of their token ids; a split that widens; a forward pass that writes to the codebook; a scalar
query position that is wrong for batches; queries decided anew at every generated token; `cdist` in its inexact form.
"""

from collections.abc import Generator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.editors.base import Capabilities, Decision, FitRequest, Fitted, Plain, Progress, PromptView, RowView, Site
from app.editors.fitting.loop import collate
from app.editors.fitting.row_buffer import Rows
from app.editors.fitting.view import FitView, placing
from app.editors.grace.geometry import Geometry, Recorded, Replay


class GraceOptions(BaseModel):
    """The paper's hyperparameters; `radius` is its eps_init. Decoder LMs are published with `replace_last`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    radius: float = Field(default=1.0, gt=0)
    learning_rate: float = Field(default=1.0, gt=0)
    steps: int = Field(default=100, ge=1)
    replacement: Literal["replace_last", "replace_prompt", "replace_all"] = "replace_last"
    value_init: Literal["cold", "warm"] = "cold"
    expand: Literal["coverage", "moving_average"] = "coverage"


class Learned(BaseModel):
    """What a stored edit must have learned. It is read from a log that others may write to."""

    model_config = ConfigDict(strict=True, frozen=True)

    target_ids: list[int]


class GracePaper(Plain):
    """values (N, D_out) in the model's own precision; queries (D_in,) fp32."""

    name, preset = "grace", "paper"

    def __init__(self, view: FitView, options: GraceOptions | None = None) -> None:
        self.site, self._view = view.site, view
        self.options = options or GraceOptions()
        self.capabilities = Capabilities(
            max_target_tokens=16,
            decides="request",
            changes_earlier_positions=self.options.replacement != "replace_last",
            needs_whole_prompt=False,
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
        self._values = Rows(view.device, next(view.model.parameters()).dtype)
        self._recorded: dict[str, Recorded] = {}
        self._row_of: dict[str, int] = {}
        self._acting: tuple[Tensor, Tensor] | None = None  # values (B, 1, D_out), where (B, T) bool

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self.site,)

    @property
    def held_bytes(self) -> int:
        return self._values.held_bytes

    # -- learning

    def fit(self, requests: Sequence[FitRequest], part: Geometry | None) -> Generator[Progress, None, list[Fitted]]:
        """Section 3. Rows do not see one another and Adam works by element: a batch is each alone."""
        options, view = self.options, self._view
        batch = collate([r.contexts[:1] for r in requests], [r.target_ids for r in requests], view.device)
        hidden = view.hidden_below(batch.ids)
        queries = view.keys([r.contexts[0] for r in requests])
        last = batch.position[:, 0]
        value = torch.stack([self._cold(request.seed) for request in requests])
        if options.value_init == "warm":
            value = view.outputs(batch.ids)[torch.arange(len(requests)), last]
        value = value.to(view.device).requires_grad_()
        where = self._where(torch.arange(batch.ids.shape[1], device=view.device)[None], last[:, None])
        optimiser = torch.optim.Adam([value], lr=options.learning_rate)
        for step in range(options.steps + 1):
            with torch.enable_grad():
                picked = view.logits(batch.ids, hidden, {self.site: placing(value, where)}, batch.position)
                nll = F.cross_entropy(picked.flatten(0, 1), batch.target.flatten(), reduction="none")
                by_row = nll.view_as(batch.real).masked_fill(~batch.real, 0.0).sum(1) / batch.real.sum(1)
                loss = by_row.sum()
            yield Progress(step=step, steps=options.steps, loss=loss.item())
            if step < options.steps:
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        right = ((picked.argmax(-1) == batch.target) | ~batch.real).all(1).tolist()
        least = torch.exp(-nll.detach().view_as(batch.real)).masked_fill(~batch.real, 1.0).amin(1).tolist()
        return [
            Fitted(
                learned={
                    "target_ids": list(request.target_ids),
                    "steps": options.steps,
                    "converged": right[at],
                    "probability": round(least[at], 6),
                },
                tensors={"key": queries[at].cpu(), "value": value.detach()[at].cpu()},
            )
            for at, request in enumerate(requests)
        ]

    def _cold(self, seed: int) -> Tensor:
        """Uniform in [0, 1)."""
        return torch.rand(self._view.widths[1], generator=torch.Generator().manual_seed(seed))

    def _where(self, positions: Tensor, last: Tensor) -> Tensor:
        """The set S of section 2, of positions (B, T) under queries at `last` (B, 1)."""
        match self.options.replacement:
            case "replace_last":
                return positions == last
            case "replace_prompt":
                return positions < last
            case "replace_all":
                return torch.ones_like(positions + last, dtype=torch.bool)

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        try:
            learned = Learned.model_validate({"target_ids": fitted.learned.get("target_ids")})
        except ValidationError as error:
            raise IncompatibleEdit(f"What the edit {edit_id} learned cannot be read: {error}") from error
        d_in, d_out = self._view.widths
        has = {name: tuple(tensor.shape) for name, tensor in fitted.tensors.items()}
        takes = {"key": (d_in,), "value": (d_out,)}
        if has != takes:
            raise IncompatibleEdit(
                f"The edit {edit_id} has tensors of the shapes {has}; the site {self.site} takes {takes}."
            )
        assert edit_id not in self._recorded, f"{edit_id} is loaded already"
        self._recorded[edit_id] = Recorded(edit_id, fitted.tensors["key"].float(), tuple(learned.target_ids))
        self._row_of[edit_id] = self._values.put(fitted.tensors["value"][None])

    def drop(self, edit_id: str) -> None:
        del self._recorded[edit_id]
        self._values.give_back(self._row_of.pop(edit_id), 1)

    def compile(self, edit_ids: Sequence[str]) -> Geometry:
        return self._replay([self._recorded[edit_id] for edit_id in edit_ids])

    # -- acting

    def decide(self, prompt: PromptView, part: Geometry) -> Decision | None:
        """Only the nearest key is asked; on its radius counts as inside, as an expansion leaves it (section 2)."""
        if not part.entries:
            return None
        distance, at = part.nearest(prompt.features[self.site])
        entry = part.entries[at]
        if distance > entry.radius:
            return None
        margin = 1 - distance / entry.radius if entry.radius > 0 else 0.0
        signals = {"distance": Signal(distance, entry.radius)}
        return Decision(edit_id=entry.members[-1], editor=self.key, margin=margin, signals=signals)

    def bind(self, rows: Sequence[RowView]) -> None:
        held = [row.decision if row.decision is not None and row.decision.editor == self.key else None for row in rows]
        width = max(row.count for row in rows)
        device = self._view.device
        positions = torch.tensor([[row.first + at for at in range(width)] for row in rows], device=device)
        last = torch.tensor([[row.prompt_tokens - 1] for row in rows], device=device)
        real = torch.tensor(
            [
                [each is not None and at < row.count for at in range(width)]
                for each, row in zip(held, rows, strict=True)
            ],
            device=device,
        )
        at = torch.tensor([0 if each is None else self._row_of[each.edit_id or ""] for each in held], device=device)
        self._acting = self._values.data[at][:, None], self._where(positions, last) & real

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        if self._acting is None:
            return h_out
        values, where = self._acting
        return torch.where(where[..., None], values.to(h_out.dtype), h_out)
