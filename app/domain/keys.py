"""Keys and roles: who may do what. Secrets never appear here, only their hashes.

A key reads `errata_<id>_<secret>`. The secret is 256 random bits, so a plain SHA-256 of it resists guessing.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.domain.errors import Forbidden

PREFIX = "errata"
_NOBODY = hashlib.sha256(b"nobody").hexdigest()


class Right(StrEnum):
    """A right that a route requires."""

    GENERATE = "generate"
    READ = "read"
    PROPOSE = "propose"
    EDIT = "edit"
    ADMIN = "admin"


class Role(StrEnum):
    """A key's role: a generator generates, a reader audits, a proposer does both and proposes edits, an editor edits
    and approves besides, an admin may do everything."""

    GENERATOR = "generator"
    READER = "reader"
    PROPOSER = "proposer"
    EDITOR = "editor"
    ADMIN = "admin"


RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.GENERATOR: frozenset({Right.GENERATE}),
    Role.READER: frozenset({Right.READ}),
    Role.PROPOSER: frozenset({Right.GENERATE, Right.READ, Right.PROPOSE}),
    Role.EDITOR: frozenset({Right.GENERATE, Right.READ, Right.PROPOSE, Right.EDIT}),
    Role.ADMIN: frozenset(Right),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key without its secret; `secret_sha256` is in hex."""

    id: str
    name: str
    role: Role
    secret_sha256: str
    created_at_s: float
    revoked_at_s: float | None = None
    namespaces: tuple[str, ...] = ()
    """The namespaces that the key opens; an empty set means all."""

    def opens(self, namespace: str | None) -> bool:
        """True if it may see and touch a namespace, or (None) what is of all of them."""
        return not self.namespaces or namespace in self.namespaces


def check_reach(key: Key | None, *namespaces: str | None) -> None:
    """Raises Forbidden for namespaces that the key does not open; None means all of them. Without a key, on a
    server that asks for none, everything is open."""
    for namespace in namespaces:
        if key is not None and not key.opens(namespace):
            what = "all namespaces together" if namespace is None else f"the namespace {namespace!r}"
            raise Forbidden(
                f"This key is for {namespace_names(key.namespaces)}, and this is about {what}: name a namespace that "
                f"the key is for, or use another key.",
                namespaces=list(key.namespaces),
            )


def namespace_names(namespaces: Sequence[str]) -> str:
    """The namespaces of a key, in words."""
    if not namespaces:
        return "all namespaces"
    return f"the namespace{'s' if len(namespaces) > 1 else ''} {', '.join(namespaces)}"


def new_key(role: Role, name: str, now_s: float, namespaces: tuple[str, ...] = ()) -> tuple[Key, str]:
    """A new key, and its text, which is shown to the owner once."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = Key(id=key_id, name=name, role=role, secret_sha256=_hash(secret), created_at_s=now_s, namespaces=namespaces)
    return key, f"{PREFIX}_{key_id}_{secret}"


def signed(key: Key, actor: str | None) -> str:
    """The name under which the audit records a key's user: a claimed actor never appears without the key's name."""
    if not actor or actor == key.name or actor.startswith(f"{key.name} (as "):
        return actor or key.name
    return f"{key.name} (as {actor})"


def key_of(text: str, keys: Mapping[str, Key]) -> Key | None:
    """The unrevoked key that the text denotes, or None. An unknown id and a wrong secret take the same steps, so that
    timing tells nothing."""
    _, _, rest = text.partition("_")
    key_id, _, secret = rest.partition("_")
    key = keys.get(key_id)
    right = hmac.compare_digest(_hash(secret), _NOBODY if key is None else key.secret_sha256)
    if key is None or not right or not text.startswith(f"{PREFIX}_") or key.revoked_at_s is not None:
        return None
    return key


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
