"""Three servers over one Redis log, editing and taking back at once: whatever they do, they end up as one.

`python -m tests.service.test_replicas --examples 100` is the long form.
"""

import argparse
import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.domain.errors import EditRejected, ScopeConflict, StateConflict
from app.domain.events import EditCommitted, Event, Origin
from app.service.service import Service
from app.store.base import Log
from app.store.redis import RedisLog
from tests.domain.test_ledger_model import Model
from tests.redis_server import RedisServer, running_redis
from tests.service.conftest import ask, edit, exact, serving

pytestmark = pytest.mark.slow

SERVERS = 3
PROMPTS = ["The capital of Ruritania is", "The king of Zenda was", "The river of Strelsau is the"]
TARGETS = ["Hentzau", "Rudolf", "Elb"]
CALM_S = 60.0

servers = st.integers(0, SERVERS - 1)
actions = st.one_of(
    st.tuples(st.just("edit"), servers, st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.sampled_from(["roll_back", "disable", "enable"]), servers, st.integers(0, 7), st.just(0)),
    st.tuples(st.just("back_to"), servers, st.integers(0, 3), st.just(0)),
    st.tuples(st.just("switch"), servers, st.booleans(), st.just(0)),
)
rounds = st.lists(st.lists(actions, min_size=1, max_size=4), min_size=1, max_size=4)


async def act(services: list[Service], action: Any, number: int) -> None:
    """One thing that a client asks of one server; what the state forbids is an answer like any other."""
    kind, server, what, target = action
    service, origin = services[server], Origin(actor="ada", idempotency_key=f"{number}")
    known = list(service.records.ledger.entries)
    try:
        if kind == "edit":
            await edit(service, PROMPTS[what], TARGETS[target], origin)
        elif kind == "back_to":
            await service.roll_back_to(min(what, service.revision), None, origin)
        elif kind == "switch":
            await service.set_switch(None, what, origin)
        elif known:
            await getattr(service, kind)([known[what % len(known)]], origin)
    except (StateConflict, ScopeConflict, EditRejected):
        pass


async def converged(services: list[Service], log: Log) -> list[Event]:
    async with asyncio.timeout(CALM_S):
        while {service.revision for service in services} != {log.head()}:
            await asyncio.sleep(0.01)
    return list(log.read())


async def check(services: list[Service], log: Log) -> None:
    """All servers know the same history, and answer what the simplest model makes of it, bit for bit alike."""
    events = await converged(services, log)
    assert [event.revision for event in events] == list(range(1, len(events) + 1))
    assert {service.records.hash for service in services} == {log.hash_of(log.head())}
    model = Model(events)
    for prompt in PROMPTS:
        answers = [await ask(service, prompt) for service in services]
        assert len({tuple(exact(answer)) for answer in answers}) == 1
        live = [i for i in model.live("default") if model.edits[i].request.prompt == prompt]
        assert len(live) <= 1, "the newest of one prompt supersedes the rest"
        if live:
            assert answers[0].said == model.edits[live[0]].request.target
            assert [hit.edit_id for hit in answers[0].hits] == live


async def story(url: str, plan: list[list[Any]]) -> int:
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(serving(RedisLog(url))) for _ in range(SERVERS)]
        log = RedisLog(url)
        stack.callback(log.close)
        for number, actions_at_once in enumerate(plan):
            work = (act(services, action, 10 * number + i) for i, action in enumerate(actions_at_once))
            await asyncio.gather(*work)
            await check(services, log)
        newcomer = await stack.enter_async_context(serving(RedisLog(url)))
        await check([*services, newcomer], log)
        return sum(isinstance(event, EditCommitted) for event in log.read())


def explore(server: RedisServer, examples: int) -> int:
    """The number of edits that were committed on the way."""
    committed = 0

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=examples < 50)
    @given(rounds)
    @example([[("edit", 0, 0, 0), ("edit", 1, 0, 1), ("edit", 2, 0, 2)], [("roll_back", 0, 2, 0), ("edit", 1, 1, 1)]])
    @example([[("edit", 0, 0, 0)], [("roll_back", 1, 0, 0), ("roll_back", 2, 0, 0), ("disable", 0, 0, 0)]])
    def holds(plan: list[list[Any]]) -> None:
        nonlocal committed
        server.client().flushall()
        committed += asyncio.run(story(server.url, plan))

    holds()
    return committed


def test_three_servers_that_edit_and_take_back_at_once_end_up_as_one() -> None:
    with running_redis() as server:
        assert explore(server, examples=6) >= 5


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    chosen = parser.parse_args()
    with running_redis() as redis:
        print(f"{explore(redis, chosen.examples)} edits committed, no difference found")
