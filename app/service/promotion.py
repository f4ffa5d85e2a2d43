"""Promotion: requests for edits of one namespace in another, where each is fitted and verified like any other edit.

Pure functions of the ledger: they build requests, which are then decided like all others.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from app.domain.edit import MAX_BATCH_EDITS, EditRequest, State
from app.domain.entry import Entry
from app.domain.errors import InvalidRequest, StateConflict
from app.domain.ledger import Ledger
from app.service.namespaces import check_known


def promotable(
    ledger: Ledger, source: str, to: str, edit_ids: Sequence[str] | None, configured: Collection[str] = ()
) -> list[Entry]:
    """The edits to promote, oldest first: those named, or all live ones of `source` if `edit_ids` is None.

    Raises UnknownNamespace, UnknownEdit, InvalidRequest or StateConflict for edits that cannot be promoted.
    """
    if source == to:
        raise InvalidRequest("Edits are promoted from one namespace into another: name two.")
    check_known(ledger, source, configured)
    check_known(ledger, to, configured)
    if edit_ids is None:
        ids = [each.edit.id for each in ledger.entries.values() if each.edit.request.namespace == source]
        found = [ledger.entry(each) for each in ids if ledger.state(each) is State.LIVE]
    else:
        found = sorted((ledger.entry(each) for each in dict.fromkeys(edit_ids)), key=lambda entry: entry.order)
        for entry in found:
            _check(ledger, entry, source)
    if not found:
        raise InvalidRequest(f"No edit is live in the namespace {source}: there is nothing to promote.")
    if len(found) > MAX_BATCH_EDITS:
        most = f"promote at most {MAX_BATCH_EDITS} at a time, by ids"
        raise InvalidRequest(f"{len(found)} edits are live in {source}: {most}.")
    return found


def _check(ledger: Ledger, entry: Entry, source: str) -> None:
    edit_id, state = entry.edit.id, ledger.state(entry.edit.id)
    if entry.edit.request.namespace != source:
        raise InvalidRequest(f"The edit {edit_id} is of {entry.edit.request.namespace}, not of {source}.")
    if state is not State.LIVE:
        raise StateConflict(
            f"The edit {edit_id} is {state.value.replace('_', ' ')}: only live edits are promoted.",
            edit_id=edit_id,
            state=state.value,
        )


def promoted(entry: Entry, to: str, reason: str | None, now_s: float) -> EditRequest:
    """The request for the other namespace: the whole request as it stands now, including retunes, ending at the same
    time. `force`, `supersede` and `widen` are cleared, because they concerned its own namespace only."""
    ends_s = entry.edit.expires_at_s
    return replace(
        entry.request,
        namespace=to,
        supersede=(),
        force=False,
        reason=reason or entry.request.reason,
        expires_in_s=None if ends_s is None else max(1.0, ends_s - now_s),
        promoted_from=entry.edit.id,
        widen=None,
    )
