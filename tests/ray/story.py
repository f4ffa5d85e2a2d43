"""Replicas in a Ray cluster of two nodes, on this machine: a replica and then a node are killed under load.

`python -m tests.ray.story` tells it, in about six minutes; `pytest -m ray` runs it as a test.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise, zip_longest
from typing import Any

import httpx

from app.demo.facts import as_question, load_relations
from app.domain.events import EditCommitted, EditsRolledBack, Event
from app.store.open import open_log
from tests.ray.cluster import HEAD, OTHER, TwoNodes, two_nodes
from tests.ray.load import Answer, Load
from tests.redis_server import running_redis

LEAST, MOST = 2, 3
APPLIED_S = 5.0
"""The time, in seconds, after which a change must be known to every replica: the follower's second, on busy cores."""
STRENGTH_S = 240.0
Tell = Callable[[str], None]


def cases(of_each: int) -> list[tuple[str, str]]:
    """Prompts whose answers are out of date, with the present ones: some of each table, by turns."""
    found = [
        [
            (as_question(relation.questions[0].replace("{s}", fact.subject)), fact.now)
            for fact in relation.facts
            if fact.now is not None
        ][:of_each]
        for relation in load_relations()
    ]
    return [each for turn in zip_longest(*found) for each in turn if each is not None]


def others(count: int) -> list[str]:
    """Prompts whose answers nobody edits, of tables without an answer that is out of date."""
    calm = (relation for relation in load_relations() if not any(fact.stale for fact in relation.facts))
    return [as_question(each.questions[0].replace("{s}", each.facts[0].subject)) for each in calm][:count]


def live_targets(events: Sequence[Event]) -> Iterator[dict[str, str]]:
    """The target of each edited prompt at every revision, from 0 on: the simplest fold of a log."""
    live: dict[str, tuple[str, str]] = {}
    yield {}
    for event in events:
        if isinstance(event, EditCommitted):
            live[event.edit.id] = (event.edit.request.prompt, event.edit.request.target)
        elif isinstance(event, EditsRolledBack):
            for edit_id in event.edit_ids:
                live.pop(edit_id)
        yield dict(live.values())


def wrong(answers: Sequence[Answer], events: Sequence[Event], base: dict[str, str]) -> list[Answer]:
    """The answers that are not those of the revision that they name."""
    targets = list(live_targets(events))
    return [each for each in answers if each.text.strip() != targets[each.revision].get(each.prompt, base[each.prompt])]


def lag_s(answer: Answer, load: Load) -> float:
    """The time for which the oldest acknowledged change that an answer does not know had been acknowledged when it was
    asked for, in seconds."""
    unknown = [each.at for each in load.acknowledged if each.revision > answer.revision and each.at < answer.asked_at]
    return answer.asked_at - min(unknown, default=answer.asked_at)


async def strength(nodes: TwoNodes, count: int, without: Sequence[int] = ()) -> float:
    """Wait until that many replicas run, none of them with these process ids. -> seconds."""
    began = time.monotonic()
    while True:
        running = await asyncio.to_thread(nodes.replicas)
        if len(running) == count and not {each.pid for each in running} & set(without):
            return time.monotonic() - began
        state = await asyncio.to_thread(nodes.state)
        assert time.monotonic() - began < STRENGTH_S, f"{len(running)} of {count} replicas run: {state}"
        await asyncio.sleep(0.25)


async def story(nodes: TwoNodes, url: str, tell: Tell) -> dict[str, Any]:
    """Tell it, and raise AssertionError where it goes otherwise. -> figures."""
    began = time.monotonic()
    await asyncio.to_thread(nodes.await_running, STRENGTH_S)
    figures: dict[str, Any] = {"start_s": time.monotonic() - began}
    tell(f"Two replicas run after {figures['start_s']:.0f} s.")
    edits, calm = cases(3), others(8)
    prompts = [prompt for prompt, _ in edits] + calm
    load = Load(nodes.urls)
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        asked = [await load.asked(client, prompt) for prompt in prompts]
        base = {each.prompt: each.text.strip() for each in asked}
        assert {each.revision for each in asked} == {0}
        clients = [load.ask_on(prompts, stream=number == 0, first=8 * number) for number in range(4)]
        began = time.monotonic()
        running = asyncio.gather(*clients, load.edit_on(edits))
        try:
            figures |= await _killed(nodes, load, tell)
            await asyncio.sleep(3)
        finally:
            load.over.set()
            await running
        figures["load_s"] = time.monotonic() - began
        with closing(open_log(url)) as log:
            events = list(log.read())
        figures |= _checked(load, events, base)
        # every replica, whichever answers
        tell("Each prompt is asked again, at the newest revision.")
        again = [await load.asked(client, prompt) for prompt in prompts for _ in range(2)]
        assert not wrong(again, events, base)
        assert {each.revision for each in again} == {len(events)}
        await _drained(nodes, load, url, len(events), client, tell)
    return figures


