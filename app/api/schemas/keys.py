"""Request and response bodies for API keys. Independent of the service. A key's secret leaves the server only in the
answer that creates the key."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from app.api.schemas.base import Incoming, Namespace, Outgoing, Reason
from app.domain.keys import Role
from app.service.keyring import MAX_NAME_CHARS, MAX_NAMESPACES


class KeyBody(Incoming):
    """A key to create."""

    role: Annotated[Role, Field(strict=False)] = Field(description="The role, which decides what the key may do.")
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)] = Field(
        description="The holder's name, unique among keys, as the audit shows it."
    )
    namespaces: Annotated[list[Namespace], Field(max_length=MAX_NAMESPACES)] = Field(
        default=[], description="The namespaces that it opens with its role; empty: all."
    )
    reason: Reason | None = None


class KeyOut(Outgoing):
    """A key without its secret, which is not stored anywhere."""

    id: str
    name: str
    role: Role
    namespaces: list[str] = Field(description="The namespaces that it opens; empty: all.")
    created_at: datetime
    revoked_at: datetime | None


class MadeKey(KeyOut):
    key: str = Field(description="The key itself, this once.")


class KeysOut(Outgoing):
    """All keys ever created, oldest first."""

    keys: list[KeyOut]
    revision: int
