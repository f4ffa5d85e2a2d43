"""The log as lines that prove themselves: each holds all that its hash is of, so that SHA-256 and JSON can check it.

A line is a JSON object. `kind`, `prev` and `event` are the entry's header as it stands in the log: written as JSON
again, without spaces, they are its very bytes. `payload` is what an edit learned, in hex, `schema` the number in the
entry's prefix, `hash` what closes the entry, and what the next line names as its `prev`. deploy/verify-log.py checks
such lines without Errata; `verify` folds them besides, and holds what events say of other edits against what they did.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.domain.errors import ErrataError, StoreCorrupt
from app.domain.events import Turning
from app.domain.ledger import Ledger
from app.store.base import Log
from app.store.codec import GENESIS, Parts, assemble, corrupt, decode, take_apart
from app.store.seal import PLAIN, Seal

FIELDS = frozenset({"schema", "kind", "prev", "event", "payload", "hash"})


@dataclass(frozen=True, slots=True)
class Verified:
    """`first` and `last` are revisions, `hash` that of the last line, which stands for all; `ledger` is what the lines
    make, where they begin at revision 1."""

    first: int
    last: int
    hash: str
    ledger: Ledger | None


def lines(log: Log, after: int) -> Iterator[str]:
    """A line for each entry above `after`, or from the oldest that is kept on. Raises what the log raises."""
    first, head = max(after + 1, log.first()), log.head()
    if first > head:
        return
    prev = log.hash_of(first - 1)
    for revision in range(first, head + 1):
        parts = take_apart(log.entry(revision))
        header = json.loads(parts.header)
        if header["prev"] != prev:
            raise corrupt(revision, "it does not follow the entry before it")
        if dumped(header) != parts.header:
            raise corrupt(revision, "it was not written by Errata: its JSON is in another form")
        prev = parts.hash
        # in ASCII: a text may hold what some readers take for the end of a line
        yield json.dumps({"schema": parts.schema, **header, "payload": parts.payload.hex(), "hash": parts.hash})


def verify(rows: Iterable[str], seal: Seal = PLAIN) -> Verified:
    """Raises StoreCorrupt, naming the line, for the first that is not what was exported."""
    first, last, prev, ledger = 0, 0, GENESIS, Ledger()
    for number, row in enumerate(rows, 1):
        try:
            entry, revision, before = _entry_of(row)
            if not last:
                first, prev = revision, before
            elif revision != last + 1:
                raise ValueError(f"it holds revision {revision}, after {last}: lines are missing, or out of place")
            event, prev = decode(entry, prev, revision, seal)
            last = revision
            if first == 1:
                if isinstance(event, Turning) and (event.revived or event.superseded):
                    whole = ledger.told_whole(event)
                    if whole != event:
                        raise ValueError("it tells other effects on edits than it has")
                ledger.apply(event)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreCorrupt(f"Line {number} is not what was exported: {error}.", line=number) from error
        except ErrataError as error:
            raise StoreCorrupt(f"Line {number} is not what was exported. {error.message}", line=number) from error
    return Verified(first, last, prev, ledger if first == 1 else None)


def dumped(header: object) -> bytes:
    """JSON in the one form that an entry's header has."""
    return json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()


def _entry_of(row: str) -> tuple[bytes, int, str]:
    """The entry that a line holds, its revision, and the hash that it names as that of the entry before."""
    line = json.loads(row)
    if not isinstance(line, dict) or line.keys() != FIELDS:
        raise ValueError(f"it does not have the fields {', '.join(sorted(FIELDS))}")
    header = dumped({name: line[name] for name in ("kind", "prev", "event")})
    parts = Parts(line["schema"], header, bytes.fromhex(line["payload"]), line["hash"])
    return assemble(parts), int(line["event"]["revision"]), str(line["prev"])
