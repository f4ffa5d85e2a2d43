"""A socket proxy that misbehaves on demand: it delays, swallows answers, or holds a connection without a word."""

import socket
import ssl
import threading
import time


class Proxy:
    """A proxy in front of one server on loopback. Settings apply to the bytes that pass from now on."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        """Taken off what comes in."""
        self.delay_s = 0.0
        self.drop_answers = False
        """Requests pass, answers do not: the sender never learns what became of them."""
        self.half_open = False
        """If set, no bytes pass, and no connection is closed."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Breaks every connection."""
        for connection in self._open:
            connection.close()
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                if self._tls is not None:
                    try:
                        near = self._tls.wrap_socket(near, server_side=True)
                    except OSError:  # who does not trust the certificate leaves
                        near.close()
                        continue
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._open += [near, far]
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                time.sleep(self.delay_s)
                if not (self.half_open or (answers and self.drop_answers)):
                    sink.sendall(data)
        except OSError:
            pass
        finally:
            for each in (source, sink):
                each.close()
