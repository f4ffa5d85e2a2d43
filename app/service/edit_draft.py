"""An edit in the making, and what each stage of the making adds to it. Knows no log and no engine."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.edit import EditRequest
from app.domain.events import Origin
from app.editors.base import Fitted
from app.editors.packing import finite
from app.engine.editions import SILENT_IN
from app.service.verification import Verdict
from app.service.views import EditOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The live edits around a draft, at a revision."""

    revision: int = -1
    supersedes: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    """The conflicting edits, which a preview reports and a commit refuses."""
    answering: tuple[str, ...] = ()
    """The ids of the live edits that answer the draft's prompt."""


@dataclass(slots=True)
class Attempt:
    """The attempt of one editor: its fit, and the verdict on it."""

    editor: str
    """The editor with its preset, as the engine knows it."""
    fitted: Fitted | None = None
    verdict: Verdict | None = None
    cost_s: float = 0.0
    """The time that fitting and verifying took, in seconds; for a batch, that of the whole batch."""

    def report(self) -> dict[str, Any]:
        problems = self.verdict.problems if self.verdict is not None else ()
        return {"editor": self.editor, "problems": list(problems), "seconds": round(self.cost_s, 4)}


@dataclass(slots=True)
class EditDraft:
    """An edit in the making."""

    request: EditRequest
    origin: Origin
    attempts: list[Attempt]
    """The attempts so far; all but the last did not hold."""
    options: EditOptions = EditOptions()  # noqa: RUF009 (it is frozen)
    place: int | None = None
    """Its index in the batch, from 0."""
    further: list[str] = field(default_factory=list)
    """The editors that may still try if this one's edit does not hold."""
    id: str = field(default_factory=lambda: new_id())
    around: Surroundings = Surroundings()
    before: str | None = None
    """The prompt's answer at the revision of `around`; None until it is generated."""

    @property
    def attempt(self) -> Attempt:
        return self.attempts[-1]

    @property
    def editor(self) -> str:
        return self.attempt.editor

    @property
    def fitted(self) -> Fitted:
        """The present editor's fit, once there is one."""
        assert self.attempt.fitted is not None
        return self.attempt.fitted

    @property
    def verdict(self) -> Verdict:
        """The verdict on that fit, once it is verified."""
        assert self.attempt.verdict is not None
        return self.attempt.verdict

    def diverged(self) -> bool:
        """True if the fit produced numbers that are not finite."""
        scalars = [value for value in self.fitted.learned.values() if isinstance(value, float)]
        return not (all(map(math.isfinite, scalars)) and finite(self.fitted.tensors.values()))

    def try_next(self) -> None:
        """Begin the next editor's attempt; the fit of the last one is let go."""
        self.attempt.fitted = None
        self.attempts.append(Attempt(self.further.pop(0)))

    def reports(self) -> list[dict[str, Any]]:
        """All attempts, for the report; the last one is the one that holds, or that failed last."""
        return [attempt.report() for attempt in self.attempts]


def silenced(fitted: Fitted, frames: Sequence[str]) -> Fitted:
    """The fit, marked with the frames in which it must not answer."""
    learned = {name: value for name, value in fitted.learned.items() if name != SILENT_IN}
    return Fitted(learned={**learned, SILENT_IN: list(frames)} if frames else learned, tensors=fitted.tensors)


def hand_over(leaving: EditDraft, staying: Sequence[EditDraft]) -> None:
    """Pass the tensors that a draft holds for those that share them on to one of the drafts that stay."""
    if not leaving.fitted.learned.get("brings"):
        return
    for draft in staying:
        if draft.fitted.learned.get("shared") == leaving.fitted.learned["shared"]:
            tensors = {**leaving.fitted.tensors, **draft.fitted.tensors}
            draft.attempt.fitted = Fitted(learned={**draft.fitted.learned, "brings": True}, tensors=tensors)
            return


def new_id() -> str:
    return f"ed_{uuid.uuid4().hex[:16]}"
