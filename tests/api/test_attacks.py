"""Attacks that a hostile client may try over the wire. Roles, keys and rates are in `test_gate`."""

import io
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.api import middleware, patience
from tests.api.fake_service import FakeService
from tests.api.serving import Caller

pytestmark = pytest.mark.slow
JSON = {"content-type": "application/json"}


def nested(depth: int, opening: str, closing: str, inside: str = "1") -> str:
    return opening * depth + inside + closing * depth


# -- bodies


@pytest.mark.parametrize("path", ["/generate", "/edit", "/rollback", "/switch"])
@pytest.mark.parametrize("body", [nested(40_000, "[", "]"), nested(8_000, '{"a":', "}"), nested(49_999, "[", "", "")])
def test_deep_nesting_is_the_senders_error(ask: Caller, path: str, body: str) -> None:
    assert ask.post(path, content=body, headers=JSON).status_code == 422
    assert ask.service.revision == 0


def test_metadata_that_is_nested_too_deeply_is_refused_and_nothing_is_kept(ask: Caller) -> None:
    body = f'{{"prompt": "p", "target": "t", "metadata": {nested(100, chr(123) + chr(34) + "a" + chr(34) + ":", "}")}}}'
    answer = ask.post("/edit", content=body, headers=JSON)
    assert (answer.status_code, ask.service.revision) == (422, 0)
    assert "levels deep" in answer.json()["detail"]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" * 5000])
def test_numbers_beyond_numbers_are_refused(ask: Caller, number: str) -> None:
    for body in (
        f'{{"inputs": "x", "parameters": {{"temperature": {number}}}}}',
        f'{{"inputs": "x", "parameters": {{"max_new_tokens": {number}}}}}',
    ):
        assert ask.post("/generate", content=body, headers=JSON).status_code == 422
    body = f'{{"prompt": "p", "target": "t", "expires_in": {number}}}'
    assert ask.post("/edit", content=body, headers=JSON).status_code == 422
    assert ask.service.revision == 0


# -- names and headers


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "a/b", "a\x00b", "a\nb", "", "é", "x" * 65])
def test_a_namespace_is_a_name(ask: Caller, name: str) -> None:
    assert ask.post("/edit", {"prompt": "p", "target": "t", "namespace": name}).status_code == 422
    assert ask.post("/generate", {"inputs": "p", "parameters": {"namespace": name}}).status_code == 422
    assert ask.service.revision == 0


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%00", "%0d%0aX-Evil:%201", "..;/", "%2e%2e"])
def test_an_id_leads_to_an_edit_or_nowhere(ask: Caller, name: str) -> None:
    answer = ask.get(f"/edits/{name}")
    assert answer.status_code in (404, 405)
    assert "X-Evil" not in answer.headers
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("text", ["ada\r\nX-Evil: 1", "ada\x1b[2J", "ada\u2028x", "a\x00"])
def test_an_actor_is_printable(ask: Caller, text: str) -> None:
    for name in ("X-Errata-Actor", "Idempotency-Key"):
        headers = {name.encode(): text.encode()}
        answer = ask.post("/edit", {"prompt": "p", "target": "t"}, headers=headers)
        assert (answer.status_code, ask.service.revision) == (422, 0)


def test_a_request_id_that_would_break_a_log_line_is_replaced(ask: Caller) -> None:
    answer = ask.get("/healthz", headers={b"X-Request-Id": b"x\r\nlevel=error forged"})
    assert "forged" not in answer.headers["X-Request-Id"]


def test_a_path_cannot_forge_a_log_line(ask: Caller, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="app.api.middleware"):
        ask.get("/x%0a2026-01-01 forged line")
    lines = [record.getMessage() for record in caplog.records if "forged" in record.getMessage()]
    assert len(lines) == 1
    assert "\n" not in lines[0]


def test_log_lines_for_programs_hold_what_a_client_sent_as_one_json_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.cli.log_format import configure

    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    root = logging.getLogger()
    handlers, level, uvicorn_level = root.handlers[:], root.level, logging.getLogger("uvicorn").level
    try:
        configure("info")
        logging.getLogger("app.test").error('said "%s"', 'x\n{"level": "critical", "event": "forged"}\x1b[2J')
    finally:
        root.handlers[:], root.level = handlers, level
        logging.getLogger("uvicorn").setLevel(uvicorn_level)
    (line,) = output.getvalue().splitlines()
    assert line.startswith("{")
    assert "\x1b" not in line


# -- slow and greedy clients, over a real socket


def conversation(live: httpx.Client, *parts: bytes, pause_s: float) -> bytes:
    """Read the answer until the server closes the connection. Raises TimeoutError if it does not within a minute."""
    with socket.create_connection(("127.0.0.1", live.base_url.port or 0), timeout=60) as sock:
        for part in parts:
            try:
                sock.sendall(part)
            except OSError:
                break
            time.sleep(pause_s)
        received = b""
        try:
            while data := sock.recv(65536):
                received += data
        except ConnectionResetError:
            pass
    return received


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 0.3)
    monkeypatch.setattr(middleware, "BODY_S", 0.3)


HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
JSON_HEAD = b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
HEADS: dict[str, Callable[[], tuple[bytes, ...]]] = {
    "nothing at all": lambda: (b"",),
    "a head byte by byte": lambda: tuple(
        bytes([byte]) for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: 1"
    ),
    "a second head": lambda: (HEAD + b"\r\n", b"GET /heal"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_head_that_does_not_come_ends_the_connection(live: httpx.Client, head: Any) -> None:
    received = conversation(live, *head(), pause_s=0.02)
    assert received.count(b"HTTP/1.1 200") == (1 if received else 0)


@pytest.mark.usefixtures("impatient")
def test_a_body_that_does_not_come_is_not_waited_for(live: httpx.Client, service: FakeService) -> None:
    head = b"POST /edit HTTP/1.1\r\n" + JSON_HEAD % 5000
    received = conversation(live, head, b'{"prompt"', pause_s=0.05)
    assert received.startswith(b"HTTP/1.1 408")
    assert service.revision == 0


@pytest.mark.usefixtures("impatient")
def test_who_has_sent_all_may_wait_long_for_the_answer(live: httpx.Client, service: FakeService) -> None:
    service.slow_s = 0.2
    assert live.post("/generate", json={"inputs": "hello"}).json()["generated_text"] == "base answer here"


def test_a_huge_header_is_refused_without_reading_on(live: httpx.Client) -> None:
    received = conversation(live, HEAD + b"X-Huge: " + b"a" * 2_000_000, pause_s=0)
    assert received == b"" or received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert live.get("/healthz").status_code == 200


def test_a_stream_that_nobody_reads_holds_up_nobody_else(live: httpx.Client, service: FakeService) -> None:
    service.canned["long"] = "word " * 3000
    body = b'{"inputs": "long", "parameters": {"max_new_tokens": 3000}}'
    head = b"POST /generate_stream HTTP/1.1\r\n" + JSON_HEAD
    with socket.create_connection(("127.0.0.1", live.base_url.port or 0)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(head % len(body) + body)
        for _ in range(20):
            assert live.post("/generate", json={"inputs": "hello"}).status_code == 200
