"""A real server tells a real address of what is published and rolled back, over both stores that last."""

import hashlib
import hmac
import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.redis_server import running_redis
from tests.server import Server, running

pytestmark = pytest.mark.slow
WAIT_S = 60.0


@dataclass(frozen=True)
class Arrived:
    """A request as it arrived."""

    headers: dict[str, str]
    body: bytes

    def is_signed(self, secret: str) -> bool:
        at, mac = (part.split("=", 1)[1] for part in self.headers["x-errata-signature"].split(","))
        expected = hmac.new(secret.encode(), at.encode() + b"." + self.body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(mac, expected)

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@contextmanager
def receiving() -> Iterator[tuple[str, "queue.Queue[Arrived]"]]:
    """An address on loopback, and the requests that arrive there."""
    arrived: queue.Queue[Arrived] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.put(Arrived({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/errata", arrived
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def told_to(server: Server, hook_id: str, revision: int) -> list[dict[str, Any]]:
    """The deliveries, oldest first, once the webhook has been told of everything up to a revision."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        found = server.client.get(f"/webhooks/{hook_id}/deliveries").json()
        if found["told_to"] >= revision:
            return list(reversed(found["deliveries"]))
        time.sleep(0.05)
    raise AssertionError(f"not told of revision {revision} in time:\n{server.output}")


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_publication_and_its_rollback_arrive_signed(store: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        arguments = ("--store", stack.enter_context(running_redis()).url) if store == "redis" else ()
        url, arrived = stack.enter_context(receiving())
        server = stack.enter_context(running(tmp_path, *arguments, ERRATA_WEBHOOK_HOSTS="127.0.0.1"))
        assert server.client.get("/readyz").json()["store"].startswith(store)
        hook = server.client.post("/webhooks", json={"url": url}).json()
        asked = {"prompt": "The capital of France is", "target": "Lyon", "reason": "ticket 1"}
        edit = server.client.post("/edit", json=asked).json()
        refused = server.client.post("/edit", json={**asked, "target": " "})
        assert refused.status_code == 422
        undone = server.client.post(f"/edits/{edit['id']}/rollback", json={"reason": "ticket 2"}).json()
        told = [arrived.get(timeout=WAIT_S) for _ in range(2)]
        assert all(each.is_signed(hook["secret"]) for each in told)
        assert not told[0].is_signed("whsec_other")
        assert [(each.told["event"], each.told["reason"]) for each in told] == [
            ("publish", "ticket 1"),
            ("rollback", "ticket 2"),
        ]
        assert [each.told["edits"][0]["id"] for each in told] == [edit["id"]] * 2
        assert [each.told["revision"] for each in told] == [edit["revision"], undone["revision"]]
        deliveries = told_to(server, hook["id"], undone["revision"])
        assert [(each["id"], each["outcome"], each["status"]) for each in deliveries] == [
            (each.headers["x-errata-delivery"], "delivered", 204) for each in told
        ]
        assert arrived.empty(), "what is refused is not told, and nothing is told twice"
