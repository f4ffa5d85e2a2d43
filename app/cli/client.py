"""The HTTP side of the command line: sends requests and turns failures into messages. It knows no command."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

import httpx
from httpx_sse import EventSource

from app.cli.exits import Exit
from app.cli.render import MOST_IDS, fail, fail_with_problem, only_id

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(600, connect=5)
"""The time limits in seconds: a large batch of edits takes minutes, while a missing server shows at once."""
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
WHOLE_ID = re.compile(r"ed_[0-9a-f]{16}")
_HELP = re.compile(r"(?<![\w/])/help/[a-z]+")
"""A path into the server's documentation within a message."""


class Client:
    """Requests to one server on behalf of one actor."""

    def __init__(self, url: str, actor: str, key: str | None = None, *, claims: bool = True) -> None:
        """`claims` says whether to name the actor to the server; a key identifies its holder without that."""
        self._claims = claims
        self.url = url.rstrip("/")
        self.actor = actor
        self._key = key

    def get(self, path: str, **params: Any) -> Any:
        return self._json(self._send("GET", path, params=_given(params)))

    def get_any_status(self, path: str) -> tuple[int, Any]:
        """The status and body of an answer that may have any status, such as that of a server which is not ready."""
        answer = self._request("GET", path)
        return answer.status_code, self._json(answer)

    def post(self, path: str, body: dict[str, Any], if_match: int | None = None) -> Any:
        """Send a body. `if_match` is the revision that was read; the server refuses to change what has changed
        since."""
        more = {} if if_match is None else {"headers": {"If-Match": f'"{if_match}"'}}
        return self._json(self._send("POST", path, json=_given(body), **more))

    def delete(self, path: str) -> Any:
        return self._json(self._send("DELETE", path))

    def put(self, path: str, body: dict[str, Any]) -> Any:
        return self._json(self._send("PUT", path, json=_given(body)))

    def whole_id(self, given: str) -> str:
        """The id of the only edit whose id begins with `given`, as in git; the prefix `ed_` may be left out."""
        beginning = given if given.startswith("ed_") else f"ed_{given}"
        if WHOLE_ID.fullmatch(beginning):
            return beginning
        page = self.get("/edits", id_prefix=beginning, limit=MOST_IDS + 1)
        ids = [edit["id"] for edit in page["edits"]]
        if not ids:
            fail(f"No edit's id begins with {beginning!r}: `errata edits` lists them.", code=Exit.UNKNOWN)
        return only_id(ids, beginning, "edit")

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            self._not_errata(answer)

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[Any]:
        """Yields the `data:` of each event. A problem ends the program."""
        try:
            with self._open() as http, http.stream("POST", path, json=body) as answer:
                if not answer.is_success:
                    answer.read()
                self._check(answer)
                for message in EventSource(answer).iter_sse():
                    event = message.json()
                    if "detail" in event and "status" in event:
                        fail_with_problem(event)
                    yield event
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._unreachable(error)

    def watch(self, method: str, path: str, body: dict[str, Any], if_match: int | None = None) -> Iterator[Any]:
        """Yields the job that carries a change out each time it has news; the last has its result. A problem ends the
        program."""
        headers = {"Accept": "text/event-stream"} | ({} if if_match is None else {"If-Match": f'"{if_match}"'})
        job: Any = {"outcome": "running"}
        try:
            with self._open() as http, http.stream(method, path, json=_given(body), headers=headers) as answer:
                if not answer.is_success:
                    answer.read()
                self._check(answer)
                for message in EventSource(answer).iter_sse():
                    job = message.json()
                    yield job
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._unreachable(error)
        if job["outcome"] == "running":
            self._unreachable(httpx.RemoteProtocolError("the events ended before the job"))

    def lines(self, path: str) -> Iterator[str]:
        """Yields the lines of an answer, which may be long."""
        try:
            with self._open() as http, http.stream("GET", path) as answer:
                if not answer.is_success:
                    answer.read()
                self._check(answer)
                yield from answer.iter_lines()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._unreachable(error)

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        answer = self._request(method, path, **more)
        self._check(answer)
        return answer

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            with self._open() as http:
                return http.request(method, path, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._unreachable(error)

    def _open(self) -> httpx.Client:
        # a proxy from the environment does not help to reach this machine itself
        local = _host(self.url) in LOOPBACK
        headers = {b"X-Errata-Actor": self.actor.encode()} if self._claims else {}
        if self._key is not None:
            headers[b"Authorization"] = b"Bearer " + self._key.encode()
        return httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT, trust_env=not local)

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        try:
            problem = answer.json()
            detail = problem["detail"], problem["title"], problem["status"]
        except (ValueError, KeyError, TypeError):
            self._not_errata(answer)
        assert detail
        with_address = {**problem, "detail": _HELP.sub(lambda page: f"{self.url}{page[0]}", str(detail[0]))}
        fail_with_problem(with_address, request_id=answer.headers.get("X-Request-Id"))

    def _not_errata(self, answer: httpx.Response) -> NoReturn:
        fail(
            f"{self.url} answered {answer.status_code}, and not as Errata does: is it the right address?",
            "Name another with --url or ERRATA_URL.",
            code=Exit.UNREACHABLE,
        )

    def _unreachable(self, error: Exception) -> NoReturn:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            fail(
                f"No server answers at {self.url}.",
                "Start one with `errata serve`, or name another with --url or ERRATA_URL.",
                code=Exit.UNREACHABLE,
            )
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            fail(f"{self.url!r} is not the address of a server.", f"It looks like {DEFAULT_URL}.", code=Exit.USAGE)
        fail(
            f"The connection to {self.url} broke ({type(error).__name__}).",
            "`errata log` shows what was committed.",
            code=Exit.UNREACHABLE,
        )


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None  # httpx reports what is wrong with it


def path_of(*parts: str) -> str:
    """A path from parts that the user typed, escaped."""
    return "/" + "/".join(quote(part, safe="") for part in parts)
