"""Export and verification of the log as self-contained JSON lines.

Each line holds everything that its hash covers, so SHA-256 and JSON suffice to check it. `kind`, `prev` and `event` are
the entry's header: serialised again as JSON without spaces, they are byte-identical to it. `payload` holds the learned
tensors in hex, `schema` the number from the entry's prefix, and `hash` the closing hash, which the next line names as
its `prev`. deploy/verify-log.py checks such lines without Errata; `verify` also folds them and compares each event's
recorded effects on other edits with its actual ones.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.domain.errors import ErrataError, StoreCorrupt
from app.domain.events import LivenessChange
from app.domain.ledger import Ledger
from app.store.base import Log
from app.store.codec import GENESIS, Parts, assemble, corrupt, decode, disassemble
from app.store.seal import PLAIN, Seal

FIELDS = frozenset({"schema", "kind", "prev", "event", "payload", "hash"})


@dataclass(frozen=True, slots=True)
class VerifiedAudit:
    """Result of `verify`. `first` and `last` are revisions; `hash` is the last line's, which covers all lines before
    it. `ledger` is the fold of the lines, or None unless they begin at revision 1."""

    first: int
    last: int
    hash: str
    ledger: Ledger | None


def lines(log: Log, after: int) -> Iterator[str]:
    """Yields a line for each entry above `after`, starting at the oldest kept entry. Raises what the log raises."""
    first, head = max(after + 1, log.first()), log.head()
    if first > head:
        return
    prev = log.hash_of(first - 1)
    for revision in range(first, head + 1):
        parts = disassemble(log.entry(revision))
        header = json.loads(parts.header)
        if header["prev"] != prev:
            raise corrupt(revision, "it does not follow the entry before it")
        if canonical_json(header) != parts.header:
            raise corrupt(revision, "it was not written by Errata: its JSON is in another form")
        prev = parts.hash
        # ASCII only: some readers treat certain Unicode characters as line ends
        yield json.dumps({"schema": parts.schema, **header, "payload": parts.payload.hex(), "hash": parts.hash})


def verify(rows: Iterable[str], seal: Seal = PLAIN) -> VerifiedAudit:
    """Verifies exported lines. Raises StoreCorrupt, naming the line, at the first that differs from what was
    exported."""
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
                if isinstance(event, LivenessChange) and (event.revived or event.superseded):
                    whole = ledger.as_recorded(event)
                    if whole != event:
                        raise ValueError("it tells other effects on edits than it has")
                ledger.apply(event)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreCorrupt(f"Line {number} is not what was exported: {error}.", line=number) from error
        except ErrataError as error:
            raise StoreCorrupt(f"Line {number} is not what was exported. {error.message}", line=number) from error
    return VerifiedAudit(first, last, prev, ledger if first == 1 else None)


def canonical_json(header: object) -> bytes:
    """Canonical JSON of an entry's header."""
    return json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()


def _entry_of(row: str) -> tuple[bytes, int, str]:
    """The entry that a line holds, its revision, and the hash that it names as its predecessor's."""
    line = json.loads(row)
    if not isinstance(line, dict) or line.keys() != FIELDS:
        raise ValueError(f"it does not have the fields {', '.join(sorted(FIELDS))}")
    header = canonical_json({name: line[name] for name in ("kind", "prev", "event")})
    parts = Parts(line["schema"], header, bytes.fromhex(line["payload"]), line["hash"])
    return assemble(parts), int(line["event"]["revision"]), str(line["prev"])
