"""Extrapolates the measured costs of the parts: which part is full first, with one log or with many shards.

Two kinds of figures, kept apart: `demands` is arithmetic (each part's use is its rate times its cost), and `queues` is
a simulation, event by event, of the busiest shard's writer and of one server that follows it.
"""

import heapq
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.service.hits import FEW, PERIOD_S, SIGN_S

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Measured seconds and bytes: of an edit or event unless the name says otherwise."""

    append_s: float
    raced_append_s: float
    redis_append_s: float
    redis_read_s: float
    """Redis' time to send an event to one server that reads many at once; `redis_read_bytes` is what it sends."""
    redis_read_bytes: float
    redis_wake_s: float
    """Redis' time for a server that wakes up for an event, on top of that."""
    redis_wake_bytes: float
    wake_s: float
    """The time that such a server takes until it waits again; the events that come meanwhile need no further one."""
    redis_waiting_s: float
    """Redis' time a second for a server that waits."""
    redis_waiting_bytes: float
    fold_s: float
    """Read, decode and fold one event."""
    encode_s: float
    load_s: float
    snapshot_write_s: float
    snapshot_read_s: float
    entry_bytes: float
    record_bytes: float
    ledger_bytes: float
    scope_bytes: float
    row_bytes: float
    hit_read_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    replicas: float = 1_000
    edits: float = 10_000_000
    namespaces: int = 100_000
    edits_per_s: float = 10_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """`shards`: number of logs, each with the namespaces whose names hash to it. `followers`: servers that follow each
    of them. A `lazy` server encodes and loads the edits of a namespace with its first request; `held` is the share of
    its namespaces that are asked for. `owned`: one server at a time appends to a shard, so that nobody races."""

    shards: int = 1
    followers: float = 1_000
    lazy: bool = False
    held: float = 1.0
    owned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The capacity of one machine of a part; assumptions, not measurements."""

    folding_core: float = 0.5
    """The share of a server's core that may fold, as the rest decides and serves."""
    bytes_per_s: float = 1.25e9
    """Ten gigabits a second."""
    server_bytes: float = 32 * GIB
    redis_bytes: float = 64 * GIB
    start_s: float = 600.0
    snapshot_s: float = 3_600.0
    hit_edits: int = 1_000
    """The number of edits in a server's counts of answers."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A part's use as a share of what it has, and the quantity that it grows with."""

    use: float
    grows_with: str


def demands(costs: Costs, scale: Scale, design: Design, limits: Limits) -> dict[str, Demand]:
    share = design.followers / scale.replicas
    per_shard, followers = scale.edits_per_s / design.shards, design.followers
    brought = costs.encode_s + costs.load_s
    held = design.held if design.lazy else 1.0
    follow_s = costs.fold_s + brought * held
    edits = scale.edits * share
    memory = edits * (costs.ledger_bytes + held * (costs.scope_bytes + costs.row_bytes))
    append_s = costs.append_s if design.owned else costs.raced_append_s
    wakes = min(per_shard, 1 / costs.wake_s)
    sent = per_shard * costs.redis_read_bytes + wakes * costs.redis_wake_bytes + costs.redis_waiting_bytes
    reading = per_shard * costs.redis_read_s + wakes * costs.redis_wake_s + costs.redis_waiting_s
    busy = per_shard * costs.redis_append_s + followers * reading
    starts = edits * (costs.snapshot_read_s + held * costs.load_s)
    kept = scale.edits / design.shards * (costs.entry_bytes + 2 * costs.record_bytes)
    hits_s = followers * limits.hit_edits * costs.hit_read_s
    hits_period_s = min(SIGN_S, PERIOD_S * max(1.0, followers / FEW))
    return {
        "appends, one after the other": Demand(per_shard * append_s, "edits_per_s"),
        "Redis' core": Demand(busy, "edits_per_s"),
        "Redis' network": Demand(followers * sent / limits.bytes_per_s, "edits_per_s"),
        "Redis' memory": Demand(kept / limits.redis_bytes, "edits"),
        "a server's core: folding": Demand(scale.edits_per_s * share * follow_s / limits.folding_core, "edits_per_s"),
        "a server's memory": Demand(memory / limits.server_bytes, "edits"),
        "a server's start": Demand(starts / limits.start_s, "edits"),
        "a snapshot": Demand(scale.edits / design.shards * costs.snapshot_write_s / limits.snapshot_s, "edits"),
        "counts of answers": Demand(hits_s / hits_period_s, "replicas"),
    }


def full_at(costs: Costs, scale: Scale, design: Design, limits: Limits, part: str) -> float:
    """The quantity that a part's use grows with, where the part is full and all else is as given."""
    quantity = demands(costs, scale, design, limits)[part].grows_with
    low, high = -9.0, 9.0
    for _ in range(50):
        middle = (low + high) / 2
        more = replace(scale, **{quantity: getattr(scale, quantity) * 10**middle})
        grown = replace(design, followers=more.replicas) if quantity == "replicas" else design
        if demands(costs, more, grown, limits)[part].use < 1.0:
            low = middle
        else:
            high = middle
    return float(getattr(scale, quantity) * 10**low)


def busiest(scale: Scale, shards: int, skew: float, seed: int = 0) -> tuple[float, float]:
    """(the busiest shard's share of all edits, the busiest namespace's), where the n-th namespace's rate is 1 / n**skew
    and namespaces are dealt to shards by a hash."""
    rng, loads = random.Random(seed), [0.0] * shards
    for rank in range(1, scale.namespaces + 1):
        loads[rng.randrange(shards)] += rank**-skew
    return max(loads) / sum(loads), 1.0 / sum(loads)


def queues(rate: float, append_s: float, follow_s: float, seconds: float = 20.0, seed: int = 0) -> Mapping[str, Any]:
    """Milliseconds that an edit waits for its append and then until a follower has folded it, where edits arrive at
    random at this rate and each takes its measured time. `grows` is true if either queue has no end."""
    rng, now, appended, folded = random.Random(seed), 0.0, 0.0, 0.0
    waits: list[float] = []
    lags: list[float] = []
    while now < seconds:
        now += rng.expovariate(rate)
        appended = max(now, appended) + append_s
        folded = max(appended, folded) + follow_s
        waits.append(appended - now)
        lags.append(folded - appended)
    return {
        "append_p99_ms": round(1e3 * _percentile(waits, 0.99), 1),
        "lag_p99_ms": round(1e3 * _percentile(lags, 0.99), 1),
        "grows": max(rate * append_s, min(rate, 1 / append_s) * follow_s) >= 1.0,
    }


def _percentile(values: list[float], share: float) -> float:
    return heapq.nlargest(max(1, round(len(values) * (1 - share))), values)[-1]
