"""A time limit on slow clients: a connection whose next request does not send its whole head in time is closed.

uvicorn waits for the head of a request indefinitely, with a file descriptor held. The time for a body is limited by
`middleware`; a client that stops reading holds a socket's buffer and nothing of the model.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0


class Patience(H11Protocol):
    """uvicorn's own protocol with a time limit for heads, for `uvicorn.Config(http=...)`."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._due = self.loop.call_later(HEAD_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._at_ease()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        begun = bool(self.conn.trailing_data[0])
        if self.conn.their_state is not h11.IDLE:
            self._at_ease()
        elif begun and self._due is None:  # the head of a further request; keep-alive limits the wait before it
            self._due = self.loop.call_later(HEAD_S, self._give_up)

    def _give_up(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.close()

    def _at_ease(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
