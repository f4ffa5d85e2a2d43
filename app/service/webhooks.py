"""Webhooks: set up by events, and notified from the log by one server at a time, each change in order until it arrives.

Nothing waits for a delivery: the event is read from the log after its commit. The revision up to which a webhook has
been notified (its cursor) is stored beside the log, as are its secret and its last deliveries, so that a restart loses
none. A message that was sent but not recorded before a crash is sent again under the same delivery id.
"""

import asyncio
import json
import logging
import secrets
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from app.domain.edit import NAMESPACE, NAMESPACE_RULE
from app.domain.errors import ErrataError, InvalidRequest, RevisionGone, StateConflict, StoreUnavailable
from app.domain.events import Event, Origin, WebhookRemoved, WebhookSet
from app.domain.webhooks import KINDS, Webhook
from app.service.records import Clock, Records
from app.service.webhook_addresses import LONGEST_S, Unreachable, WebhookAddresses
from app.service.webhook_messages import WebhookMessage, headers_of, message_of, test_message

PREFIX = "webhook-"
LEASE = "webhooks-lease"
LEASE_S = 30.0
"""A server that has not renewed its lease for this long, in seconds, begins no message. Another server takes over once
one that was begun before has ended, too."""
POLL_S = 1.0
MOST_HOOKS = 100
MOST_KEPT = 50
"""The number of deliveries that are kept, the newest."""
MOST_ATTEMPTS = 15
LONGEST_WAIT_S = 3600.0
"""The longest wait after a failed attempt: 1 s, 2 s, 4 s, ... up to this; 15 attempts take about three hours."""
EVENTS_AT_ONCE = 50
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Delivery:
    """A message and its outcome: delivered, waiting (for another attempt) or given_up. `status` is that of the last
    answer, if one came."""

    id: str
    kind: str
    at_s: float
    """The time of the last attempt."""
    attempts: int
    outcome: str
    status: int | None = None
    problem: str | None = None


@dataclass(slots=True)
class WebhookState:
    """The progress of a webhook through the log. `wait_until_s` is the time at which a failed delivery is tried
    again."""

    cursor: int
    deliveries: list[Delivery] = field(default_factory=list)
    attempts: int = 0
    wait_until_s: float = 0.0


