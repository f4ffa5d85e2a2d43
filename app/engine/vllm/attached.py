"""A vLLM that runs already, reached over its HTTP API: its own completions, and the routes of Errata's gate.

Requests go to /v1/completions with token ids as prompt. The gate (`inside/errata_vllm/gate.py`) begins a session, which
ends when vLLM does: after a restart it refuses requests of the session, so that none is answered without its rows.
"""

import asyncio
import base64
import logging
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from json import JSONDecodeError
from typing import Any

import httpx
from httpx_sse import EventSource

from app.domain.errors import InvalidRequest, UnsupportedModel
from app.engine.vllm.completions import completion_body, tokens_of
from app.engine.vllm.served_model import HELP, ServedModel
from app.engine.vllm.session import Change, Take, VllmSession

_log = logging.getLogger(__name__)
CONNECT_S, ANSWER_S = 5.0, 60.0
"""The time to connect, and the time in which a session begins, in seconds."""
MOST_BYTES = 8 * 2**20
"""The size of edits' values that are loaded in one request, in bytes."""
MOST_CHANGES = 64
"""The most changes in one request, since each waits for a step of vLLM, and the answer is a sign of life."""
KEPT_S = 2.0
"""The time for which an idle connection is kept, in seconds; vLLM closes it after 5."""
LEFT = "this server has left it"


