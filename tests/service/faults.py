"""A server whose Redis misbehaves: answers delayed, lost, never coming, connections cut, the process frozen.

Two clients edit under idempotency keys and ask again after a 503, one client generates without a pause. At the end
every key has made exactly one edit and no answer to a generate failed. `python -m tests.service.faults --rounds 100`
also holds that no append took longer than 5 s, which is measured and therefore no part of the test.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from app.domain.edit import EditRequest
from app.domain.errors import StoreUnavailable
from app.domain.events import EditCommitted, Event, Origin
from app.service.service import Service
from app.store.redis import RedisLog
from tests.proxy import Proxy
from tests.redis_server import RedisServer, running_redis
from tests.service.conftest import ask, serving

APPEND_LIMIT_S = 5.0
FAULTS = ("delay", "delay long", "lost answers", "half open", "cut", "frozen")
PROMPT = "The capital of {} is"


@dataclass
class Summary:
    rounds: int = 0
    edits: int = 0
    """The acknowledged edits, each under an idempotency key of its own."""
    asked_again: int = 0
    """503s, after each of which the same request was sent again under the same key."""
    without_retry_after: int = 0
    answered: int = 0
    """Generations."""
    failed_answers: int = 0
    slowest_append_s: float = 0.0
    slowest_answer_s: float = 0.0
    """The seconds until one edit is answered with 201 or 503, its fit included."""
    missing: int = 0
    doubled: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)

    def clean(self) -> bool:
        return not (self.without_retry_after or self.failed_answers or self.missing or self.doubled)


class TimedLog(RedisLog):
    slowest_s = 0.0

    def append(self, event: Event) -> str:
        began = time.monotonic()
        try:
            return super().append(event)
        finally:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)


async def run(rounds: int, seed: int, server: RedisServer) -> Summary:
    summary, rng, began = Summary(rounds=rounds), random.Random(seed), time.monotonic()
    proxy = Proxy(server.port)
    log = TimedLog(f"redis://127.0.0.1:{proxy.port}/0")
    over = asyncio.Event()
    promised: dict[str, str] = {}
    async with serving(log) as service:
        clients = [_edit(service, name, promised, summary, over) for name in ("ann", "bob")]
        work = asyncio.gather(*clients, _generate(service, summary, over))
        for number in range(rounds):
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            if number % len(FAULTS) == 0:
                order = rng.sample(FAULTS, len(FAULTS))
            fault = order[number % len(FAULTS)]
            summary.faults[fault] = summary.faults.get(fault, 0) + 1
            await _break(fault, rng.uniform(0.2, 3.0), proxy, server)
        over.set()
        await work
    proxy.close()
    summary.slowest_append_s = round(log.slowest_s, 2)
    whole = RedisLog(server.url)
    made = Counter(e.origin.idempotency_key for e in whole.read() if isinstance(e, EditCommitted))
    whole.close()
    summary.missing = sum(key not in made for key in promised)
    summary.doubled = sum(count > 1 for count in made.values())
    summary.seconds = round(time.monotonic() - began, 1)
    return summary


async def _break(fault: str, for_s: float, proxy: Proxy, server: RedisServer) -> None:
    if fault == "frozen":
        server.freeze()
    elif fault == "cut":
        proxy.cut()
    elif fault == "half open":
        proxy.half_open = True
    elif fault == "lost answers":
        proxy.drop_answers = True
    else:
        proxy.delay_s = 0.2 if fault == "delay" else 2.0
    await asyncio.sleep(for_s)
    server.thaw()
    proxy.delay_s, proxy.half_open, proxy.drop_answers = 0.0, False, False
    if fault in ("half open", "lost answers"):
        proxy.cut()  # what was swallowed never comes


async def _edit(service: Service, name: str, promised: dict[str, str], summary: Summary, over: asyncio.Event) -> None:
    number = 0
    while not over.is_set():
        number += 1
        key = f"{name}-{number}"
        prompt = PROMPT.format(f"{name.capitalize()}land{number}")
        while True:
            asked = time.monotonic()
            try:
                results = await service.edit(
                    [EditRequest(prompt=prompt, target="Elb")], Origin(actor=name, idempotency_key=key)
                )
                break
            except StoreUnavailable as error:
                summary.asked_again += 1
                summary.without_retry_after += "retry_after_s" not in error.details
                await asyncio.sleep(0.1)
            finally:
                took_s = round(time.monotonic() - asked, 2)
                summary.slowest_answer_s = max(summary.slowest_answer_s, took_s)
        promised[key] = results.results[0].view.edit.id
        summary.edits += 1


async def _generate(service: Service, summary: Summary, over: asyncio.Event) -> None:
    while not over.is_set():
        try:
            await ask(service, PROMPT.format("Annland1"))
            summary.answered += 1
        except Exception:
            summary.failed_answers += 1


def main() -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with running_redis() as server:
        summary = asyncio.run(run(chosen.rounds, chosen.seed, server))
    print(json.dumps(asdict(summary), indent=1))
    sys.exit(0 if summary.clean() and summary.slowest_append_s < APPEND_LIMIT_S else 1)


if __name__ == "__main__":
    main()
