"""Repeated requests: under an idempotency key, or by the very same content. Does not import torch."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.domain.edit import EditRequest, State
from app.domain.events import Origin
from app.service.records import Records
from app.service.views import EditResult, EditResults


def digest_of(requests: Sequence[EditRequest], batch: bool, target: str = "") -> str:
    """A digest that distinguishes a repeated request from another one under the same idempotency key. `target` is the
    id of the existing object that the request changes, if any."""
    marks = "".join(request.digest() for request in requests) + str(batch) + target
    return hashlib.sha256(marks.encode()).hexdigest()


def part_of(origin: Origin, part: int | str) -> Origin:
    """The origin of one edit of a batch whose edits are made each on its own, under an idempotency key of its own.
    `part` is its index, or the edit that it is promoted from: the index of a promoted one changes with the live
    edits."""
    key = origin.idempotency_key
    return replace(origin, idempotency_key=None if key is None else f"{key}/{part}")


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
    results = tuple(existing(records, twin) for twin in twins if twin)
    return EditResults(results=results, revision=records.revision)


def twin_of(records: Records, request: EditRequest) -> str | None:
    """The id of a live edit that is identical; for a promoted one, also in how far its scope is widened. A request that
    expires has none, because its time starts anew."""
    if request.expires_in_s is not None:
        return None
    is_promoted = request.promoted_from is not None
    # its origin and its reason do not affect what it does; a promoted one is to reach as far as its scope reaches now
    names = ("reason", "promoted_from", "widen") if is_promoted else ("reason", "promoted_from")
    for edit_id in records.ledger.with_prompt(request.namespace, request.prompt, State.LIVE):
        entry = records.ledger.entry(edit_id)
        reaches = not is_promoted or math.isclose(entry.widened, request.widen or 1.0)
        # a copy of the new request, as the live request may be wider than one that is not promoted may be
        same: dict[str, Any] = {name: getattr(entry.request, name) for name in names}
        if reaches and replace(request, **same) == entry.request:
            return edit_id
    return None


def existing(records: Records, edit_id: str) -> EditResult:
    """An existing edit, as the answer to a repeated request."""
    view = records.view(edit_id)
    return EditResult(view=view, seconds=dict(view.edit.report.get("seconds", {})), created=False)
