"""Creating and revoking API keys, as events in the log, known to every server and to the audit."""

from collections.abc import Sequence

from app.domain.edit import NAMESPACE, NAMESPACE_RULE
from app.domain.errors import InvalidRequest
from app.domain.events import Event, KeyCreated, KeyRevoked, Origin
from app.domain.keys import Key, Role, new_key
from app.service.records import Clock, Records

MAX_NAME_CHARS = 100
MAX_NAMESPACES = 100


class Keyring:
    """The keys of one log. It needs no engine, so that the command line can use it beside a running server."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    async def create(self, role: Role, name: str, origin: Origin, namespaces: Sequence[str] = ()) -> tuple[Key, str]:
        """Create a key; returns it with the text to give to its owner, which cannot be recovered later. `namespaces`
        are those that it opens; none means all.

        Raises InvalidRequest for a name that cannot identify one person in the audit (taken, empty or unreadable), and
        for invalid namespaces.
        """
        names = tuple(dict.fromkeys(namespaces))
        if len(names) > MAX_NAMESPACES or any(not NAMESPACE.fullmatch(each) for each in names):
            raise InvalidRequest(f"A key is for at most {MAX_NAMESPACES} namespaces, each of {NAMESPACE_RULE}.")
        name = name.strip()
        if not name or len(name) > MAX_NAME_CHARS or not name.isprintable() or any(each in name for each in "()"):
            raise InvalidRequest(
                f"The name of a key has 1 to {MAX_NAME_CHARS} printable characters, and no parentheses: it stands in "
                f"the audit for whose key it is."
            )
        key, text = new_key(role, name, self._clock(), names)

        def created() -> Event:
            self._records.ledger.check_key_name(name)
            return KeyCreated(
                revision=self._records.revision + 1,
                at_s=key.created_at_s,
                origin=origin,
                key_id=key.id,
                name=key.name,
                role=key.role.value,
                secret_sha256=key.secret_sha256,
                namespaces=key.namespaces,
            )

        await self._records.write(created)
        return key, text

    async def revoke(self, key_id: str, origin: Origin) -> Key:
        """Revoke a key: from its event on every server refuses it. Raises UnknownKey or StateConflict."""

        def revoked() -> Event:
            key = self._records.ledger.check_revoke(key_id)
            return KeyRevoked(
                revision=self._records.revision + 1,
                at_s=self._clock(),
                origin=origin,
                key_id=key_id,
                name=key.name,
                role=key.role.value,
            )

        await self._records.write(revoked)
        return self._records.ledger.keys[key_id]
