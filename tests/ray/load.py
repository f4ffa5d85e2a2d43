"""Clients that ask and edit through whichever proxy answers, try again what fails, and remember everything."""

import asyncio
import itertools
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import aconnect_sse

from app.ray.replica import REPLICA

GIVE_UP_S = 90.0
PAUSE_S = 0.2
LEFT_OUT_S = 5.0
"""The time for which a proxy that cannot be reached is left out, as by a balancer's check of its health."""


@dataclass(frozen=True)
class Answer:
    prompt: str
    text: str
    revision: int
    replica: str
    asked_at: float
    seconds: float


@dataclass(frozen=True)
class Acknowledged:
    """A change that a client was told is made: an edit, or the rollback of one."""

    edit_id: str
    kind: str
    revision: int
    at: float


@dataclass
class Load:
    """`urls` are those of the proxies; a client that cannot reach one asks the other, as a balancer does."""

    urls: Sequence[str]
    answers: list[Answer] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    failed: "Counter[str]" = field(default_factory=Counter)
    """Attempts that failed and were made again, by what came back."""
    refused: list[str] = field(default_factory=list)
    """Edits that did not pass their verification."""
    streamed: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _down: dict[str, float] = field(default_factory=dict)
    _turns: Iterator[int] = field(default_factory=itertools.count)

    def _url(self) -> str:
        """The next proxy by turns, of those that are not left out."""
        up = [url for url in self.urls if self._down.get(url, 0.0) < time.monotonic()] or self.urls
        return up[next(self._turns) % len(up)]

    async def ask_on(self, prompts: Sequence[str], *, stream: bool, first: int) -> None:
        """Ask one prompt after the other until the load is over."""
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            for prompt in itertools.cycle([*prompts[first:], *prompts[:first]]):
                if self.over.is_set():
                    return
                self.answers.append(await self.asked(client, prompt, stream=stream))
                self.streamed += stream
                await asyncio.sleep(0.05)

    async def asked(self, client: httpx.AsyncClient, prompt: str, *, stream: bool = False) -> Answer:
        body = {"inputs": prompt, "parameters": {"max_new_tokens": 24, "details": True}}
        began = time.monotonic()
        while True:
            url, asked_at = self._url(), time.monotonic()
            try:
                if stream:
                    found, replica = await _streamed(client, f"{url}/generate_stream", body)
                else:
                    response = await client.post(f"{url}/generate", json=body)
                    response.raise_for_status()
                    found, replica = response.json(), response.headers[REPLICA]
                text, revision = found["generated_text"], found["details"]["revision"]
                return Answer(prompt, text, revision, replica, asked_at, time.monotonic() - asked_at)
            except (httpx.HTTPError, _Broken) as error:
                await self._again(error, began, "ask", url)

    async def edit_on(self, cases: Sequence[tuple[str, str]]) -> None:
        """Make one edit after the other; each third one is taken back again."""
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            for number, (prompt, target) in enumerate(cases):
                if self.over.is_set():
                    return
                made = await self.change(client, "/edit", {"prompt": prompt, "target": target}, "edit")
                if made is not None and number % 3 == 2:
                    await self.change(client, f"/edits/{made}/rollback", {}, "rollback", made)
                await asyncio.sleep(1.0)

    async def change(
        self, client: httpx.AsyncClient, path: str, body: Any, kind: str, edit_id: str | None = None
    ) -> str | None:
        """Ask for a change, again under the same key until it is answered. -> the edit's id; None if it was refused."""
        headers, began = {"Idempotency-Key": uuid.uuid4().hex, "X-Errata-Actor": "story"}, time.monotonic()
        while True:
            url = self._url()
            try:
                response = await client.post(url + path, json=body, headers=headers)
                if 400 <= response.status_code < 500 and response.status_code != 429:
                    self.refused.append(f"{response.status_code} {response.json().get('title')}: {body}")
                    return None
                response.raise_for_status()
                found = response.json()
                self.acknowledged.append(
                    Acknowledged(edit_id or found["id"], kind, found["revision"], time.monotonic())
                )
                return str(edit_id or found["id"])
            except httpx.HTTPError as error:
                await self._again(error, began, kind, url)

    async def _again(self, error: Exception, began: float, what: str, url: str) -> None:
        if isinstance(error, httpx.ConnectError):
            self._down[url] = time.monotonic() + LEFT_OUT_S
        status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
        self.failed[f"{what}: {status or type(error).__name__.strip('_')}"] += 1
        assert time.monotonic() - began < GIVE_UP_S, f"{what} was not answered within {GIVE_UP_S:.0f} s: {error!r}"
        await asyncio.sleep(PAUSE_S)


class _Broken(Exception):
    """A stream that ended without its last event."""


async def _streamed(client: httpx.AsyncClient, url: str, body: Any) -> tuple[dict[str, Any], str]:
    """The last event of a stream, whose tokens must make up its text, and the replica that sent it."""
    tokens: list[str] = []
    async with aconnect_sse(client, "POST", url, json=body) as source:
        source.response.raise_for_status()
        async for event in source.aiter_sse():
            found = json.loads(event.data)
            if "error" in found or event.event == "error":
                break
            tokens.append("" if found["token"]["special"] else found["token"]["text"])
            if found.get("generated_text") is not None:
                assert "".join(tokens) == found["generated_text"]
                return found, source.response.headers[REPLICA]
    raise _Broken
