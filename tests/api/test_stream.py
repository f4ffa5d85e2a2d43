"""Streams: one event a token, errors before and after the first token, clients that leave."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from app.api.generation_stream import events_of
from app.api.schemas.generate import GenerateBody, StreamEvent
from app.domain.errors import QueueFull, RequestCancelled
from app.domain.generation import Generation, GenerationParameters, Token
from tests.api.fake_service import FakeService
from tests.api.serving import Caller

pytestmark = pytest.mark.slow


def events(text: str) -> list[Any]:
    blocks = [block for block in text.split("\n\n") if block]
    assert all(block.startswith("data: ") for block in blocks), text
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def until(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, f"not within a minute: {what}"
        time.sleep(0.01)


def test_one_event_a_token_and_the_last_has_it_all(live: httpx.Client) -> None:
    answer = live.post("/generate_stream", json={"inputs": "x", "parameters": {"details": True}})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-errata-revision"] == "0"
    got = events(answer.text)
    assert [event["token"]["text"] for event in got] == ["base", " answer", " here", ""]
    assert [set(event) for event in got] == [{"index", "token", "generated_text", "details"}] * 4
    assert [event["index"] for event in got] == [1, 2, 3, 4]
    assert got[0] == {
        "index": 1, "token": {"id": 0, "text": "base", "logprob": -0.5, "special": False},
        "generated_text": None, "details": None,
    }  # fmt: skip
    assert [event["generated_text"] for event in got] == [None, None, None, "base answer here"]
    assert got[-1]["details"]["finish_reason"] == "eos_token"
    assert got[-1]["details"]["generated_tokens"] == 4


def test_no_details_unless_asked(live: httpx.Client) -> None:
    got = events(live.post("/generate_stream", json={"inputs": "x", "parameters": {"max_new_tokens": 2}}).text)
    assert [event["token"]["text"] for event in got] == ["base", " answer"]
    assert got[-1]["generated_text"] == "base answer"
    assert got[-1]["details"] is None


def test_tokens_come_as_they_are_made(
    live: httpx.Client, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third token is not made before the first has arrived."""
    arrived, stream = threading.Event(), service.stream

    async def held(*request: Any) -> AsyncIterator[tuple[int, Token | Generation]]:
        made = 0
        async for item in stream(*request):
            if made == 2:
                assert await asyncio.to_thread(arrived.wait, 30), "the first token is held back"
            made += 1
            yield item

    monkeypatch.setattr(service, "stream", held)
    with live.stream("POST", "/generate_stream", json={"inputs": "x"}) as answer:
        lines = (line for line in answer.iter_lines() if line)
        first = next(lines)
        arrived.set()
        rest = list(lines)
    assert [event["token"]["text"] for line in (first, *rest) for event in events(f"{line}\n\n")] == [
        "base", " answer", " here", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status"), [(QueueFull("Too many wait.", retry_after_s=3), 429), (RuntimeError("secret"), 500)]
)
def test_an_error_before_the_first_token_is_a_status(
    live: httpx.Client, service: FakeService, error: Exception, status: int
) -> None:
    service.fails = error
    answer = live.post("/generate_stream", json={"inputs": "x"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert answer.headers.get("retry-after") == ("3" if status == 429 else None)
    assert "x-request-id" in answer.headers


def test_a_bad_request_is_a_status(live: httpx.Client) -> None:
    answer = live.post("/generate_stream", json={"inputs": "x", "parameters": {"n": 3}})
    assert answer.status_code == 422
    assert "parameters.n" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("error", "kind", "detail"),
    [
        (RequestCancelled("The server is stopping."), "request-cancelled", "The server is stopping."),
        (RuntimeError("secret"), "server-error", "The server met an error of its own."),
    ],
)
def test_an_error_after_the_first_token_is_the_last_event(
    live: httpx.Client, service: FakeService, error: Exception, kind: str, detail: str
) -> None:
    service.breaks_after = (1, error)
    answer = live.post("/generate_stream", json={"inputs": "x"})
    token, problem = events(answer.text)
    assert (answer.status_code, token["token"]["text"]) == (200, "base")
    assert problem["type"] == f"urn:errata:problem:{kind}"
    assert problem["detail"].startswith(detail)
    assert (problem["error"], problem["error_type"]) == (problem["detail"], "generation"), "as TGI's clients read it"
    assert "secret" not in answer.text
    assert f'errata_request_errors_total{{status="{problem["status"]}"}} 1.0' in live.get("/metrics").text


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_a_client_that_leaves_before_the_first_token(live: httpx.Client, service: FakeService, path: str) -> None:
    service.slow_s = 600
    body = b'{"inputs": "x"}'
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", live.base_url.port or 0)) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: len(service.asked) == 1, "the generation has begun")
    until(lambda: service.cancelled == 1, "the generation is cancelled")


def test_a_client_that_leaves_amid_a_stream(live: httpx.Client, service: FakeService) -> None:
    service.canned["x"] = "word " * 1000
    service.slow_s = 0.02
    with live.stream("POST", "/generate_stream", json={"inputs": "x", "parameters": {"max_new_tokens": 900}}) as answer:
        next(answer.iter_lines())
    until(lambda: service.cancelled == 1, "the generation is cancelled")
    assert live.get("/healthz").status_code == 200


def test_many_streams_at_once(live: httpx.Client, service: FakeService) -> None:
    service.slow_s = 0.01
    url = str(live.base_url)

    async def together() -> list[str]:
        async with httpx.AsyncClient(base_url=url) as client:
            body = {"inputs": "x", "parameters": {"max_new_tokens": 3}}
            answers = await asyncio.gather(*(client.post("/generate_stream", json=body) for _ in range(8)))
            return [events(answer.text)[-1]["generated_text"] for answer in answers]

    assert asyncio.run(together()) == ["base answer here"] * 8


def test_a_stream_through_asgi_alone(ask: Caller) -> None:
    assert len(events(ask.post("/generate_stream", {"inputs": "x"}).text)) == 4


# -- which token is the last


def shown(tokens: list[Token], **parameters: Any) -> list[StreamEvent]:
    async def items() -> Any:
        for token in tokens:
            yield token
        yield Generation(
            text="".join(token.text for token in tokens), finish_reason="length", prompt_tokens=1,
            tokens=tuple(tokens), seed=None, revision=0, hits=(),
        )  # fmt: skip

    async def collect() -> list[StreamEvent]:
        return [e async for e in events_of(GenerateBody(inputs="x"), GenerationParameters(**parameters), items())]

    return asyncio.run(collect())


@pytest.mark.parametrize(
    ("texts", "parameters"),
    [
        (["a", "b"], {"max_new_tokens": 2}),
        (["a", "", "b", ""], {}),
        (["a", "b"], {"stop": ("c",)}),
        ([""], {}),
    ],
)
def test_each_token_has_one_event(texts: list[str], parameters: dict[str, Any]) -> None:
    got = shown([Token(i, text, -1.0, False) for i, text in enumerate(texts)], **parameters)
    assert [event.token.text for event in got] == texts
    assert [event.generated_text for event in got] == [None] * (len(texts) - 1) + ["".join(texts)]


def test_an_end_that_could_not_be_foreseen_still_ends_the_stream() -> None:
    got = shown([Token(5, "a", -1.0, False), Token(6, "b", -1.0, False)])
    assert [(event.token.id, event.token.text) for event in got] == [(5, "a"), (6, "b"), (6, "")]
    assert got[-1].generated_text == "ab"