class AttachedVllm(VllmSession):
    """One session with a vLLM at an address."""

    def __init__(
        self, url: str, key: str, served: ServedModel, transport: Callable[[], httpx.AsyncBaseTransport] | None = None
    ) -> None:
        """`transport`: takes the place of connections, in tests."""
        self._url, self._key, self._served, self._transport = url.rstrip("/"), key, served, transport
        self._session = self._model = self._grammar_backend = ""
        self._lock = threading.Lock()  # over the next four
        self._beginning: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._early: list[tuple[Any, ...]] = []
        self._over = False
        self._running: dict[int, asyncio.Task[None]] = {}
        self._unsent: list[Change] = []
        self._sending: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # -- from any thread

    def begin(self) -> None:
        try:
            asyncio.run(self._begin())
        except asyncio.CancelledError:
            raise UnsupportedModel(LEFT) from None

    def listen(self, take: Take) -> str:
        return asyncio.run(self._listen(take))

    def add(
        self, request: int, prompt: list[int], parameters: dict[str, Any], salt: str | None, timeout_s: float | None
    ) -> None:
        self._post(self._add, request, prompt, parameters, salt, timeout_s)

    def abort(self, request: int) -> None:
        self._post(self._abort, request)

    def change(self, change: Change) -> None:
        self._post(self._change, change)

    def pulse(self) -> None:
        self._post(lambda: self._start(self._pulse))

    def end(self, grace_s: float) -> None:
        """The vLLM itself goes on. It is told only where there is time, as it may be hanging."""
        with self._lock:
            if self._beginning is not None:
                loop, task = self._beginning
                loop.call_soon_threadsafe(task.cancel)
        self._post(self._leave, grace_s)

    def _post(self, function: Callable[..., object], *arguments: Any) -> None:
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, *arguments)
            elif not self._over:
                self._early.append((function, *arguments))

    # -- the connection, on the thread that listens

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._url,
            headers={"authorization": f"Bearer {self._key}"},
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEPT_S),
            transport=None if self._transport is None else self._transport(),
            trust_env=False,
        )

    async def _begin(self) -> None:
        served, task = self._served, asyncio.current_task()
        assert task is not None
        with self._lock:
            self._beginning = asyncio.get_running_loop(), task
        try:
            async with self._client() as client, asyncio.timeout(ANSWER_S):
                answer = await client.post("/errata/session", json={"holder": HOLDER, "weight": served.weight})
                if answer.status_code == 404:
                    raise UnsupportedModel(f"The vLLM at {self._url} runs without Errata's part. {served.command()}")
                if answer.status_code != 200:
                    raise UnsupportedModel(f"The vLLM at {self._url} refuses: {_reason(answer)}. {HELP}")
                session = answer.json()
                listed = await client.get("/v1/models")
                listed.raise_for_status()
                model = listed.json()["data"][0]
        except (httpx.HTTPError, TimeoutError, JSONDecodeError, LookupError, TypeError) as error:
            why = str(error) or type(error).__name__
            raise UnsupportedModel(f"No vLLM answers at {self._url} ({why}): is it started? {HELP}") from error
        finally:
            with self._lock:
                self._beginning = None
        served.check(self._url, session, model)
        self._session, self._model = session["session"], model["id"]
        self._grammar_backend = session["workers"][0].get("grammar_backend", "")

    async def _listen(self, take: Take) -> str:
        loop = asyncio.get_running_loop()
        self._take, self._lost = take, loop.create_future()
        async with self._client() as self._http:
            with self._lock:
                self._loop, early, self._early = loop, self._early, []
            for function, *arguments in early:
                function(*arguments)
            try:
                return str(await self._lost)
            finally:
                with self._lock:
                    self._loop, self._over = None, True
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.ensure_future(function(*arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _lose(self, why: str) -> None:
        if not self._lost.done():
            self._lost.set_result(why)

    def _leave(self, grace_s: float) -> None:
        self._start(self._farewell) if grace_s else self._lose(LEFT)

    async def _farewell(self) -> None:
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await self._http.post("/errata/end", headers=self._in_session)
        self._lose(LEFT)

    @property
    def _in_session(self) -> dict[str, str]:
        return {"x-errata-session": self._session}

    async def _call(self, name: str, body: Any = None) -> bool:
        """Call the gate; False if the session is lost."""
        try:
            answer = await self._http.post(f"/errata/{name}", headers=self._in_session, json=body)
        except httpx.HTTPError as error:
            self._lose(f"it cannot be reached ({str(error) or type(error).__name__})")
            return False
        if answer.status_code != 200:
            self._lose(_reason(answer))
        return answer.status_code == 200

    async def _pulse(self) -> None:
        if await self._call("pulse"):
            self._take([])

    # -- rows

    def _change(self, change: Change) -> None:
        self._unsent.append(change)
        if self._sending is None or self._sending.done():
            self._sending = self._start(self._send_changes)

    async def _send_changes(self) -> None:
        while self._unsent:
            batch, size = list[dict[str, Any]](), 0
            while self._unsent and size < MOST_BYTES and len(batch) < MOST_CHANGES:
                each = self._unsent.pop(0)
                value = base64.b64encode(each.value).decode()
                batch.append({"do": each.do, "arguments": each.arguments, "value": value})
                size += len(each.value)
            if not await self._call("changes", {"changes": batch}):
                return
            self._take([])

    # -- requests

    def _add(self, request: int, *more: Any) -> None:
        task = self._running[request] = self._start(self._answer, request, *more)
        task.add_done_callback(lambda _: self._running.pop(request, None))

    def _abort(self, request: int) -> None:
        if (task := self._running.get(request)) is not None:
            task.cancel()

    async def _answer(
        self, request: int, prompt: list[int], parameters: dict[str, Any], salt: str | None, timeout_s: float | None
    ) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                if self._sending is not None:
                    await asyncio.wait([self._sending])
                body = completion_body(self._model, prompt, parameters, salt, self._session, self._grammar_backend)
                await self._stream(request, body)
        except TimeoutError:
            self._take([[request, "late"]])
        except InvalidRequest as error:
            self._take([[request, "refused", error.message]])
        except (httpx.HTTPError, httpx.StreamError) as error:
            await self._fail(request, str(error) or type(error).__name__)
        except Exception as error:  # it speaks in another way than the versions that are known
            _log.exception("What vLLM says cannot be read")
            await self._fail(request, f"its answer cannot be read: {type(error).__name__}: {error}")

    async def _fail(self, request: int, why: str) -> None:
        if await self._call("pulse"):  # else the request is lost with vLLM
            self._take([[request, "failed", why]])

    async def _stream(self, request: int, body: dict[str, Any]) -> None:
        headers = self._in_session
        async with self._http.stream("POST", "/v1/completions", json=body, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                await self._take_refusal(request, response)
                return
            async for event in EventSource(response).aiter_sse():
                if event.data == "[DONE]":
                    break
                chunk = event.json()
                if "error" in chunk:
                    await self._fail(request, str(chunk["error"].get("message", chunk["error"])))
                    return
                self._take([[request, "tokens", tokens_of(chunk)]])
                if (why := chunk["choices"][0].get("finish_reason")) is not None:
                    self._take([[request, "ended", why]])
                    return
        raise httpx.RemoteProtocolError("the answer broke off")

    async def _take_refusal(self, request: int, response: httpx.Response) -> None:
        why = _reason(response)
        if response.status_code in (401, 403, 409):
            self._lose(why)
        elif response.status_code in (400, 422):
            self._take([[request, "refused", why]])
        else:
            await self._fail(request, why)


HOLDER = secrets.token_hex(8)
"""Names this server to the gate, which lets one server at a time hold a session."""


def _reason(answer: httpx.Response) -> str:
    with suppress(ValueError, LookupError, TypeError):
        error = answer.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    return f"status {answer.status_code}"
