"""Decides which edits a new edit supersedes: its author's own of the same prompt, those that the request names, and
those that its author has read.

Nobody replaces a correction without knowing of it. Does not import torch.
"""

from app.domain.edit import EditRequest, State
from app.domain.entry import NEVER, Entry
from app.domain.errors import InvalidRequest, PreconditionFailed, ScopeConflict, StateConflict
from app.domain.events import Origin
from app.domain.ledger import Ledger

ANY_REVISION = NEVER
"""The value of `If-Match: *`."""
_COMMITTED = tuple(state for state in State if state is not State.STAGED)


def superseded_by(ledger: Ledger, request: EditRequest) -> tuple[str, ...]:
    """The edits of the same prompt, and those that the request names. Raises for names that it may not use.

    A disabled edit is superseded too: enabled again, it would answer beside the newer one.
    """
    for edit_id in request.supersede:
        if ledger.entry(edit_id).edit.request.namespace != request.namespace:
            raise InvalidRequest(f"`supersede` names {edit_id}, which belongs to another namespace: leave it out.")
        if ledger.entry(edit_id).staged_in is not None:
            raise StateConflict(
                f"`supersede` names {edit_id}, which was never committed: leave it out.", edit_id=edit_id
            )
    return tuple(dict.fromkeys((*_same_prompt(ledger, request), *request.supersede)))


def others_of_the_prompt(ledger: Ledger, request: EditRequest, asker: Origin, read: int | None) -> tuple[str, ...]:
    """Edits of the same prompt that belong to other people and that the request does not name.

    `read` is the revision that the requester has read, which includes these edits. Raises PreconditionFailed if an edit
    of the prompt has changed since then.
    """
    if read is not None:
        check_read(ledger, ledger.with_prompt(request.namespace, request.prompt, *_COMMITTED), read)
        if read == ANY_REVISION and not _same_prompt(ledger, request):
            raise PreconditionFailed("`If-Match: *` requires an edit of this prompt, and there is none.")
        return ()
    unnamed = (i for i in _same_prompt(ledger, request) if i not in request.supersede)
    return tuple(i for i in unnamed if not _same_person(author_of(ledger.entry(i)), asker))


def check_read(ledger: Ledger, edit_ids: list[str], read: int | None) -> None:
    """Raises PreconditionFailed if one of the edits has changed since the revision that the requester read."""
    touched = {edit_id: ledger.entry(edit_id).touched_at for edit_id in edit_ids}
    changed = [edit_id for edit_id, at in touched.items() if read is not None and at > read]
    if changed:
        raise PreconditionFailed(
            f"{', '.join(changed)} changed after revision {read}, which `If-Match` names: read it again, and repeat "
            f"the request with the revision that is there now if it is still right. See /help/api#several-people.",
            conflicts=changed,
            revision=max(touched.values()),
        )


def theirs(ledger: Ledger, conflicts: tuple[str, ...]) -> ScopeConflict:
    """The error for an edit that would replace another person's."""
    edits = "; ".join(
        f"{edit_id} ({entry.request.target!r}, by {(author_of(entry).proposer or author_of(entry)).actor})"
        for edit_id in conflicts
        for entry in (ledger.entry(edit_id),)
    )
    return ScopeConflict(
        f"Somebody else's edit of this prompt exists: {edits}. Name it in `supersede`, or send `If-Match` with the "
        f"revision that you have read, to take its place. See /help/api#several-people.",
        conflicts=list(conflicts),
    )


def author_of(entry: Entry) -> Origin:
    """The author of an edit's present form: the person who committed it, or who retuned it last."""
    changed = {revision for revision, *_ in entry.retunes}
    return next((touch for touch in reversed(entry.history) if touch.revision in changed), entry.history[0]).origin


def _same_prompt(ledger: Ledger, request: EditRequest) -> list[str]:
    """Ids of the live and disabled edits of the request's prompt."""
    return ledger.with_prompt(request.namespace, request.prompt, State.LIVE, State.DISABLED)


def _same_person(author: Origin, asker: Origin) -> bool:
    """True if author and requester are the same. A proposed edit belongs to its proposer; its approver counts as
    another."""
    whose = author.proposer or author
    return (whose.key_id, whose.actor) == (asker.key_id, asker.actor)
