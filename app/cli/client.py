"""The HTTP side of the command line: sends, and turns every failure into a readable end. Knows no command."""

import json
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

import httpx
import typer

from app.cli.render import fail

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(600, connect=5)
"""A large batch of edits takes minutes; a server that is not there is known at once."""
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Client:
    """Requests to one server on one actor's behalf."""

    def __init__(self, url: str, actor: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.actor = actor
        self._key = key

    def get(self, path: str, **params: Any) -> Any:
        given = {name: value for name, value in params.items() if value is not None}
        return self._json(self._send("GET", path, params=given))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._with_body("POST", path, body)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        return self._with_body("PUT", path, body)

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        return self._with_body("PATCH", path, body)

    def _with_body(self, method: str, path: str, body: dict[str, Any]) -> Any:
        given = {name: value for name, value in body.items() if value is not None}
        return self._json(self._send(method, path, json=given))

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            self._stranger(answer)

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[Any]:
        """The `data:` of each event. A problem ends the program."""
        try:
            with self._open() as http, http.stream("POST", path, json=body) as answer:
                if not answer.is_success:
                    answer.read()
                self._check(answer)
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        event = json.loads(line.removeprefix("data:"))
                        if "detail" in event and "status" in event:
                            fail_with(event)
                        yield event
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._unreachable(error)

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            with self._open() as http:
                answer = http.request(method, path, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._unreachable(error)
        self._check(answer)
        return answer

    def _open(self) -> httpx.Client:
        # a proxy of the environment is of no use on the way to this machine itself
        local = _host(self.url) in LOOPBACK
        headers = {b"X-Errata-Actor": self.actor.encode()}
        if self._key is not None:
            headers[b"Authorization"] = b"Bearer " + self._key.encode()
        return httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT, trust_env=not local)

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        try:
            found = answer.json()
            detail = found["detail"], found["title"]
        except (ValueError, KeyError, TypeError):
            self._stranger(answer)
        assert detail
        fail_with(found, request_id=answer.headers.get("X-Request-Id"))

    def _stranger(self, answer: httpx.Response) -> NoReturn:
        fail(
            f"{self.url} answered {answer.status_code}, and not as Errata does: is it the right address?",
            "Name another with --url or ERRATA_URL.",
        )

    def _unreachable(self, error: Exception) -> typer.Exit:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            fail(
                f"No server answers at {self.url}.",
                "Start one with `errata serve`, or name another with --url or ERRATA_URL.",
            )
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            fail(f"{self.url!r} is no address of a server.", f"It looks like {DEFAULT_URL}.")
        fail(f"The connection to {self.url} broke ({type(error).__name__}).", "`errata log` shows what was committed.")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None  # httpx says what is wrong with it


def path_of(*parts: str) -> str:
    """A path from parts that the user typed."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def fail_with(problem: dict[str, Any], request_id: str | None = None) -> None:
    """Ends the program with what a problem says."""
    more = [
        f"{name}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in problem.items()
        if name not in {"type", "title", "status", "detail", "errors"}
    ]
    if problem["status"] >= 500 and request_id:
        more.append(f"request: {request_id}")
    fail(problem["detail"], *more, title=problem["title"])