class Webhooks:
    def __init__(self, records: Records, clock: Clock, targets: WebhookAddresses) -> None:
        self._records, self._clock, self._targets = records, clock, targets
        self._server = uuid.uuid4().hex[:16]
        self._leased_until_s = 0.0
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._tests: dict[str, list[Delivery]] = {}

    # -- setting up

    async def create(
        self, url: str, kinds: Sequence[str], namespaces: Sequence[str], origin: Origin
    ) -> tuple[Webhook, str]:
        """Set up a webhook; returns it with the secret that signs its messages, which is never shown again.

        Raises InvalidRequest, and StateConflict or IdempotencyMismatch for an idempotency key that was used before.
        """
        self._targets.check(url)
        wanted, names = tuple(dict.fromkeys(kinds)), tuple(dict.fromkeys(namespaces))
        if not wanted or any(each not in KINDS for each in wanted):
            raise InvalidRequest(f"A webhook tells of {', '.join(KINDS)}: name at least one of them.")
        if any(not NAMESPACE.fullmatch(each) for each in names):
            raise InvalidRequest(f"A namespace of a webhook is not a name: use {NAMESPACE_RULE}.")
        hook_id, secret = f"wh_{uuid.uuid4().hex[:12]}", f"whsec_{secrets.token_urlsafe(32)}"
        log = self._records.log
        await asyncio.to_thread(log.put, f"{PREFIX}{hook_id}-secret", secret.encode())

        def set_up() -> Event:
            if self._records.done_under(origin) is not None:
                raise StateConflict("Under this Idempotency-Key a webhook was set up, and its secret shown then.")
            if len(self._records.ledger.webhooks) >= MOST_HOOKS:
                raise StateConflict(f"There are {MOST_HOOKS} webhooks already: remove one first.")
            return WebhookSet(
                revision=self._records.revision + 1,
                at_s=self._clock(),
                origin=origin,
                hook_id=hook_id,
                url=url,
                kinds=wanted,
                namespaces=names,
            )

        try:
            await self._records.write(set_up)
        except BaseException as error:
            unknown = isinstance(error, StoreUnavailable)  # the event may be in the log, and needs its secret then
            if not unknown and hook_id not in self._records.ledger.webhooks:
                await asyncio.to_thread(log.drop, [f"{PREFIX}{hook_id}-secret"])
            raise
        return self._records.ledger.check_webhook(hook_id), secret

    async def remove(self, hook_id: str, origin: Origin) -> None:
        """Remove a webhook: nothing more is sent to it. Raises UnknownWebhook."""

        def removed() -> Event | None:
            if self._records.done_under(origin) is not None:
                return None
            hook = self._records.ledger.check_webhook(hook_id)
            return WebhookRemoved(
                revision=self._records.revision + 1, at_s=self._clock(), origin=origin, hook_id=hook_id, url=hook.url
            )

        await self._records.write(removed)
        self._tests.pop(hook_id, None)
        task = self._under_way.pop(hook_id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(self._records.log.drop, [f"{PREFIX}{hook_id}-{each}" for each in ("secret", "told")])

    async def test(self, hook_id: str, actor: str) -> Delivery:
        """Send one test message now, beside those that are due. Raises UnknownWebhook."""
        hook = self._records.ledger.check_webhook(hook_id)
        delivery = await self._attempt(hook, test_message(hook, uuid.uuid4().hex[:8], actor), 1)
        if delivery.outcome != "delivered":
            delivery.outcome = "given_up"
        known = self._records.ledger.webhooks  # one may have been removed meanwhile, here or on another server
        deliveries = {**self._tests, hook_id: [*self._tests.get(hook_id, []), delivery][-MOST_KEPT:]}
        self._tests = {each: tests for each, tests in deliveries.items() if each in known}
        return delivery

    async def deliveries(self, hook_id: str) -> tuple[int, list[Delivery]]:
        """The revision up to which a webhook has been notified, and its last deliveries, newest first. Raises
        UnknownWebhook."""
        hook = self._records.ledger.check_webhook(hook_id)
        progress = await asyncio.to_thread(self._progress, hook)
        deliveries = [*progress.deliveries, *self._tests.get(hook_id, [])]
        deliveries.reverse()  # so that, of deliveries at the same time, the later one comes first
        deliveries.sort(key=lambda each: -each.at_s)
        return progress.cursor, deliveries[:MOST_KEPT]

    # -- delivering

    async def run(self) -> None:
        try:
            while True:
                try:
                    await self.advance()
                except ErrataError as error:
                    _log.info("Webhooks wait: %s", error.message)
                except Exception:
                    _log.exception("Webhooks wait")
                await self._records.wait_for(self._records.revision + 1, POLL_S)
        finally:
            for task in self._under_way.values():
                task.cancel()
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)
            with suppress(ErrataError):  # otherwise another server waits until the lease has run out
                await asyncio.to_thread(self._give_back)

    async def advance(self) -> None:
        """Start notifying each webhook of its outstanding events, if this server is the one that delivers."""
        hooks = self._records.ledger.webhooks
        if not hooks or not await asyncio.to_thread(self._leads):
            return
        for hook in list(hooks.values()):
            if hook.id not in self._under_way:
                task = asyncio.create_task(self._notify(hook))
                self._under_way[hook.id] = task
                task.add_done_callback(self._ended(hook.id))

    def _ended(self, hook_id: str) -> Callable[[asyncio.Task[None]], None]:
        def ended(task: asyncio.Task[None]) -> None:
            self._under_way.pop(hook_id, None)
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.warning("The webhook %s waits: %s", hook_id, error)

        return ended

    async def settled(self) -> None:
        """Wait until no delivery is under way."""
        while self._under_way:
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _leads(self) -> bool:
        """True if this server delivers. One server does at a time, as long as it renews its lease; two may for a moment
        if both begin at once, and the receiver recognises repetitions by the delivery id."""
        now_s, log = self._clock(), self._records.log
        held = _read(log.get(LEASE))
        if held.get("server") not in (None, self._server) and held.get("until_s", 0.0) + LONGEST_S > now_s:
            self._leased_until_s = 0.0
            return False
        if held.get("server") != self._server or self._leased_until_s - now_s < LEASE_S / 2:
            until_s = now_s + LEASE_S
            log.put(LEASE, json.dumps({"server": self._server, "until_s": until_s}).encode())
            self._leased_until_s = until_s  # not before others can see it
        return True

    def _give_back(self) -> None:
        """End the lease, if this server has it. Blocks."""
        if _read(self._records.log.get(LEASE)).get("server") == self._server:
            self._records.log.drop([LEASE])

    async def _notify(self, hook: Webhook) -> None:
        progress = await asyncio.to_thread(self._progress, hook)
        while progress.wait_until_s <= self._clock() and self._leased_until_s > self._clock():
            events = await asyncio.to_thread(self._events, progress)
            if not events:
                return
            before = progress.cursor
            for event in events:
                if self._leased_until_s <= self._clock():
                    return  # another server may have taken over while an earlier event was sent
                message = message_of(hook, event, self._records.ledger)
                if message is not None and not await self._deliver(hook, message, progress):
                    return
                progress.cursor = event.revision
                if message is not None and not await self._keep(hook, progress):
                    return
            if progress.cursor > before and not await self._keep(hook, progress):
                return

    def _events(self, progress: WebhookState) -> list[Event]:
        """The next events after the cursor; blocks. Events that were trimmed from the log are skipped."""
        try:
            return [event for event, _ in self._records.events(progress.cursor, EVENTS_AT_ONCE)]
        except RevisionGone as error:
            _log.warning("A webhook missed what was trimmed from the log: %s", error.message)
            progress.cursor = error.details["oldest"] - 1
            return [event for event, _ in self._records.events(progress.cursor, EVENTS_AT_ONCE)]

    async def _deliver(self, hook: Webhook, message: WebhookMessage, progress: WebhookState) -> bool:
        """Deliver a message; returns whether to continue, because it arrived or was given up."""
        delivery = await self._attempt(hook, message, progress.attempts + 1)
        progress.deliveries = [each for each in progress.deliveries if each.id != delivery.id][-MOST_KEPT + 1 :]
        progress.deliveries.append(delivery)
        if delivery.outcome == "waiting" and delivery.attempts < MOST_ATTEMPTS:
            progress.attempts = delivery.attempts
            progress.wait_until_s = self._clock() + min(2.0 ** (delivery.attempts - 1), LONGEST_WAIT_S)
            await self._keep(hook, progress)
            return False
        if delivery.outcome == "waiting":
            delivery.outcome = "given_up"
            _log.warning("The webhook %s gives up %s: %s", hook.id, message.id, delivery.problem)
        progress.attempts, progress.wait_until_s = 0, 0.0
        return True

    async def _attempt(self, hook: Webhook, message: WebhookMessage, attempt: int) -> Delivery:
        delivery = Delivery(id=message.id, kind=message.kind, at_s=self._clock(), attempts=attempt, outcome="waiting")
        secret = await asyncio.to_thread(self._records.log.get, f"{PREFIX}{hook.id}-secret")
        if secret is None:
            delivery.problem = "Its secret is not beside the log, which was copied without it: set the webhook up anew."
            return delivery
        try:
            headers = headers_of(message, secret.decode(), self._clock())
            delivery.status = await self._targets.send(hook.url, message.body, headers)
        except Unreachable as error:
            delivery.problem = str(error)
            return delivery
        if 200 <= delivery.status < 300:
            delivery.outcome = "delivered"
        else:
            delivery.problem = f"It answered {delivery.status}, where 200 to 299 says that it arrived."
        return delivery

    # -- state beside the log; these functions block

    def _progress(self, hook: Webhook) -> WebhookState:
        state = _read(self._records.log.get(f"{PREFIX}{hook.id}-told"))
        try:
            deliveries = [Delivery(**each) for each in state.get("deliveries", [])]
            return WebhookState(int(state["cursor"]), deliveries, int(state["attempts"]), float(state["wait_until_s"]))
        except (KeyError, TypeError, ValueError):  # no delivery was recorded yet
            return WebhookState(hook.since)

    async def _keep(self, hook: Webhook, progress: WebhookState) -> bool:
        """Record the progress; returns False, and records nothing, if another server has come farther."""

        def kept() -> bool:
            if self._progress(hook).cursor > progress.cursor:
                return False
            self._records.log.put(f"{PREFIX}{hook.id}-told", json.dumps(asdict(progress)).encode())
            return True

        return hook.id in self._records.ledger.webhooks and await asyncio.to_thread(kept)


def _read(data: bytes | None) -> dict[str, Any]:
    """The stored record; empty if it is missing or damaged, so that a webhook begins at its own creation."""
    try:
        content = json.loads(data or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
