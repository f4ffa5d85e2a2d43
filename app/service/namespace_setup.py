"""The setting up of namespaces, as an event in the log like any other change, before anything is done in them."""

from app.domain.edit import NAMESPACE, NAMESPACE_RULE
from app.domain.errors import InvalidRequest
from app.domain.events import Event, NamespaceSet, Origin
from app.service.records import Clock, Records

MAX_DESCRIPTION_CHARS = 500


async def set_namespace(records: Records, clock: Clock, namespace: str, description: str, origin: Origin) -> int:
    """Give a namespace a description, replacing any that it had; returns the revision from which on it holds.

    Appends nothing if the description is already in place. Raises InvalidRequest.
    """
    description = description.strip()
    if not NAMESPACE.fullmatch(namespace):
        raise InvalidRequest(f"{namespace!r} is not a name of a namespace: use {NAMESPACE_RULE}.")
    if len(description) > MAX_DESCRIPTION_CHARS or not description.isprintable():
        raise InvalidRequest(
            f"The description of a namespace is one line of at most {MAX_DESCRIPTION_CHARS} printable characters."
        )
    done = 0

    def founded() -> Event | None:
        nonlocal done
        before = records.done_under(origin)
        if before is not None or records.ledger.described.get(namespace) == description:
            done = records.revision if before is None else before.revision
            return None
        done = records.revision + 1
        return NamespaceSet(revision=done, at_s=clock(), origin=origin, namespace=namespace, description=description)

    await records.write(founded)
    return done
