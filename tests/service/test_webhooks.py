"""Webhooks: told from the log in order, signed, tried again, once by one server, and nowhere that is not allowed."""

import asyncio
import gc
import hashlib
import hmac
import json
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.domain.errors import IdempotencyMismatch, InvalidRequest, StateConflict, StoreUnavailable, UnknownWebhook
from app.domain.events import EditsRolledBack, Origin, SwitchSet
from app.service.webhook_addresses import LONGEST_S
from app.service.webhooks import LEASE, LEASE_S, MOST_ATTEMPTS, Delivery
from app.store.memory import MemoryLog
from tests.domain.samples import committed
from tests.service.webhook_receiver import PUBLIC, URL, Receiver, Server


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


async def hooked(server: Server, *kinds: str, namespaces: tuple[str, ...] = ()) -> tuple[str, str]:
    """-> id and secret."""
    kinds = kinds or ("publish", "rollback", "switch")
    hook, secret = await server.webhooks.create(URL, kinds, namespaces, Origin(actor="root"))
    return hook.id, secret


def test_changes_are_told_in_their_order_and_once(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        hook_id, _ = await hooked(server)
        await server.write(lambda at: committed(at, "e1", prompt="Who?", target="Ada"))
        await server.write(
            lambda at: EditsRolledBack(revision=at, at_s=9.0, origin=Origin(actor="ada", reason="no"), edit_ids=("e1",))
        )
        for _ in range(2):
            await server.advance()
        assert [each["event"] for each in receiver.told] == ["publish", "rollback"]
        assert [each["delivery"] for each in receiver.told] == [f"{hook_id}-2", f"{hook_id}-3"]
        first, second = receiver.told
        assert first["edits"] == [
            {
                "id": "e1",
                "namespace": "default",
                "prompt": "Who?",
                "target": "Ada",
                "before": "Bo Vane",
                "promoted_from": None,
            }
        ]
        assert (second["actor"], second["reason"], second["revision"]) == ("ada", "no", 3)
        cursor, deliveries = await server.webhooks.deliveries(hook_id)
        assert cursor == 3
        assert [(each.outcome, each.status, each.attempts) for each in deliveries] == [("delivered", 204, 1)] * 2

    run(story())


def test_a_message_is_signed_with_the_time_that_it_was_sent(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        hook_id, secret = await hooked(server)
        assert secret.startswith("whsec_")
        await server.write(lambda at: committed(at, "e1"))
        await server.advance()
        (request,) = receiver.requests
        at, mac = (part.split("=", 1)[1] for part in request.headers["X-Errata-Signature"].split(","))
        expected = hmac.new(secret.encode(), at.encode() + b"." + request.content, hashlib.sha256).hexdigest()
        assert (at, mac) == ("1000", expected)
        assert request.headers["X-Errata-Event"] == "publish"
        assert request.headers["X-Errata-Delivery"] == f"{hook_id}-2"
        entries = b"".join(log.entry(revision) for revision in (1, 2))
        assert secret.encode() not in entries, "the log is exported"

    run(story())


def test_the_request_goes_to_the_address_that_was_looked_at(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        await hooked(server)
        await server.write(lambda at: committed(at, "e1"))
        await server.advance()
        (request,) = receiver.requests
        assert str(request.url) == URL.replace("hooks.example.com", PUBLIC)
        assert request.headers["Host"] == "hooks.example.com:8443"
        assert request.extensions["sni_hostname"] == "hooks.example.com", "whose certificate it must show"

    run(story())


def test_what_fails_is_tried_again_later_and_later_and_holds_its_place(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        hook_id, _ = await hooked(server)
        for name in ("e1", "e2"):
            await server.write(lambda at, name=name: committed(at, name, prompt=name))
        receiver.status = 500
        waits = []
        for _ in range(4):
            began = receiver.now_s
            count = len(receiver.requests)
            while len(receiver.requests) == count:
                await server.advance()
                receiver.now_s += 0.5
            waits.append(receiver.now_s - began)
        assert waits == sorted(waits)
        assert waits[-1] >= 4
        assert {each["delivery"] for each in receiver.told} == {f"{hook_id}-2"}
        _, (waiting,) = await server.webhooks.deliveries(hook_id)
        assert (waiting.outcome, waiting.attempts, waiting.status) == ("waiting", 4, 500)
        receiver.status, receiver.now_s = 200, receiver.now_s + 60
        await server.advance()
        _, deliveries = await server.webhooks.deliveries(hook_id)
        assert [(each.id, each.outcome, each.attempts) for each in reversed(deliveries)] == [
            (f"{hook_id}-2", "delivered", 5),
            (f"{hook_id}-3", "delivered", 1),
        ]

    run(story())


def test_what_never_arrives_is_given_up_and_the_rest_goes_on(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        hook_id, _ = await hooked(server)
        await server.write(lambda at: committed(at, "e1"))
        receiver.status = httpx.ConnectError("refused")
        for _ in range(MOST_ATTEMPTS):
            await server.advance()
            receiver.now_s += 4_000
        receiver.status = 200
        await server.write(lambda at: SwitchSet(revision=at, at_s=1.0, origin=Origin(), namespace=None, on=False))
        await server.advance()
        _, deliveries = await server.webhooks.deliveries(hook_id)
        assert [(each.kind, each.outcome, each.attempts) for each in reversed(deliveries)] == [
            ("publish", "given_up", MOST_ATTEMPTS),
            ("switch", "delivered", 1),
        ]

    run(story())


def test_a_name_that_no_host_can_have_is_a_failed_delivery(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        async def unreadable(_host: str, _port: int) -> list[str]:
            return ["a..b".encode("idna").decode()]

        receiver.resolve = unreadable
        server = receiver.server(log)
        hook_id, _ = await hooked(server)
        await server.write(lambda at: committed(at, "e1"))
        await server.advance()
        found = await server.webhooks.test(hook_id, "ada")
        _, deliveries = await server.webhooks.deliveries(hook_id)
        assert {(each.kind, each.outcome) for each in deliveries} == {("publish", "waiting"), ("test", "given_up")}
        assert "no host" in (found.problem or "")

    run(story())


def test_a_server_that_lost_its_lease_sends_no_further_event(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        hook_id, _ = await hooked(server)
        for name in ("e1", "e2"):
            await server.write(lambda at, name=name: committed(at, name, prompt=name))
        receiver.takes_s = LEASE_S + 1
        await server.advance()
        assert [each["delivery"] for each in receiver.told] == [f"{hook_id}-2"]
        await server.advance()
        assert [each["delivery"] for each in receiver.told] == [f"{hook_id}-2", f"{hook_id}-3"]

    run(story())


def test_a_lease_that_could_not_be_renewed_is_renewed_at_the_next_attempt(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server, put = receiver.server(log), log.put
        await hooked(server)
        await server.advance()
        receiver.now_s += LEASE_S - 10

        def refuse(name: str, data: bytes) -> None:
            raise StoreUnavailable("no disk")

        log.put = refuse  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            await server.advance()
        log.put = put  # type: ignore[method-assign]
        await server.advance()
        assert json.loads(log.get(LEASE) or b"")["until_s"] == receiver.now_s + LEASE_S

    run(story())


def test_a_restart_loses_none_and_repeats_none_that_was_noted(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        hook_id, _ = await hooked(server)
        await server.write(lambda at: committed(at, "e1"))
        await server.advance()
        await server.write(lambda at: committed(at, "e2", prompt="Where?"))
        receiver.now_s += LEASE_S + LONGEST_S + 1
        await receiver.server(log).advance()
        assert [each["delivery"] for each in receiver.told] == [f"{hook_id}-2", f"{hook_id}-3"]

    run(story())


def test_only_what_was_asked_for_is_told(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        await server.write(lambda at: committed(at, "before", prompt="Before?"))
        hook_id, _ = await hooked(server, "publish", "switch", namespaces=("production",))
        await server.write(lambda at: committed(at, "e1", namespace="staging"))
        await server.write(lambda at: committed(at, "e2", namespace="production"))
        for namespace in ("staging", "production", None):
            await server.write(
                lambda at, namespace=namespace: SwitchSet(
                    revision=at, at_s=1.0, origin=Origin(), namespace=namespace, on=False
                )
            )
        await server.write(lambda at: EditsRolledBack(revision=at, at_s=1.0, origin=Origin(), edit_ids=("e2",)))
        await server.advance()
        told = [(each["event"], each.get("namespace", each.get("edits", [{}])[0].get("id"))) for each in receiver.told]
        assert told == [("publish", "e2"), ("switch", "production"), ("switch", None)]
        cursor, _ = await server.webhooks.deliveries(hook_id)
        assert cursor == server.records.revision

    run(story())


def test_a_webhook_that_is_removed_is_told_nothing_and_its_secret_is_gone(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        hook_id, _ = await hooked(server)
        assert any(hook_id in name for name in log.names())
        await server.webhooks.remove(hook_id, Origin(actor="root"))
        await server.write(lambda at: committed(at, "e1"))
        await server.advance()
        assert receiver.requests == []
        assert not any(hook_id in name for name in log.names())
        for step in (server.webhooks.test(hook_id, "ada"), server.webhooks.remove(hook_id, Origin())):
            with pytest.raises(UnknownWebhook):
                await step

    run(story())


def test_a_test_is_sent_once_and_listed(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        hook_id, _ = await hooked(server)
        arrived = await server.webhooks.test(hook_id, "ada")
        assert (arrived.kind, arrived.outcome, receiver.told[0]["actor"]) == ("test", "delivered", "ada")
        receiver.status = 404
        lost = await server.webhooks.test(hook_id, "ada")
        assert (lost.outcome, lost.status) == ("given_up", 404)
        await server.advance()
        assert len(receiver.requests) == 2
        _, deliveries = await server.webhooks.deliveries(hook_id)
        assert {each.id for each in deliveries} == {arrived.id, lost.id}
        names = {arrived.id, lost.id}
        del arrived, lost, deliveries
        await server.webhooks.remove(hook_id, Origin())
        async with asyncio.timeout(60):  # a thread lets go of what it handed over a moment after that has arrived
            while [each for each in gc.get_objects() if type(each) is Delivery and each.id in names]:
                await asyncio.sleep(0.01)

    run(story())


def test_the_same_again_under_a_key_sets_up_none(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        origin = Origin(idempotency_key="once", digest="d")
        await server.webhooks.create(URL, ["publish"], (), origin)
        with pytest.raises(StateConflict):
            await server.webhooks.create(URL, ["publish"], (), origin)
        with pytest.raises(IdempotencyMismatch):
            await server.webhooks.create(URL, ["rollback"], (), replace(origin, digest="other"))
        assert len(server.records.ledger.webhooks) == 1
        assert len([name for name in log.names() if name.endswith("-secret")]) == 1

    run(story())


def test_a_webhook_that_could_not_be_set_up_leaves_no_secret(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        with pytest.raises(InvalidRequest, match="surrogate"):
            await server.webhooks.create(URL, ["publish"], (), Origin(reason="\ud800"))
        async with server.records.writing:
            waiting = asyncio.create_task(hooked(server))
            while not log.names():
                await asyncio.sleep(0.001)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert (server.records.ledger.webhooks, log.names()) == ({}, [])

    run(story())


def test_a_log_that_was_copied_without_the_secret_says_so(receiver: Receiver, log: MemoryLog) -> None:
    async def story() -> None:
        server = receiver.server(log)
        hook_id, _ = await hooked(server)
        log.drop(log.names())
        found = await server.webhooks.test(hook_id, "ada")
        assert "set the webhook up anew" in (found.problem or "")
        assert receiver.requests == []

    run(story())
