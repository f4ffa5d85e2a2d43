"""Repeated requests: under an idempotency key, or by the very same content. Does not import torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from app.domain.edit import EditRequest, State
from app.domain.events import Origin
from app.service.records import Records
from app.service.views import EditResult, EditResults


def digest_of(requests: Sequence[EditRequest], batch: bool, target: str = "") -> str:
    """A digest that distinguishes a repeated request from another one under the same idempotency key. `target` is the
    id of the existing object that the request changes, if any."""
    marks = "".join(request.digest() for request in requests) + str(batch) + target
    return hashlib.sha256(marks.encode()).hexdigest()


def known_under(records: Records, origin: Origin) -> EditResults | None:
    """The results made under this idempotency key before, if any."""
    done = records.done_under(origin)
    if done is None:
        return None
    ids = [i for i in done.edit_ids if records.ledger.entry(i).committed_at == done.revision]
    return EditResults(results=tuple(existing(records, i) for i in ids), revision=done.revision)


def already_live(records: Records, requests: Sequence[EditRequest]) -> EditResults | None:
    """The live edits, if everything that is asked for is live already; otherwise None."""
    twins = [twin_of(records, request) for request in requests]
    if any(twin is None for twin in twins):
        return None
    found = tuple(existing(records, twin) for twin in twins if twin)
    return EditResults(results=found, revision=records.revision)


def twin_of(records: Records, request: EditRequest) -> str | None:
    """The id of a live edit that is identical. A request that expires has none, because its time starts anew."""
    if request.expires_in_s is not None:
        return None
    ids = records.ledger.with_prompt(request.namespace, request.prompt, State.LIVE)
    asked = {
        # its origin and its reason do not affect what it does
        i: replace(records.ledger.entry(i).request, reason=request.reason, promoted_from=request.promoted_from)
        for i in ids
    }
    return next((i for i, stands in asked.items() if stands == request), None)


def existing(records: Records, edit_id: str) -> EditResult:
    """An existing edit, as the answer to a repeated request."""
    view = records.view(edit_id)
    return EditResult(view=view, seconds=dict(view.edit.report.get("seconds", {})), created=False)
