"""One server after the other delivers: what one has recorded, another neither repeats nor forgets."""

import asyncio
from collections.abc import Awaitable, Callable

from app.domain.events import Origin
from app.service.webhook_addresses import LONGEST_S
from app.service.webhooks import LEASE_S
from app.store.memory import MemoryLog
from tests.domain.samples import committed
from tests.service.webhook_receiver import URL, Receiver


class SlowReceiver(Receiver):
    """Once, something happens before its name is resolved."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def resolve(self, host: str, port: int) -> list[str]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super().resolve(host, port)


def test_one_server_delivers_until_it_has_been_silent() -> None:
    async def story() -> None:
        receiver, log = Receiver(), MemoryLog()
        one = receiver.server(log)
        hook, _ = await one.webhooks.create(URL, ("publish",), (), Origin(actor="root"))
        other = receiver.server(log)
        await one.write(lambda at: committed(at, "e1"))
        await other.catch_up()
        await one.advance()
        await other.write(lambda at: committed(at, "e2", prompt="Where?"))
        await other.advance()
        assert len(receiver.requests) == 1
        await one.catch_up()
        await one.advance()
        assert len(receiver.requests) == 2
        await other.write(lambda at: committed(at, "e3", prompt="When?"))
        receiver.now_s += LEASE_S + 1
        await other.advance()
        assert len(receiver.requests) == 2, "a message that was begun before may still arrive"
        receiver.now_s += LONGEST_S
        await other.advance()
        assert [each["delivery"] for each in receiver.told] == [f"{hook.id}-{at}" for at in (2, 3, 4)]

    asyncio.run(story())


def test_a_server_that_was_held_up_does_not_set_the_cursor_back() -> None:
    async def story() -> None:
        receiver, log = SlowReceiver(), MemoryLog()
        one = receiver.server(log)
        hook, _ = await one.webhooks.create(URL, ("publish",), (), Origin(actor="root"))
        for name in ("e1", "e2"):
            await one.write(lambda at, name=name: committed(at, name, prompt=name))
        other = receiver.server(log)

        async def taken_over() -> None:
            receiver.now_s += LEASE_S + LONGEST_S + 1
            await other.advance()

        receiver.meanwhile = taken_over
        await one.advance()
        assert [each["revision"] for each in receiver.told] == [2, 3, 2]
        assert (await one.webhooks.deliveries(hook.id))[0] == 3
        await other.advance()
        await one.advance()
        assert len(receiver.told) == 3, "nothing is told again"

    asyncio.run(story())


def test_a_server_that_stops_lets_another_deliver_at_once() -> None:
    async def story() -> None:
        receiver, log = Receiver(), MemoryLog()
        one = receiver.server(log)
        await one.webhooks.create(URL, ("publish",), (), Origin(actor="root"))
        await one.write(lambda at: committed(at, "e1"))
        running = asyncio.create_task(one.webhooks.run())
        async with asyncio.timeout(60):
            while not receiver.told:
                await asyncio.sleep(0.01)
        await one.webhooks.settled()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        other = receiver.server(log)
        await other.write(lambda at: committed(at, "e2", prompt="Where?"))
        await other.advance()
        assert [each["revision"] for each in receiver.told] == [2, 3]

    asyncio.run(story())
