"""From a verified draft to an event in the log. Exactly what was verified goes live."""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.domain.edit import Edit, EditRequest
from app.domain.errors import LostRace, StateConflict
from app.domain.events import BatchCommitted, EditCommitted, EditStaged, Event, Origin
from app.editors.base import Fitted
from app.editors.packing import finite, pack
from app.engine.editions import SILENT_IN, Edition
from app.service.pins import Pins
from app.service.records import Clock, Records
from app.service.verification import Verdict
from app.service.views import EditView, OnProgress, kept_report, silent, token_diff

REPORTED = ("steps", "converged", "probability", "neurons")
"""The facts about a fit that the report contains."""


@dataclass(slots=True)
class EditDraft:
    """An edit in the making: the edits that it will supersede, its fit and its measurements."""

    id: str
    request: EditRequest
    editor: str
    """The editor with its preset, as the engine knows it."""
    origin: Origin
    dry_run: bool = False
    place: int | None = None
    """Its index in the batch, from 0."""
    read: int | None = None
    """The revision that the requester has read, if given."""
    tell: OnProgress = silent
    conflicts: tuple[str, ...] = ()
    """The conflicting edits, which a preview reports and a commit refuses."""
    supersedes: tuple[str, ...] = ()
    before: str | None = None
    """The prompt's answer at the revision `seen`, to which `supersedes` also refers; None until it is generated."""
    answering: list[tuple[str, ...]] = field(default_factory=list)
    """The ids of the live edits that then answered its prompt, and each of its paraphrases."""
    seen: int = -1
    fitted: Fitted | None = None
    verdict: Verdict | None = None
    further: list[str] = field(default_factory=list)
    """The editors that may still try if this one's edit does not hold."""
    tried: list[dict[str, Any]] = field(default_factory=list)
    """The editors whose edit did not hold, with its problems and its cost."""
    cost_s: float = 0.0
    """The time that fitting and verifying with `editor` took, in seconds; for a batch, that of the whole batch."""

    def diverged(self) -> bool:
        """True if the fit produced numbers that are not finite."""
        assert self.fitted is not None
        scalars = [value for value in self.fitted.learned.values() if isinstance(value, float)]
        return not (all(map(math.isfinite, scalars)) and finite(self.fitted.tensors.values()))

    def attempts(self) -> list[dict[str, Any]]:
        """All attempts, for the report; the last one is the one that holds, or that failed last."""
        problems = self.verdict.problems if self.verdict is not None else ()
        last = {"editor": self.editor, "problems": list(problems), "seconds": round(self.cost_s, 4)}
        return [*self.tried, last]


def silenced(fitted: Fitted, frames: Sequence[str]) -> Fitted:
    """The fit, marked with the frames in which it must not answer."""
    learned = {name: value for name, value in fitted.learned.items() if name != SILENT_IN}
    return Fitted(learned={**learned, SILENT_IN: list(frames)} if frames else learned, tensors=fitted.tensors)


def hand_over(leaving: EditDraft, staying: Sequence[EditDraft]) -> None:
    """Pass the tensors that a draft holds for those that share them on to one of the drafts that stay."""
    assert leaving.fitted is not None
    if not leaving.fitted.learned.get("brings"):
        return
    for draft in staying:
        assert draft.fitted is not None
        if draft.fitted.learned.get("shared") == leaving.fitted.learned["shared"]:
            tensors = {**leaving.fitted.tensors, **draft.fitted.tensors}
            draft.fitted = Fitted(learned={**draft.fitted.learned, "brings": True}, tensors=tensors)
            return


def preview_of(edit: Edit, draft: EditDraft, stands: str | None) -> EditView:
    """The view of an edit that would be committed, with the objections to it and the change of the answer. Nothing
    would be committed if an identical edit `stands`."""
    assert draft.verdict is not None
    objections = {
        "would_commit": (draft.verdict.passed or draft.request.force) and not draft.conflicts and stands is None,
        "problems": list(draft.verdict.problems),
        "conflicts": list(dict.fromkeys((*draft.conflicts, *draft.verdict.overruns))),
        "diff": token_diff(edit.before, edit.after),
    }
    if stands is not None:
        objections["stands_already"] = stands
    return EditView.preview(replace(edit, report={**edit.report, **objections}), draft.origin)


