"""uvicorn's server without its signal handlers: the caller decides when it ends and which connections are dropped."""

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


class Server(uvicorn.Server):
    """A server that accepts no new connections once `leave` was called. `serve` returns when the last one is closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @property
    def open_requests(self) -> int:
        """The number of requests that are being read or answered."""
        return len(self.server_state.tasks)

    def leave(self) -> None:
        self.should_exit = True

    def drop_connections(self) -> None:
        """Close the remaining connections, such as those of clients that do not read their answers."""
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
