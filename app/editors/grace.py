"""GRACE (Hartvigsen et al. 2022, arXiv 2211.11031): a codebook of keys, values and deferral radii at one layer.

Preset `serving`. As published: the key is the input of one FFN at the prompt's last token; the nearest live key answers
if it lies within its deferral radius, else the layer below answers; radii of conflicting keys are halved against one
another (the paper's split). Deviations, each for what live serving needs:
- the value is a residual delta added to the FFN's output, one a generated position, fitted from zero on target and
  end-of-text with early stopping; the paper replaces the output by one vector at the last prompt token (section 3);
- distance is whitened L2, and an edit is a candidate only where its subject is mentioned (`scope`, `metric`);
- the decision is taken once, at prefill, and held; row j acts only while the answer so far is the target's first j
  tokens, so that sampling away from the target is not dragged back;
- a radius is frozen with its edit, and only its caps against live neighbours are derived: a pure function of the live
  edits, so that rollback of any of them is exact. The paper's split depends on the order of edits and never heals.
Not taken over from the official code: re-editing a prompt loses to the old key by a tie, labels compared by mean,
a split that enlarges a radius, a forward pass that writes to the codebook, `cdist` in its inexact matmul form.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.editors.base import Capabilities, Decision, FitRequest, Fitted, Progress, PromptView, RowView, Site
from app.editors.codebook import Codebook
from app.editors.fit import FitParameters, FitView, fit_deltas
from app.editors.metric import Metric
from app.editors.scope import MentionIndex, Who, who_of, words_of

SHORTLIST = 8
"""Nearest keys by matrix product whose distance is then computed exactly: the product form loses digits."""


class Learned(BaseModel):
    """What a stored edit must have learned. It is read from a log that others may write to."""

    model_config = ConfigDict(strict=True, frozen=True)

    radius: float = Field(ge=0, allow_inf_nan=False)
    bound: float = Field(ge=0, le=1)
    who: list[list[list[str]]]
    target_ids: list[int]


@dataclass(frozen=True, slots=True)
class GracePart:
    """What an edition sees of the codebook: live rows -> effective radius and place in its age, oldest first.

    `nameless` are the rows that are found by key alone.
    """

    radii: Mapping[int, float]
    places: Mapping[int, int]
    nameless: Tensor  # (N,) int64


class Grace:
    """The codebook editor. `site` is where keys are read and values act."""

    name = "grace"
    presets: tuple[str, ...] = ("serving",)
    capabilities = Capabilities(
        max_target_tokens=256,
        decides="request",
        changes_earlier_positions=False,
        needs_whole_prompt=False,
        rollback="exact",
    )

    def __init__(
        self,
        view: FitView,
        metric: Metric,
        template_words: frozenset[str] = frozenset(),
        fit_parameters: FitParameters | None = None,
    ) -> None:
        self.site = view.site
        self.metric = metric
        self._view = view
        self._template_words = template_words
        self._fit_parameters = fit_parameters or FitParameters()
        parameter = next(view.model.parameters())
        self._device = parameter.device
        self._book = Codebook(parameter.device, parameter.dtype)
        self._index = MentionIndex()
        self._delta: Tensor | None = None  # (B, 1, D)
        self._active: Tensor | None = None  # (B, 1, 1) bool

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self.site,)

    @property
    def held_bytes(self) -> int:
        return self._book.held_bytes

    # -- learning

    def fit(self, requests: Sequence[FitRequest]) -> Generator[Progress, None, list[Fitted]]:
        fits = yield from fit_deltas(
            self._view,
            [request.contexts for request in requests],
            [request.target_ids for request in requests],
            self._fit_parameters,
        )
        fitted: list[Fitted] = []
        for request, fit in zip(requests, fits, strict=True):
            keys = self._view.keys([*request.contexts, *request.counter_contexts])
            own, counter = keys[: len(request.contexts)], keys[len(request.contexts) :]
            who = who_of(request.texts, request.subject, request.aliases, self._template_words)
            fitted.append(
                Fitted(
                    learned={
                        "radius": self._own_radius(own, counter, who, request),
                        "who": [[list(span) for span in spans] for spans in who.alternatives],
                        "bound": who.bound,
                        "target_ids": list(request.target_ids),
                        "steps": fit.steps,
                        "converged": fit.converged,
                        "probability": round(fit.probability, 6),
                    },
                    tensors={"key": own[0].cpu(), "value": fit.value.cpu()},
                )
            )
        return fitted

    def _own_radius(self, own: Tensor, counter: Tensor, who: Who, request: FitRequest) -> float:
        """The default, widened to the given paraphrases, then narrowed so that no counter-example hits."""
        keys = self.metric(own)
        given = len(request.texts)  # the prompt and its paraphrases; contexts after them are made from these
        distances = (keys[:given] - keys[0]).norm(dim=-1)
        radius = float(max(self.metric.radius, 1.05 * distances.max().item()))
        for text, key in zip(request.counter_examples, self.metric(counter), strict=True):
            if who.share(words_of(text)) >= who.bound:
                radius = min(radius, 0.5 * (key - keys[0]).norm().item())
        return radius

    # -- rows

    def load(self, edit_id: str, fitted: Fitted) -> None:
        try:
            learned = Learned.model_validate(fitted.learned)
        except ValidationError as error:
            raise IncompatibleEdit(f"What the edit {edit_id} learned cannot be read: {error}") from error
        target = tuple(learned.target_ids)
        d_in, d_out = self._view.widths
        takes = {"key": (d_in,), "value": (len(target), d_out)}
        has = {name: tuple(tensor.shape) for name, tensor in fitted.tensors.items()}
        if has != takes:
            raise IncompatibleEdit(
                f"The edit {edit_id} has tensors of the shapes {has}; the site {self.site} takes {takes}."
            )
        who = Who(tuple(tuple(tuple(span) for span in spans) for spans in learned.who), bound=learned.bound)
        rivals = [row for row in self._index.overlapping(who) if self._book.target(row) != target]
        row = self._book.add(
            edit_id,
            key=self.metric(fitted.tensors["key"].to(self._device)),
            value=fitted.tensors["value"],
            radius=learned.radius,
            target=target,
            rivals=rivals,
        )
        self._index.add(row, who)

    def drop(self, edit_id: str) -> None:
        self._index.remove(self._book.remove(edit_id))

    def compile(self, edit_ids: Sequence[str]) -> GracePart:
        rows = [self._book.row(edit_id) for edit_id in edit_ids]
        radii = self._book.radii(rows)
        places = {row: place for place, row in enumerate(rows)}
        nameless = [row for row in self._index.nameless if row in radii]
        return GracePart(radii, places, torch.tensor(nameless, dtype=torch.int64, device=self._device))

    # -- acting

    def decide(self, prompt: PromptView, part: GracePart) -> Decision | None:
        """The nearest live key among those whose subject is mentioned; it answers if within its radius (section 2).

        Of equally near ones, the newest.
        """
        if not part.radii:
            return None
        shares = self._index.mentioned(words_of(prompt.text))
        rows = [row for row in shares if row in part.radii]
        query = self.metric(prompt.features[self.site].to(self._device))
        rows.extend(self._book.shortlist(query, part.nameless, SHORTLIST))
        if not rows:
            return None
        distances = self._book.distances(query, rows)
        distance, _, row = min(
            (distance, -part.places[row], row) for distance, row in zip(distances, rows, strict=True)
        )
        radius = part.radii[row]
        if distance > radius:
            return None
        signals = {
            "distance": Signal(distance, radius),
            "subject": Signal(shares.get(row, 1.0), self._index.bound(row)),
        }
        margin = 1 - distance / radius if radius > 0 else 0.0
        return Decision(
            edit_id=self._book.edit_id(row),
            editor=self.name,
            margin=margin,
            signals=signals,
        )

    def bind(self, rows: Sequence[RowView]) -> None:
        picked = [self._value_row(row) for row in rows]
        if all(at is None for at in picked):
            self._active = self._delta = None
            return
        self._delta = self._book.values([at or 0 for at in picked])[:, None]
        self._active = torch.tensor([at is not None for at in picked], device=self._device)[:, None, None]

    def _value_row(self, row: RowView) -> int | None:
        if row.decision is None or row.decision.editor != self.name:
            return None
        at = self._book.row(row.decision.edit_id)
        target, told = self._book.target(at), len(row.generated)
        if told >= len(target) or tuple(row.generated) != target[:told]:
            return None
        return self._book.first_value(at) + told

    def apply(self, h_in: Tensor, h_out: Tensor) -> Tensor:
        if self._active is None or self._delta is None:
            return h_out
        return torch.where(self._active, h_out + self._delta, h_out)

    def describe(self, learned: Mapping[str, Any]) -> dict[str, Any]:
        """What a person may want to know of an edit's scalars."""
        return {key: learned[key] for key in ("radius", "who", "bound", "steps", "converged", "probability")}
