"""Which of many live edits a prompt asks for: who it is about, read from its words, and what is asked, from its key.

A prompt is in an edit's scope where it mentions the edit's subject (`scope`) and its key, a base activation at its last
token, lies within the edit's deferral radius (`metric`, `codebook`). Knows nothing of what an edit then does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.editors.base import Decision, FitRequest, PromptView, Site
from app.editors.codebook import Codebook
from app.editors.metric import Metric
from app.editors.scope import MentionIndex, Who, who_of, words_of

SHORTLIST = 8
"""Nearest keys by matrix product whose distance is then computed exactly: the product form loses digits."""


class Scoped(BaseModel):
    """What a stored edit must have learned of its scope. It is read from a log that others may write to."""

    model_config = ConfigDict(strict=True, frozen=True)

    radius: float = Field(ge=0, allow_inf_nan=False)
    bound: float = Field(ge=0, le=1)
    who: list[list[list[str]]]
    target_ids: list[int]


@dataclass(frozen=True, slots=True)
class ScopePart:
    """What an edition sees of the index: live rows -> effective radius and place in its age, oldest first.

    `nameless` are the rows that are found by key alone.
    """

    radii: Mapping[int, float]
    places: Mapping[int, int]
    nameless: Tensor  # (N,) int64


class ScopeIndex:
    """keys (K, D) fp32, whitened, read at one site."""

    def __init__(self, site: Site, metric: Metric, template_words: frozenset[str], device: torch.device) -> None:
        self.site, self.metric = site, metric
        self._template_words = template_words
        self._device = device
        self._book = Codebook(device)
        self._index = MentionIndex()

    @property
    def held_bytes(self) -> int:
        return self._book.held_bytes

    def learn(self, request: FitRequest, own: Tensor, counter: Tensor) -> dict[str, Any]:
        """(R, D) keys of the request's contexts, (C, D) of its counter-examples -> the scalars of its scope."""
        who = who_of(request.texts, request.subject, request.aliases, self._template_words)
        return {
            "radius": self._own_radius(own, counter, who, request),
            "who": [[list(span) for span in spans] for spans in who.alternatives],
            "bound": who.bound,
            "target_ids": list(request.target_ids),
        }

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

    @staticmethod
    def read(edit_id: str, learned: Mapping[str, Any]) -> Scoped:
        """Raises IncompatibleEdit for scalars that cannot be read."""
        try:
            return Scoped.model_validate({name: learned[name] for name in Scoped.model_fields if name in learned})
        except ValidationError as error:
            raise IncompatibleEdit(f"What the edit {edit_id} learned cannot be read: {error}") from error

    def load(self, edit_id: str, scoped: Scoped, key: Tensor) -> None:
        target = tuple(scoped.target_ids)
        who = Who(tuple(tuple(tuple(span) for span in spans) for spans in scoped.who), bound=scoped.bound)
        rivals = [row for row in self._index.overlapping(who) if self._book.target(row) != target]
        row = self._book.add(
            edit_id, key=self.metric(key.to(self._device)), radius=scoped.radius, target=target, rivals=rivals
        )
        self._index.add(row, who)

    def drop(self, edit_id: str) -> None:
        self._index.remove(self._book.remove(edit_id))

    def target(self, edit_id: str) -> tuple[int, ...]:
        return self._book.target(self._book.row(edit_id))

    def compile(self, edit_ids: Sequence[str]) -> ScopePart:
        rows = [self._book.row(edit_id) for edit_id in edit_ids]
        radii = self._book.radii(rows)
        places = {row: place for place, row in enumerate(rows)}
        nameless = [row for row in self._index.nameless if row in radii]
        return ScopePart(radii, places, torch.tensor(nameless, dtype=torch.int64, device=self._device))

    def decide(self, prompt: PromptView, part: ScopePart, editor: str) -> Decision | None:
        """The nearest live key among those whose subject is mentioned; it answers if within its radius.

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
        return Decision(edit_id=self._book.edit_id(row), editor=editor, margin=margin, signals=signals)
