"""What was asked for before: under an idempotency key, or by the very same request. Free of torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from app.domain.edit import EditRequest, State
from app.domain.events import Origin
from app.service.records import Records
from app.service.views import EditResult, EditResults


def digest_of(requests: Sequence[EditRequest], batch: bool, target: str = "") -> str:
    """Tells a request that is repeated under its idempotency key from another one. `target` is the id of what the
    request changes, if it changes anything that is there already."""
    marks = "".join(request.digest() for request in requests) + str(batch) + target
    return hashlib.sha256(marks.encode()).hexdigest()


def known_under(records: Records, origin: Origin) -> EditResults | None:
    """What was made under an Idempotency-Key before, if anything was."""
    done = records.done_under(origin)
    if done is None:
        return None
    ids = [i for i in done.edit_ids if records.ledger.entry(i).committed_at == done.revision]
    return EditResults(results=tuple(existing(records, i) for i in ids), revision=done.revision)


def standing(records: Records, requests: Sequence[EditRequest]) -> EditResults | None:
    """Where all that is asked for is live already."""
    twins = [twin_of(records, request) for request in requests]
    if any(twin is None for twin in twins):
        return None
    found = tuple(existing(records, twin) for twin in twins if twin)
    return EditResults(results=found, revision=records.revision)


def twin_of(records: Records, request: EditRequest) -> str | None:
    """A live edit that asks for the very same. One that expires is made anew, for its time begins anew."""
    if request.expires_in_s is not None:
        return None
    ids = records.ledger.with_prompt(request.namespace, request.prompt, State.LIVE)
    asked = {
        # where it came from, and why, say nothing of what it does
        i: replace(records.ledger.entry(i).request, reason=request.reason, promoted_from=request.promoted_from)
        for i in ids
    }
    return next((i for i, stands in asked.items() if stands == request), None)


def existing(records: Records, edit_id: str) -> EditResult:
    """An edit that was made before, as an answer to whoever asks for it again."""
    view = records.view(edit_id)
    return EditResult(view=view, seconds=dict(view.edit.report.get("seconds", {})), created=False)
