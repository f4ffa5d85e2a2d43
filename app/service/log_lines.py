"""The log lines for changes and refusals, and the facts that a request's own line carries. Does not import torch.

Prompts, targets and reasons stay out of log lines: they are in the audit, which requires a key.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from app.domain import events
from app.domain.edit import EditRequest
from app.domain.errors import ErrataError, QueueFull, RequestCancelled, StoreUnavailable
from app.domain.keys import Key
from app.domain.ledger import Ledger
from app.domain.webhooks import server_of
from app.service.edit_history import actor_of
from app.service.views import EditFailure

_log = logging.getLogger(__name__)
MOST_NAMED = 20
"""The most edits that one line names; it gives the number of all."""
NOT_REFUSED = (RequestCancelled, QueueFull, StoreUnavailable)
"""Errors that prevent an edit without any fault of the edit itself."""
DONE = {
    events.EditCommitted: "published",
    events.BatchCommitted: "published",
    events.EditRetuned: "retuned",
    events.EditsRefitted: "refitted",
    events.EditsRolledBack: "rolled back",
    events.EditsDisabled: "disabled",
    events.EditsEnabled: "enabled",
    events.EditsExpired: "expired",
    events.EditProposed: "made",
    events.ProposalRevised: "revised",
    events.ProposalReturned: "sent back",
    events.ProposalWithdrawn: "withdrawn",
    events.ProposalExpired: "expired",
}

_FACTS: ContextVar[dict[str, Any] | None] = ContextVar("facts", default=None)


@contextmanager
def collected() -> Iterator[dict[str, Any]]:
    """Collect the facts noted within this context, also by tasks started in it, until the request's line is written."""
    facts: dict[str, Any] = {}
    token = _FACTS.set(facts)
    try:
        yield facts
    finally:
        _FACTS.reset(token)


def noted(name: str) -> Any:
    """A fact noted for the current request; None if there is none."""
    return (_FACTS.get() or {}).get(name)


def note(**facts: Any) -> None:
    """Note facts for the line of the current request; outside of a request this does nothing. Values of None are
    omitted."""
    noted = _FACTS.get()
    if noted is not None:
        noted.update({name: value for name, value in facts.items() if value is not None})


def edit_fields(edit_ids: Sequence[str]) -> dict[str, Any]:
    """The log fields for edits: `edit` for one; for several `edits`, up to MOST_NAMED of them, and their `count`."""
    if len(edit_ids) < 2:
        return {"edit": edit_ids[0]} if edit_ids else {}
    return {"edits": list(edit_ids[:MOST_NAMED]), "count": len(edit_ids)}


def log_change(event: events.Event, ledger: Ledger, *, here: bool) -> None:
    """Write one line for a change, once the ledger has its event. Events of other servers over the log (`here` is
    false) and parts of a batch are written at debug level only."""
    said, fields = _of(event, ledger)
    fields = {"change": event.kind, "revision": event.revision, **_by(event.origin, ledger.keys), **fields}
    if here:
        note(**{name: value for name, value in fields.items() if name not in ("request_id", "actor", "key")})
    level = logging.INFO if here and not isinstance(event, events.EditStaged) else logging.DEBUG
    _log.log(level, "%s", said, extra={"kind": "change", **fields})


def _of(event: events.Event, ledger: Ledger) -> tuple[str, dict[str, Any]]:
    match event:
        case events.EditCommitted() | events.EditStaged():
            request = event.edit.request
            said = f"Edit {DONE.get(type(event), 'staged')}"
            return said, {"edit": event.edit.id, "namespace": request.namespace, "editor": event.edit.editor_key}
        case events.SwitchSet():
            where = "in all namespaces" if event.namespace is None else f"in the namespace {event.namespace}"
            return f"Edits switched {'on' if event.on else 'off'} {where}", {"namespace": event.namespace}
        case events.ProbesSet():
            return "Probes set", {"namespace": event.namespace, "count": len(event.prompts)}
        case events.PolicySet():
            said = f"A second person {'is' if event.second_person else 'is no longer'} needed"
            return said, {"namespace": event.namespace}
        case events.ProposalEvent():
            names = ledger.approval.proposal(event.proposal_id).namespaces
            fields = {"proposal": event.proposal_id} | ({"namespace": names[0]} if len(names) == 1 else {})
            return f"Proposal {DONE[type(event)]}", fields
        case events.KeyCreated() | events.KeyRevoked():
            done = "created" if isinstance(event, events.KeyCreated) else "revoked"
            return f"Key {done}", {"key_name": event.name, "role": event.role}
        case events.NamespaceSet():
            return "Namespace set up", {"namespace": event.namespace}
        case events.WebhookSet() | events.WebhookRemoved():
            done = "set up" if isinstance(event, events.WebhookSet) else "removed"
            return f"Webhook {done}", {"webhook": event.hook_id, "host": server_of(event.url)}
        case _:
            edit_ids: Sequence[str] = getattr(event, "edit_ids", ())
            spaces = {ledger.entry(each).request.namespace for each in edit_ids}
            said = f"{'Edit' if len(edit_ids) == 1 else f'{len(edit_ids)} edits'} {DONE[type(event)]}"
            return said, edit_fields(edit_ids) | ({"namespace": spaces.pop()} if len(spaces) == 1 else {})


def _by(origin: events.Origin, keys: Mapping[str, Key]) -> dict[str, Any]:
    key = None if origin.key_id is None else keys.get(origin.key_id)
    fields = {
        "actor": actor_of(origin, keys),
        "key": None if key is None else key.name,
        "request_id": origin.request_id,
    }
    if origin.proposer is not None:
        fields |= {"proposal": origin.proposer.proposal_id, "proposed_by": origin.proposer.actor}
    return {name: value for name, value in fields.items() if value is not None}


def log_refusal(
    error: ErrataError, what: str, namespaces: set[str], origin: events.Origin, keys: Mapping[str, Key]
) -> None:
    """Write one line about an edit that does not go live. The error's message is left out, because it quotes
    prompts."""
    said = f"{what} {'not made' if isinstance(error, NOT_REFUSED) else 'refused'}: {type(error).__name__}"
    fields: dict[str, Any] = {"change": "edit_refused", "error": type(error).__name__, **_by(origin, keys)}
    if len(namespaces) == 1:
        (fields["namespace"],) = namespaces
        note(namespace=fields["namespace"])
    if conflicts := error.details.get("conflicts"):
        fields["conflicts"] = list(conflicts)[:MOST_NAMED]
    _log.info("%s", said, extra={"kind": "change", **fields})


@contextmanager
def refusals(
    what: str, requests: Sequence[EditRequest], origin: events.Origin, keys: Mapping[str, Key], *, unless: bool = False
) -> Iterator[list[EditFailure]]:
    """Write a line for each refusal, raised or put into the yielded list; none if `unless`, when nothing was to go
    live."""
    failures: list[EditFailure] = []
    spaces = {request.namespace for request in requests}
    try:
        yield failures
    except ErrataError as error:
        if not unless:
            log_refusal(error, what, spaces, origin, keys)
        raise
    if not unless:
        for failure in failures:
            log_refusal(failure.error, what, {requests[failure.index].namespace}, origin, keys)
