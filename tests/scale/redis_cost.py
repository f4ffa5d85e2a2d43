"""Measures a real Redis on loopback as the log: appends, and what it spends on each event that each server follows."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import redis

from app.service.records import Records
from app.store.redis import RedisLog
from tests.scale.parts import CopiedEvents, appends


def measure(url: str, copies: CopiedEvents, count: int) -> dict[str, Any]:
    """Figures of appends, and of what Redis spends per event: on the append, on a server that follows each event as it
    comes, on one that catches up, and each second on one that waits."""
    figures: dict[str, Any] = appends(lambda: RedisLog(url), copies, count)
    log, follower = RedisLog(url), Records(RedisLog(url))
    client: Any = redis.Redis.from_url(url)

    def spent(work: Callable[[], None], times: int) -> dict[str, float]:
        before, began = {**client.info("cpu"), **client.info("stats")}, time.perf_counter()
        work()
        wall_s, after = time.perf_counter() - began, {**client.info("cpu"), **client.info("stats")}
        cpu_s, sent = (
            sum(after[name] - before[name] for name in names)
            for names in (("used_cpu_user", "used_cpu_sys"), ("total_net_output_bytes",))
        )
        return {
            "cpu_us": round(cpu_s / times * 1e6, 1),
            "bytes": round(sent / times),
            "wall_us": round(wall_s / times * 1e6, 1),
        }

    def append() -> None:
        for _ in range(count):
            log.append(copies.event(log.head() + 1))

    async def catch_up() -> None:
        async with follower.writing:
            await follower.catch_up()

    def follow() -> None:
        for _ in range(count):
            log.append(copies.event(log.head() + 1))
            follower.log.wait(follower.revision, 1.0)
            asyncio.run(catch_up())

    def check() -> None:
        for _ in range(count):
            follower.log.wait(follower.revision, 0.001)
            follower.check_history()

    figures["catching_up"] = spent(lambda: asyncio.run(catch_up()), log.head())
    figures["append"] = spent(append, count)
    asyncio.run(catch_up())
    both = spent(follow, count)
    figures["following"] = {name: round(both[name] - figures["append"][name], 1) for name in both}
    figures["waiting_s"] = spent(check, count)
    for each in (log, follower.log, client):
        each.close()
    return figures
