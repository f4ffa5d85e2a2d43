"""A verified draft becomes an event in the log. Exactly what was verified goes live."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.domain.edit import Edit
from app.domain.errors import LostRace, StateConflict
from app.domain.events import BatchCommitted, EditCommitted, EditStaged, Event, Origin
from app.editors.packing import pack
from app.engine.editions import Edition
from app.service.edit_draft import EditDraft
from app.service.pins import Pins
from app.service.records import Clock, Records
from app.service.views import EditView, kept_report, token_diff

REPORTED = ("steps", "converged", "probability", "neurons")
"""The facts about a fit that the report contains."""


def preview_of(edit: Edit, draft: EditDraft, already_live: str | None) -> EditView:
    """The view of an edit that would be committed, with the objections to it and the change of the answer. Nothing
    would be committed if an identical edit is live, as `already_live` says."""
    objections = {
        "would_commit": (draft.verdict.passed or draft.request.force)
        and not draft.around.conflicts
        and already_live is None,
        "problems": list(draft.verdict.problems),
        "conflicts": list(dict.fromkeys((*draft.around.conflicts, *draft.verdict.overruns))),
        "diff": token_diff(edit.before, edit.after),
    }
    if already_live is not None:
        objections["stands_already"] = already_live
    return EditView.preview(replace(edit, report={**edit.report, **objections}), draft.origin)


def scope_facts(learned: Mapping[str, Any]) -> dict[str, Any]:
    """The report's facts about a learned scope: its bound, the share of other questions that it is expected to answer,
    the number of questions behind that share, and the near misses that narrowed it."""
    scope = learned.get("scope")
    if scope is None:
        return {}
    facts = {name: scope[name] for name in ("bound", "rate", "rests_on", "names")}
    return {"scope": {**facts, "narrowed_by": scope["misses"]}}


class Committer:
    """Appends verified drafts. To be used only under the records' `writing`."""

    def __init__(self, records: Records, pins: Pins, fingerprints: Mapping[str, str], clock: Clock) -> None:
        self._records, self._pins = records, pins
        self._fingerprints = fingerprints
        self._clock = clock

    def edit_of(self, draft: EditDraft, seconds: dict[str, float]) -> Edit:
        """The edit that a draft becomes, with the measurements of its making."""
        now = self._clock()
        expires_in = draft.request.expires_in_s
        report: dict[str, Any] = {
            **kept_report(draft.verdict.report, whole=draft.options.dry_run),
            "tried": draft.reports(),
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
            supersedes=draft.around.supersedes,
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
                raise StateConflict(f"Edits of {', '.join(bases)} now need a second person: propose it again.")
            try:
                return await self._records.append(event)
            except LostRace:
                await self._records.catch_up()
