"""The effects of a rollback or a switch, before it is made. Changes nothing; does not import torch."""

from collections.abc import Collection, Sequence

from app.domain.errors import InvalidRequest
from app.domain.events import EditsRolledBack, Origin
from app.domain.ledger import Ledger
from app.service.namespaces import check_known
from app.service.records import Records
from app.service.supersession import check_read
from app.service.views import EditView


def since(
    ledger: Ledger, revision: int, namespace: str | None, configured: Collection[str], read: int | None
) -> tuple[str, ...]:
    """The edits of a namespace, or of all (None), that were committed after a revision and are not rolled back.

    Raises UnknownNamespace, InvalidRequest for a revision that does not exist, and PreconditionFailed if an edit has
    changed since the revision that was `read`.
    """
    if not 0 <= revision <= ledger.revision:
        raise InvalidRequest(f"`to_revision` must be from 0 to {ledger.revision}.")
    check_known(ledger, namespace, configured)
    ours = [entry for entry in ledger.entries_of(namespace) if entry.live]
    check_read(ledger, [entry.edit.id for entry in ours], read)
    return tuple(entry.edit.id for entry in ours if entry.live[0][0] > revision and not entry.rolled_back)


def would_roll_back(records: Records, edit_ids: Sequence[str], read: int | None) -> tuple[EditView, ...]:
    """The edits that would be live again. Raises the errors that rolling these back would raise."""
    ledger = records.ledger
    ledger.check(EditsRolledBack, edit_ids)
    check_read(ledger, list(edit_ids), read)
    event = EditsRolledBack(revision=ledger.revision + 1, at_s=0.0, origin=Origin(), edit_ids=tuple(edit_ids))
    recorded = ledger.as_recorded(event)
    assert isinstance(recorded, EditsRolledBack)
    return tuple(map(records.view, recorded.revived))


def check_switch(ledger: Ledger, namespace: str | None, on: bool, configured: Collection[str]) -> None:
    """Raises UnknownNamespace, and StateConflict if the switch is set so already."""
    check_known(ledger, namespace, configured)
    ledger.check_switch(namespace, on)