async def _killed(nodes: TwoNodes, load: Load, tell: Tell) -> dict[str, Any]:
    figures: dict[str, Any] = {"scaled_up_s": await strength(nodes, MOST)}
    replicas = await asyncio.to_thread(nodes.replicas)
    assert {each.node for each in replicas} == {HEAD, OTHER}, "Serve spreads them"
    tell(f"Under load they are three after {figures['scaled_up_s']:.0f} s, on both nodes.")
    await asyncio.sleep(3)
    killed = next(each for each in replicas if each.node == HEAD)
    failed = load.failed.total()
    os.kill(killed.pid, signal.SIGKILL)
    figures["replica_back_s"] = await strength(nodes, MOST, [killed.pid])
    figures["replica_failed"] = load.failed.total() - failed
    tell(
        f"kill -9 of a replica: {figures['replica_failed']} attempts failed and were made again, three run after "
        f"{figures['replica_back_s']:.0f} s."
    )
    await asyncio.sleep(3)
    gone = [each.pid for each in await asyncio.to_thread(nodes.replicas) if each.node == OTHER]
    assert gone, "there is something to lose on the other node"
    failed, began = load.failed.total(), time.monotonic()
    await asyncio.to_thread(nodes.kill_other_node)
    await strength(nodes, MOST, gone)
    figures["node_back_s"] = time.monotonic() - began
    figures["node_failed"], figures["node_replicas"] = load.failed.total() - failed, len(gone)
    tell(
        f"A node with {len(gone)} of them is killed: {figures['node_failed']} attempts failed and were made again, "
        f"three run after {figures['node_back_s']:.0f} s."
    )
    return figures


def _checked(load: Load, events: Sequence[Event], base: dict[str, str]) -> dict[str, Any]:
    """No acknowledged change is lost, no answer is wrong, and none comes from a replica that is behind."""
    committed = {each.edit.id for each in events if isinstance(each, EditCommitted)}
    rolled_back = {edit_id for each in events if isinstance(each, EditsRolledBack) for edit_id in each.edit_ids}
    for each in load.acknowledged:
        assert each.edit_id in (committed if each.kind == "edit" else rolled_back), f"lost: {each}"
    assert len(committed) == sum(each.kind == "edit" for each in load.acknowledged), "an edit was made twice"
    mistaken = wrong(load.answers, events, base)
    assert not mistaken, f"{len(mistaken)} wrong answers, such as {mistaken[0]}"
    behind = max(load.answers, key=lambda each: lag_s(each, load))
    assert lag_s(behind, load) < APPLIED_S, behind
    firsts = {each.replica: each for each in reversed(load.answers)}
    assert len(firsts) > MOST, "new replicas answered, too"
    assert load.streamed > 20
    assert len(load.acknowledged) > 5
    slowest = sorted(each.seconds for each in load.answers)
    ends = sorted(each.asked_at + each.seconds for each in load.answers)
    return {
        "answers": len(load.answers),
        "streamed": load.streamed,
        "edited_answers": sum(each.text.strip() != base[each.prompt] for each in load.answers),
        "acknowledged": len(load.acknowledged),
        "refused": len(load.refused),
        "failed": dict(load.failed),
        "lag_s": lag_s(behind, load),
        "first_lags_s": [round(lag_s(each, load), 3) for each in firsts.values()],
        "longest_silence_s": max(later - end for end, later in pairwise(ends)),
        "p50_s": slowest[len(slowest) // 2],
        "p99_s": slowest[len(slowest) * 99 // 100],
    }


async def _drained(nodes: TwoNodes, load: Load, url: str, head: int, client: httpx.AsyncClient, tell: Tell) -> None:
    """A stop lets edits end that are under way, and they are answered."""
    head, targets = open_log(url).head(), ["one", "two", "three"]
    made = [
        asyncio.create_task(
            client.post(f"{load.urls[0]}/edit", json={"prompt": prompt, "target": target, "force": True})
        )
        for prompt, target in zip(others(20)[-3:], targets, strict=True)
    ]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(nodes.stop_application)
    assert [(await each).is_success for each in made] == [True] * 3
    with closing(open_log(url)) as log:
        assert log.head() == head + 3
    tell("Three edits that were under way when the application was stopped are answered, and in the log.")


def told(tell: Tell) -> dict[str, Any]:
    with running_redis() as redis, two_nodes(ERRATA_STORE=redis.url) as nodes:
        nodes.deploy(least=LEAST, most=MOST, allow_anonymous=True)
        return asyncio.run(story(nodes, redis.url, tell))


if __name__ == "__main__":
    print(json.dumps(told(lambda text: print(text, file=sys.stderr)), indent=2))
