"""Promotion: requests for edits of one namespace in another, where each is fitted and verified like any other edit.

Pure functions of the ledger: they build requests, which are then decided like all others.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from app.domain.edit import MAX_BATCH_EDITS, EditRequest, State
from app.domain.entry import Entry
from app.domain.errors import InvalidRequest, StateConflict
from app.domain.events import Origin
from app.domain.ledger import Ledger
from app.service.idempotency import part_of
from app.service.namespaces import check_known

NOBODY = Origin()


def promotable(
    ledger: Ledger,
    source: str,
    to: str,
    edit_ids: Sequence[str] | None,
    configured: Collection[str] = (),
    origin: Origin = NOBODY,
) -> list[Entry]:
    """The edits to promote: those named, in their order, or all live ones of `source`, oldest first, if `edit_ids` is
    None. What was promoted before under the origin's idempotency key is among them, whatever has become of it since: a
    repetition is answered as the first request was.

    Raises UnknownNamespace, UnknownEdit, InvalidRequest or StateConflict for edits that cannot be promoted.
    """
    if source == to:
        raise InvalidRequest("Edits are promoted from one namespace into another: name two.")
    check_known(ledger, source, configured)
    check_known(ledger, to, configured)
    proposed = _proposed_under(ledger, origin)
    if edit_ids is None and proposed:
        edit_ids = proposed
    if edit_ids is None:
        mine = ledger.entries_of(source)
        entries = [e for e in mine if ledger.state(e.edit.id) is State.LIVE or _is_made_under(ledger, origin, e)]
    else:
        if twice := [each for each, count in Counter(edit_ids).items() if count > 1]:
            raise InvalidRequest(f"The edit {twice[0]} is named twice: name it once.")
        entries = [ledger.entry(each) for each in edit_ids]
        for entry in entries:
            _check_source(entry, source)  # first: clients choose their keys, and may use one that looks like a part's
            if entry.edit.id not in proposed and not _is_made_under(ledger, origin, entry):
                _check_live(ledger, entry)
    if not entries:
        raise InvalidRequest(f"No edit is live in the namespace {source}: there is nothing to promote.")
    if len(entries) > MAX_BATCH_EDITS:
        most = f"promote at most {MAX_BATCH_EDITS} at a time, by ids"
        raise InvalidRequest(f"{len(entries)} edits are live in {source}: {most}.")
    return entries


def _proposed_under(ledger: Ledger, origin: Origin) -> list[str]:
    """The edits of which a proposal was made under this idempotency key, in its order."""
    used = ledger.done_under(origin)
    proposal = None if used is None else ledger.approval.made_at(used.revision)
    sources = () if proposal is None else (each.request.promoted_from for each in proposal.edits)
    return [each for each in sources if each is not None]


def _is_made_under(ledger: Ledger, origin: Origin, entry: Entry) -> bool:
    """True if an edit was promoted under this idempotency key, on its own."""
    return ledger.done_under(part_of(origin, entry.edit.id)) is not None


def _check_source(entry: Entry, source: str) -> None:
    if entry.edit.request.namespace != source:
        raise InvalidRequest(f"The edit {entry.edit.id} is of {entry.edit.request.namespace}, not of {source}.")


def _check_live(ledger: Ledger, entry: Entry) -> None:
    edit_id, state = entry.edit.id, ledger.state(entry.edit.id)
    if state is not State.LIVE:
        raise StateConflict(
            f"The edit {edit_id} is {state.value.replace('_', ' ')}: only live edits are promoted.",
            edit_id=edit_id,
            state=state.value,
        )


def promoted(entry: Entry, to: str, reason: str | None, now_s: float) -> EditRequest:
    """The request for the other namespace: the whole request as it is now, including retunes and how far they
    widened its scope, ending at the same time. `force` and `supersede` are cleared, because they concerned its own
    namespace only."""
    ends_s = entry.edit.expires_at_s
    return replace(
        entry.request,
        namespace=to,
        supersede=(),
        force=False,
        reason=reason or entry.request.reason,
        expires_in_s=None if ends_s is None else max(1.0, ends_s - now_s),
        promoted_from=entry.edit.id,
        widen=None if math.isclose(entry.widened, 1.0) else entry.widened,
    )
