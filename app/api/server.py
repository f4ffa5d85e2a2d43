"""uvicorn's server without its signal handlers: whoever runs it says when it ends, and what may not outlast it."""

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


class Server(uvicorn.Server):
    """It takes no new connection once `leave` was called, and `serve` returns when the last one is closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @property
    def open_requests(self) -> int:
        """Those that are being read or answered."""
        return len(self.server_state.tasks)

    def leave(self) -> None:
        self.should_exit = True

    def drop_connections(self) -> None:
        """Close those that are left, as of clients that do not read what they are sent."""
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
