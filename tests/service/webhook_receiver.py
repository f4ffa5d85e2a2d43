"""The other end of webhooks, and servers over one log that deliver to it."""

import json
from collections.abc import Callable
from typing import Any

import httpx

from app.service.records import Records
from app.service.webhook_addresses import WebhookAddresses
from app.service.webhooks import Webhooks
from app.store.base import Log

URL = "https://hooks.example.com:8443/errata?to=a"
PUBLIC, PRIVATE = "93.184.216.34", "10.0.0.7"


class Receiver:
    """The receiver of webhooks; it answers with `status`, or fails to. Names resolve to `addresses`."""

    def __init__(self) -> None:
        self.status: int | Exception = 204
        self.requests: list[httpx.Request] = []
        self.addresses = [PUBLIC]
        self.now_s, self.takes_s = 1_000.0, 0.0

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.now_s += self.takes_s
        if isinstance(self.status, Exception):
            raise self.status
        return httpx.Response(self.status, content=b"thanks")

    async def resolve(self, host: str, port: int) -> list[str]:
        assert (host, port) == ("hooks.example.com", 8443)
        return self.addresses

    @property
    def told(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]

    def server(self, log: Log) -> "Server":
        targets = WebhookAddresses(resolve=self.resolve, transport=httpx.MockTransport(self.answer))
        records = Records(log, clock=lambda: self.now_s)
        records.fold_all()
        return Server(records, Webhooks(records, lambda: self.now_s, targets))


class Server:
    """One over a log."""

    def __init__(self, records: Records, webhooks: Webhooks) -> None:
        self.records, self.webhooks = records, webhooks

    async def write(self, make: Callable[[int], Any]) -> None:
        await self.records.write(lambda: make(self.records.revision + 1))

    async def catch_up(self) -> None:
        async with self.records.writing:
            await self.records.catch_up()

    async def advance(self) -> None:
        await self.webhooks.advance()
        await self.webhooks.settled()
