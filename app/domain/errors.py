"""All errors that a caller can cause, as one tree. Each message says what is wrong and what to do about it.

ErrataError
├── InvalidRequest            the request is invalid as it is
├── UnknownEdit               no edit has this id
├── UnknownNamespace          no edit or setting was ever made in a namespace of this name
├── UnknownJob                no job has this id
├── UnknownProposal           no proposal has this id
├── UnknownAnswer             no answer was given lately under this request's id
├── UnknownReport             no reported answer has this id
├── UnknownModel              the named model is not the one this server hosts
├── UnsupportedModel          the model cannot be served or edited, refused at load
├── StateConflict             the edit is not in a state that allows this
├── PreconditionFailed        the resource has changed since the client read it (If-Match)
├── ScopeConflict             the scope overlaps that of another live edit with another target
├── IdempotencyMismatch       the key was used before with another body
├── EditRejected              the fitted edit failed its verification; carries the report
├── Unauthenticated           no key was given, or this server does not know it
├── Forbidden                 the key's role does not allow this
├── RateLimited               the key or address sent too many requests
├── UnknownKey                no key has this id
├── UnknownWebhook            no webhook has this id
├── RevisionGone              the revision is outside the history window
├── RevisionAhead             `min_revision` was not reached in time
├── QueueFull                 too many requests wait
├── RequestCancelled          the client disconnected or the server is stopping
│   └── EngineAway            the program that generates answers was lost, and is being replaced
├── DeadlineExceeded          the request's `timeout` ran out before it ended
├── LostRace                  another writer appended first
├── StoreUnavailable          the log cannot be written now; whether the append succeeded may be unknown
├── StoreCorrupt              the log's bytes differ from what was written
└── IncompatibleEdit          a stored edit belongs to another model, tokenizer or site
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ErrataError(Exception):
    """Base of all errors that a caller can cause. `details` are extra fields for the response."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidRequest(ErrataError): ...


class UnknownEdit(ErrataError): ...


class UnknownNamespace(ErrataError): ...


class UnknownJob(ErrataError): ...


class UnknownProposal(ErrataError): ...


class UnknownAnswer(ErrataError): ...


class UnknownReport(ErrataError): ...


class UnknownModel(ErrataError): ...


class UnsupportedModel(ErrataError): ...


class StateConflict(ErrataError): ...


class PreconditionFailed(ErrataError): ...


class ScopeConflict(ErrataError): ...


class IdempotencyMismatch(ErrataError): ...


class EditRejected(ErrataError): ...


class Unauthenticated(ErrataError): ...


class Forbidden(ErrataError): ...


class RateLimited(ErrataError): ...


class UnknownKey(ErrataError): ...


class UnknownWebhook(ErrataError): ...


class RevisionGone(ErrataError): ...


class RevisionAhead(ErrataError): ...


class QueueFull(ErrataError): ...


class RequestCancelled(ErrataError): ...


class EngineAway(RequestCancelled): ...


class DeadlineExceeded(ErrataError): ...


class LostRace(ErrataError): ...


class StoreUnavailable(ErrataError): ...


class StoreCorrupt(ErrataError): ...


class IncompatibleEdit(ErrataError): ...


@contextmanager
def of_batch(index: int | None) -> Iterator[None]:
    """Adds the item's index in its batch, from 0, to errors raised inside; None: the request is not a batch."""
    try:
        yield
    except ErrataError as error:
        if index is not None:
            error.details.setdefault("index", index)
        raise
