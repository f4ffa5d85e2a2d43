"""Keys and roles: who may do what. Pure: a key's secret is never here, only its hash.

A key is `errata_<id>_<secret>`; the secret is 256 random bits, so that a plain SHA-256 of it cannot be guessed from.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PREFIX = "errata"
_NOBODY = hashlib.sha256(b"nobody").hexdigest()


class Right(StrEnum):
    """What a route needs."""

    GENERATE = "generate"
    READ = "read"
    EDIT = "edit"
    ADMIN = "admin"


class Role(StrEnum):
    """What a key may do: a generator asks the model, a reader audits, an editor does both and edits, an admin all."""

    GENERATOR = "generator"
    READER = "reader"
    EDITOR = "editor"
    ADMIN = "admin"


RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.GENERATOR: frozenset({Right.GENERATE}),
    Role.READER: frozenset({Right.READ}),
    Role.EDITOR: frozenset({Right.GENERATE, Right.READ, Right.EDIT}),
    Role.ADMIN: frozenset(Right),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """`secret_sha256` in hex."""

    id: str
    name: str
    role: Role
    secret_sha256: str
    created_at_s: float
    revoked_at_s: float | None = None


def new_key(role: Role, name: str, now_s: float) -> tuple[Key, str]:
    """A key, and the text that its owner is given, once."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = Key(id=key_id, name=name, role=role, secret_sha256=_hash(secret), created_at_s=now_s)
    return key, f"{PREFIX}_{key_id}_{secret}"


def signed(key: Key, actor: str | None) -> str:
    """How the audit names who did something with a key: a name that is only claimed never stands alone."""
    if not actor or actor == key.name or actor.startswith(f"{key.name} (as "):
        return actor or key.name
    return f"{key.name} (as {actor})"


def key_of(text: str, keys: Mapping[str, Key]) -> Key | None:
    """The live key that this text is, if it is one. Takes the same steps for an unknown id as for a wrong secret."""
    _, _, rest = text.partition("_")
    key_id, _, secret = rest.partition("_")
    key = keys.get(key_id)
    right = hmac.compare_digest(_hash(secret), _NOBODY if key is None else key.secret_sha256)
    if key is None or not right or not text.startswith(f"{PREFIX}_") or key.revoked_at_s is not None:
        return None
    return key


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