def scope_facts(learned: Mapping[str, Any]) -> dict[str, Any]:
    """The report's facts about a learned scope: its bound, the share of other questions that it is expected to answer,
    the number of questions behind that share, and the near misses that narrowed it."""
    scope = learned.get("scope")
    if scope is None:
        return {}
    facts = {name: scope[name] for name in ("bound", "rate", "rests_on", "names")}
    return {"scope": {**facts, "narrowed_by": scope["misses"]}}


def new_id() -> str:
    return f"ed_{uuid.uuid4().hex[:16]}"


class Committer:
    """Appends verified drafts. To be used only under the records' `writing`."""

    def __init__(self, records: Records, pins: Pins, fingerprints: Mapping[str, str], clock: Clock) -> None:
        self._records, self._pins = records, pins
        self._fingerprints = fingerprints
        self._clock = clock

    def edit_of(self, draft: EditDraft, seconds: dict[str, float]) -> Edit:
        """The edit that a draft becomes, with the measurements of its making."""
        assert draft.fitted is not None
        assert draft.verdict is not None
        now = self._clock()
        expires_in = draft.request.expires_in_s
        report: dict[str, Any] = {
            **kept_report(draft.verdict.report, whole=draft.dry_run),
            "tried": draft.attempts(),
            "fit": {k: draft.fitted.learned[k] for k in REPORTED if k in draft.fitted.learned},
            **scope_facts(draft.fitted.learned),
            "seconds": {phase: round(value, 4) for phase, value in seconds.items()},
        }
        return Edit(
            id=draft.id,
            request=draft.request,
            editor=draft.editor.partition("/")[0],
            created_at_s=now,
            expires_at_s=None if expires_in is None else now + expires_in,
            supersedes=draft.supersedes,
            model_fingerprint=self._fingerprints[draft.editor],
            before=draft.before or "",
            after=draft.verdict.after,
            report=report,
            learned=dict(draft.fitted.learned),
            tensors=pack(draft.fitted.tensors),
        )

    async def commit(self, edits: list[Edit], bases: Mapping[str, Edition], origin: Origin, *, batch: bool) -> None:
        """Append the edits. A batch is staged edit by edit and live from its closing event. Raises LostRace if `bases`
        have changed."""
        reasons = {edit.request.reason for edit in edits}
        reason = origin.reason or (reasons.pop() if len(reasons) == 1 else None)  # each staged edit has its own
        if not batch:
            await self._append(EditCommitted, bases, replace(origin, reason=reason), edit=edits[0])
            return
        batch_id = f"ba_{uuid.uuid4().hex[:16]}"
        for edit in edits:
            staged = replace(origin, reason=edit.request.reason or reason, idempotency_key=None, digest=None)
            await self._append(EditStaged, bases, staged, batch_id=batch_id, edit=edit)
        edit_ids = tuple(edit.id for edit in edits)
        await self._append(BatchCommitted, bases, replace(origin, reason=reason), batch_id=batch_id, edit_ids=edit_ids)

    async def _append(self, kind: type[Event], bases: Mapping[str, Edition], origin: Origin, **fields: Any) -> None:
        """Append an event. A base that another edit has changed must be verified again, as exactly what was verified
        goes live."""
        while True:
            changed = [name for name, base in bases.items() if self._pins.current(name).revision != base.revision]
            if changed:
                raise LostRace(f"Other edits of {', '.join(changed)} were committed meanwhile.")
            revision = self._records.revision + 1
            event = kind(revision=revision, at_s=self._clock(), origin=origin, **fields)
            approval = self._records.ledger.approval
            approval.check(event)  # its proposal may have been withdrawn during the fit
            if origin.proposer is None and approval.needs_second_person(bases):
                raise StateConflict(f"Edits of {', '.join(bases)} have come to need a second person: propose it anew.")
            try:
                return await self._records.append(event)
            except LostRace:
                await self._records.catch_up()
