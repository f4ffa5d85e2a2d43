"""Response bodies about edits. Independent of the service."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field

from app.api.schemas.base import Outgoing, utc
from app.domain.edit import State
from app.domain.entry import Touch
from app.domain.events import Origin
from app.engine.controls import plain, shown
from app.service.views import EditResult, EditView


class EditOut(Outgoing):
    """An edit and its state."""

    id: str | None = Field(description="null for a dry run: nothing was committed.")
    revision: int = Field(
        description="Revision of the newest event that touched it; for a dry run, the revision that it was tried on."
    )
    state: State | Literal["preview"]
    editor: str
    preset: str
    namespace: str
    prompt: str
    target: str
    subject: str | None
    aliases: list[str]
    paraphrases: list[str]
    counter_examples: list[str]
    probes: list[str]
    widen: float = Field(description="The factor on its scope's odds that it was made with; `history` has retunes.")
    before: str = Field(description="The answer to the prompt before the edit.")
    after: str = Field(description="The answer to the prompt in the trial before the commit.")
    report: dict[str, Any] = Field(description="The results of the verification.")
    created_at: datetime
    expires_at: datetime | None
    actor: str = Field(description="The person who published it; for a proposal, the person who approved it.")
    proposed_by: str | None = Field(description="The person who proposed it, if a second person approved it.")
    proposal: str | None = Field(description="The proposal that it was.")
    reason: str | None
    metadata: dict[str, Any]
    supersedes: list[str]
    promoted_from: str | None = Field(description="The edit, in another namespace, that it was made of.")
    hits: int = Field(
        description="Answers it gave, over all servers and restarts; each server reports its own every 10 s."
    )
    last_hit_at: datetime | None
    not_given: int = Field(description="Answers in its scope that did not say its target; counted as hits are.")
    live: list[tuple[int, int | None]] = Field(description="Intervals [from, to) of revisions in which it is live.")

    @classmethod
    def of(cls, view: EditView, **given: Any) -> Self:
        request, proposer = view.edit.request, view.origin.proposer
        fields: dict[str, Any] = {
            "prompt": plain(request.prompt),
            "paraphrases": shown(request.paraphrases),
            "counter_examples": shown(request.counter_examples),
            "probes": shown(request.probes),
            "widen": 1.0 if request.widen is None else request.widen,
            "report": shown(view.edit.report),
            "actor": view.origin.actor,
            "proposed_by": None if proposer is None else proposer.actor,
            "proposal": None if proposer is None else proposer.proposal_id,
            "reason": view.origin.reason if view.origin.reason is not None else request.reason,
            "last_hit_at": None if view.last_hit_s is None else utc(view.last_hit_s),
        }
        return cls.like(view, view.edit, request, **fields | given)


class MadeEdit(EditOut):
    """An edit, as the request that made it is answered."""

    seconds: dict[str, float] = Field(description="Seconds that its fit, verification and commit took.")

    @classmethod
    def of_result(cls, result: EditResult, *, dry_run: bool, revision: int) -> "MadeEdit":
        tried = {"id": None, "state": "preview", "revision": revision} if dry_run else {}
        return cls.of(result.view, seconds=result.seconds, **tried)


class FailedEdit(Outgoing):
    index: int = Field(description="Its place in the batch, from 0.")
    problem: dict[str, Any] = Field(description="The problem that POST /edit would have answered to this edit alone.")


class MadeEdits(Outgoing):
    edits: list[MadeEdit]
    revision: int
    failures: list[FailedEdit] = Field(
        default=[], description="The edits of a batch with `atomic: false` that were not made."
    )


class HistoryOut(Outgoing):
    """One event of an edit's life."""

    revision: int
    kind: str
    at: datetime
    actor: str
    key_id: str | None
    role: str | None
    reason: str | None
    request_id: str | None
    client: str | None
    proposal: str | None = None
    proposed_by: str | None = Field(
        default=None, description="The person who proposed a publication that the actor approved."
    )
    by: str | None = Field(
        default=None, description="The edit whose event it was, where another one superseded or revived this one."
    )
    changed: dict[str, Any] | None = Field(default=None, description="The texts that a retune added, by kind.")

    @classmethod
    def of(cls, item: Touch, **given: Any) -> Self:
        return cls.like(item, **origin_fields(item.origin), **given)


def origin_fields(origin: Origin) -> dict[str, str | None]:
    """The person, reason and client of a change. The idempotency key is the client's own and is not shown to others."""
    by: dict[str, str | None] = {}
    if origin.proposer is not None:
        by = {"proposal": origin.proposer.proposal_id, "proposed_by": origin.proposer.actor}
    return by | {
        "actor": origin.actor,
        "key_id": origin.key_id,
        "role": origin.role,
        "reason": origin.reason,
        "request_id": origin.request_id,
        "client": origin.client,
    }


class NeighbourOut(Outgoing):
    id: str
    prompt: str
    target: str


class EditDetail(EditOut):
    """An edit with every event that touched it, and the live edits nearest to it."""

    history: list[HistoryOut]
    neighbours: list[NeighbourOut] = Field(description="Live edits that are about the same, the newest first.")
    hits_by_day: list[int] = Field(description="Hits on each of the last 90 days (UTC), today last; counted as `hits`.")

    @classmethod
    def detailed(cls, view: EditView, neighbours: Sequence[EditView], by_day: list[int]) -> "EditDetail":
        history = [HistoryOut.of(item, changed=shown(item.changed) or None) for item in view.history]
        others = [
            NeighbourOut(id=v.edit.id, prompt=plain(v.edit.request.prompt), target=v.edit.request.target)
            for v in neighbours
        ]
        return cls.of(view, history=history, neighbours=others, hits_by_day=by_day)


class EditPage(Outgoing):
    """Edits, newest first."""

    edits: list[EditOut]
    next_cursor: str | None


class ChangedEdits(Outgoing):
    """The edits that one event changed (or would change, in a dry run), and the server's revision after it."""

    edits: list[EditOut]
    revived: list[EditOut] = Field(
        default=[], description="Edits that answer again, because what superseded them was rolled back."
    )
    dry_run: bool = False
    revision: int
