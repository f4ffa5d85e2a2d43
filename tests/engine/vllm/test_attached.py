"""A vLLM that runs already: the gate in front of it and the session over HTTP, against a stand-in for vLLM."""

import asyncio
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.domain.errors import UnsupportedModel
from app.engine.vllm.attached import AttachedVllm
from app.engine.vllm.inside.errata_vllm import gate as gate_module
from app.engine.vllm.inside.errata_vllm.gate import EditGate
from app.engine.vllm.served_model import ServedModel
from app.engine.vllm.session import Change

KEY, WAIT_S = "a key of sixteen or more", 60
SERVED = ServedModel("model.layers.1.mlp", "model.embed_tokens.weight", "d1", 128, "float32")
PARAMETERS = {"max_tokens": 5, "temperature": 0.0, "logprobs": 0, "logit_bias": [[7, -1.0]]}
LOADED = Change("load", ["e1@1", [7, 8]], b"1234")


class Vllm:
    """The stand-in: one that is started again has forgotten everything. `answer` makes the answer to a completion."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.asked: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {"sites": [SERVED.site]}
        self.digest, self.max_model_len, self.api_servers = "d1", 128, 1
        self.answer: Callable[[], Response] = lambda: stream(chunk([7], None), chunk([8], "stop"))
        self.start()

    def start(self, gated: bool = True) -> None:
        routes = [Route("/v1/models", self._models), Route("/v1/completions", self._complete, methods=["POST"])]
        self.app: Any = Starlette(routes=routes)
        self.app.state.engine_client = SimpleNamespace(collective_rpc=self._call)
        self.app.state.args = SimpleNamespace(api_server_count=self.api_servers)
        if gated:
            self.app.add_middleware(EditGate)

    async def _call(self, method: str, args: tuple[Any, ...]) -> list[Any]:
        if method == "errata_load" and args[0] == "breaks":
            raise RuntimeError("a worker has died")
        self.calls.append((method, *args))
        return [{"errata_begin": self.facts, "errata_identify": self.digest}.get(method)]

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"data": [{"id": "a model", "max_model_len": self.max_model_len}]})

    async def _complete(self, request: Request) -> Response:
        self.asked.append(await request.json())
        return self.answer()

    def transport(self) -> httpx.AsyncBaseTransport:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

        return httpx.ASGITransport(app)


def chunk(ids: list[int], reason: str | None) -> dict[str, Any]:
    names = [f"token_id:{each}" for each in ids]
    logprobs = {
        "tokens": names,
        "token_logprobs": [-0.5 for _ in ids],
        "top_logprobs": [{name: -0.5, "token_id:1": -0.25} for name in names],
    }
    return {"choices": [{"token_ids": ids, "logprobs": logprobs, "finish_reason": reason}]}


def stream(*chunks: dict[str, Any]) -> Response:
    async def events() -> AsyncIterator[str]:
        for each in chunks:
            yield f"data: {json.dumps(each)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Vllm:
    monkeypatch.setenv("ERRATA_VLLM_KEY", KEY)
    return Vllm()


class Listening:
    """A session that has begun, with the items that it hands on, and at last why it was lost."""

    def __init__(self, vllm: Vllm) -> None:
        self.session = AttachedVllm("http://vllm", KEY, SERVED, vllm.transport)
        self.session.begin()
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        def take(items: list[Any]) -> None:
            for each in items or [[]]:
                self.told.put(each)

        self.told.put(self.session.listen(take))

    def next(self) -> Any:
        return self.told.get(timeout=WAIT_S)

    def items(self, count: int) -> list[Any]:
        """The next ones that are more than signs of life."""
        return list(islice((told for told in iter(self.next, None) if told), count))

    def next_lost(self) -> str:
        while not isinstance(told := self.next(), str):
            pass
        return told

    def ask(self, number: int = 1, timeout_s: float | None = None, **more: Any) -> None:
        self.session.add(number, [1, 2], {**PARAMETERS, **more}, "salt", timeout_s)

    def end(self) -> None:
        self.session.end(1)
        self._thread.join(WAIT_S)


@pytest.fixture
def listening(vllm: Vllm) -> Iterator[Listening]:
    found = Listening(vllm)
    yield found
    found.end()


def begin(vllm: Vllm, key: str = KEY, served: ServedModel = SERVED) -> None:
    AttachedVllm("http://vllm/", key, served, vllm.transport).begin()


def test_rows_are_loaded_before_a_request_that_comes_later_is_sent(vllm: Vllm, listening: Listening) -> None:
    listening.session.change(LOADED)
    listening.session.change(Change("drop", ["e0@1"]))
    listening.ask(extra_args={"errata_edit": "e1@1", "errata_begun": 0}, seed=2**64 - 2)
    (_, session), *_ = vllm.calls
    assert listening.items(3) == [
        [1, "tokens", [[7, -0.5, 2, [[1, -0.25], [7, -0.5]]]]],
        [1, "tokens", [[8, -0.5, 2, [[1, -0.25], [8, -0.5]]]]],
        [1, "ended", "stop"],
    ]
    assert vllm.calls[2:] == [("errata_load", "e1@1", [7, 8], b"1234"), ("errata_drop", "e0@1")]
    (body,) = vllm.asked
    assert body["vllm_xargs"] == {"errata_edit": "e1@1", "errata_begun": 0, "errata_session": session}
    assert (body["prompt"], body["model"], body["cache_salt"]) == ([1, 2], "a model", "salt")
    assert (body["seed"], body["logit_bias"], body["logprobs"]) == (-2, {"7": -1.0}, 1)
    listening.ask(structured_outputs={"grammar": "start: "})  # its backend for grammars is not told
    assert listening.items(1)[0][1] == "refused"


def test_what_vllm_refuses_fails_or_breaks_off_ends_one_request(vllm: Vllm, listening: Listening) -> None:
    vllm.answer = lambda: JSONResponse({"error": {"message": "too long"}}, 400)
    listening.ask(1)
    assert listening.next() == [1, "refused", "too long"]
    vllm.answer = lambda: JSONResponse({"detail": "?"}, 500)
    listening.ask(2)
    assert listening.next() == [2, "failed", "status 500"]
    vllm.answer = lambda: stream({"error": {"message": "no memory"}})
    listening.ask(3)
    assert listening.next() == [3, "failed", "no memory"]
    vllm.answer = lambda: stream({"choices": [{"text": "of a version without token ids"}]})
    listening.ask(6)
    assert "cannot be read: KeyError" in listening.next()[2]
    vllm.answer = lambda: stream(chunk([7], None))
    listening.ask(4)
    assert [listening.next()[:2], listening.next()] == [[4, "tokens"], [4, "failed", "the answer broke off"]]


def test_a_request_that_is_late_or_aborted_ends_in_vllm_too(vllm: Vllm, listening: Listening) -> None:
    gone: queue.SimpleQueue[str] = queue.SimpleQueue()

    async def never() -> AsyncIterator[str]:
        try:
            await asyncio.Event().wait()
            yield ""
        finally:
            gone.put("gone")

    vllm.answer = lambda: StreamingResponse(never())
    listening.ask(1, timeout_s=0.01)
    assert listening.next() == [1, "late"]
    assert gone.get(timeout=WAIT_S)
    listening.ask(2)
    listening.session.abort(2)
    listening.session.pulse()
    assert listening.next() == [], "nothing is told of it"


def test_a_vllm_that_was_started_again_is_lost_and_answers_nothing_without_its_rows(
    vllm: Vllm, listening: Listening
) -> None:
    listening.session.change(LOADED)
    assert listening.next() == []
    vllm.start()
    listening.ask(extra_args={"errata_edit": "e1@1", "errata_begun": 0})
    assert listening.next_lost() == "this session is over"
    assert not vllm.asked


@pytest.mark.parametrize("what", ["pulse", "change", "add"])
def test_a_vllm_that_is_gone_is_lost_whatever_is_asked(vllm: Vllm, listening: Listening, what: str) -> None:
    async def app(*_: Any) -> None:
        raise httpx.ConnectError("connection refused")

    vllm.app = app
    if what == "pulse":
        listening.session.pulse()
    elif what == "change":
        listening.session.change(LOADED)
    else:
        listening.ask()
    assert listening.next_lost() == "it cannot be reached (connection refused)"
    listening.session.change(LOADED)  # does nothing any longer
    with pytest.raises(UnsupportedModel, match=r"No vLLM answers at http://vllm \(connection refused\)"):
        begin(vllm)


def test_workers_that_cannot_be_called_are_lost(listening: Listening) -> None:
    listening.session.change(Change("load", ["breaks", []]))
    assert listening.next_lost() == "RuntimeError: a worker has died"


def test_a_wrong_or_missing_key_opens_nothing(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedModel, match="Errata's key is needed"):
        begin(vllm, key="another key of sixteen")

    async def statuses() -> list[int]:
        async with httpx.AsyncClient(transport=vllm.transport(), base_url="http://vllm") as client:
            routes = ("session", "changes", "pulse", "end", "elsewhere")
            return [(await client.post(f"/errata/{each}", json={})).status_code for each in routes]

    assert asyncio.run(statuses()) == [401] * 5
    assert not vllm.calls
    monkeypatch.setenv("ERRATA_VLLM_KEY", "short")
    vllm.start()
    with pytest.raises(ValueError, match="at least 16 characters"):
        begin(vllm)


def test_a_vllm_without_the_gate_or_with_several_servers_is_refused_with_what_to_do(vllm: Vllm) -> None:
    vllm.start(gated=False)
    with pytest.raises(UnsupportedModel, match=r"Start it so: .* errata_vllm.gate.EditGate .*layers.1.mlp"):
        begin(vllm)
    vllm.api_servers = 2
    vllm.start()
    with pytest.raises(UnsupportedModel, match="--api-server-count 1"):
        begin(vllm)


def test_another_model_another_site_and_a_shorter_context_are_refused(vllm: Vllm) -> None:
    with pytest.raises(UnsupportedModel, match=r"serves a model with other weights .*--model"):
        begin(vllm, served=replace(SERVED, digest="d2"))
    with pytest.raises(UnsupportedModel, match=r"act at model.layers.9.mlp here and at model.layers.1.mlp"):
        begin(vllm, served=replace(SERVED, site="model.layers.9.mlp"))
    with pytest.raises(UnsupportedModel, match="ERRATA_MAX_SEQUENCE_TOKENS=128"):
        begin(vllm, served=replace(SERVED, max_tokens=129))


def test_a_version_that_lacks_what_is_needed_is_refused_by_its_name(vllm: Vllm) -> None:
    async def lacks(*_: Any, **__: Any) -> None:
        raise RuntimeError("VllmRefusal: vLLM 9.9 lacks query_start_loc.np")

    vllm.app.state.engine_client.collective_rpc = lacks
    with pytest.raises(UnsupportedModel, match="lacks query_start_loc"):
        begin(vllm)
    del vllm.app.state.engine_client
    with pytest.raises(UnsupportedModel, match=r"lacks engine_client.collective_rpc in its server's State"):
        begin(vllm)


def test_one_server_at_a_time_holds_a_session_until_it_ends_it_or_is_silent(
    vllm: Vllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Listening(vllm)
    with monkeypatch.context() as other:
        other.setattr("app.engine.vllm.attached.HOLDER", "another server")
        with pytest.raises(UnsupportedModel, match="another server uses this vLLM"):
            begin(vllm)
        first.end()
        begun = [call[1] for call in vllm.calls if call[0] == "errata_begin"]
        assert vllm.calls[-1] == ("errata_begin", begun[-1]), "the workers released all rows"
        assert begun[-1] not in ("", begun[0]), "and nobody can name the session that they have now"
        begin(vllm)
    with pytest.raises(UnsupportedModel, match="another server"):
        begin(vllm)
    monkeypatch.setattr(gate_module, "HELD_S", 0)
    begin(vllm)
    begin(vllm)


def test_a_session_is_kept_while_an_answer_comes(
    vllm: Vllm, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens are signs of life enough, so that the server sends no others."""
    monkeypatch.setattr(gate_module, "HELD_S", 0)
    began, ends = threading.Event(), threading.Event()

    async def events() -> AsyncIterator[str]:
        began.set()
        await asyncio.to_thread(ends.wait, WAIT_S)
        yield f"data: {json.dumps(chunk([7], 'stop'))}\n\n"

    vllm.answer = lambda: StreamingResponse(events(), media_type="text/event-stream")
    listening.ask()
    assert began.wait(WAIT_S)
    with monkeypatch.context() as other:
        other.setattr("app.engine.vllm.attached.HOLDER", "another server")
        with pytest.raises(UnsupportedModel, match="another server uses this vLLM"):
            begin(vllm)
        ends.set()
        assert listening.items(2)[1] == [1, "ended", "stop"]
        begin(vllm)


def test_an_attempt_to_connect_can_be_ended(vllm: Vllm) -> None:
    asked = threading.Event()

    async def app(*_: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    vllm.app = app
    session, problems = AttachedVllm("http://vllm", KEY, SERVED, vllm.transport), list[str]()

    def attempt() -> None:
        with suppress(UnsupportedModel):
            session.begin()
            return
        problems.append("refused")

    thread = threading.Thread(target=attempt)
    thread.start()
    assert asked.wait(WAIT_S)
    session.end(0)
    thread.join(WAIT_S)
    assert problems == ["refused"]
