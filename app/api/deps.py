"""Dependencies shared by the routes: who asks, which revision the client has read, and whether it is still connected.
Independent of the use cases and of bodies."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request

from app.api.errors import ClientGone
from app.domain.errors import InvalidRequest
from app.domain.events import Origin
from app.domain.keys import Key, signed
from app.service.log_lines import note
from app.service.supersession import ANY_REVISION

T = TypeVar("T")
MAX_ACTOR_CHARS = 200
MAX_KEY_CHARS = 255
_REVISION = re.compile(r'(?:W/)?"([0-9]{1,18})"|([0-9]{1,18})')


def origin_of(
    request: Request,
    x_errata_actor: Annotated[
        str | None,
        Header(
            description="The person who makes the change, for the audit trail; `anonymous` if left out. Beside a key "
            "it is a claim, and is shown as such: `ci (as ann)`."
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(description="Any text of the client's. The same request under the same key is carried out once."),
    ] = None,
) -> Origin:
    """The origin of a request. Raises InvalidRequest for a header that is too long or not printable."""
    actor = _header("X-Errata-Actor", x_errata_actor, MAX_ACTOR_CHARS)
    key: Key | None = getattr(request.state, "key", None)
    who = (actor or "anonymous") if key is None else signed(key, actor)
    note(actor=who)
    return Origin(
        actor=who,
        key_id=None if key is None else key.id,
        role=None if key is None else key.role.value,
        request_id=request.state.request_id,
        client=None if request.client is None else request.client.host,
        idempotency_key=_header("Idempotency-Key", idempotency_key, MAX_KEY_CHARS) or None,
    )


Asker = Annotated[Origin, Depends(origin_of)]


def read_of(
    if_match: Annotated[
        str | None,
        Header(
            description="The revision that was read, from `ETag` or `X-Errata-Revision`: what has changed since "
            "then is not changed unread (412). `*` accepts any revision."
        ),
    ] = None,
) -> int | None:
    """The revision that the client has read. Raises InvalidRequest for a header that is no revision."""
    if if_match is None:
        return None
    given = if_match.strip()
    if given == "*":
        return ANY_REVISION
    match = _REVISION.fullmatch(given)
    if match is None:
        raise InvalidRequest('The header If-Match must be a revision, such as "7", or *.')
    return int(match[1] or match[2])


def holder_of(request: Request) -> Key | None:
    """The key that the request came with; None if no key is required."""
    key: Key | None = getattr(request.state, "key", None)
    return key


Holder = Annotated[Key | None, Depends(holder_of)]
"""The key against which a route about namespaces checks them (`check_reach`): see `REACHED` in the gate."""

Read = Annotated[int | None, Depends(read_of)]


def because(origin: Origin, reason: str | None, *arguments: object) -> Origin:
    """The origin of a change with its reason and, under an idempotency key, a hash of the request's arguments."""
    digest = None
    if origin.idempotency_key is not None:
        digest = hashlib.sha256(repr(arguments).encode()).hexdigest()
    return replace(origin, reason=reason, digest=digest)


def _header(name: str, value: str | None, max_chars: int) -> str | None:
    if value is None:
        return None
    with suppress(UnicodeError):  # HTTP reads headers as latin-1; most clients write UTF-8
        value = value.encode("latin-1").decode()
    value = value.strip()
    if len(value) > max_chars or not value.isprintable():
        raise InvalidRequest(f"The header {name} must be printable and have at most {max_chars} characters.")
    return value


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of the work. Cancels it and raises ClientGone if the client disconnects first. The body must have been
    read already."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
