"""The reach of one log: `python -m tests.scale` measures each part's cost per edit on this machine, in about ten
minutes, and works out from it which part of many servers is full first.

It writes figures as it goes, to the terminal as text and with `--out FILE` as JSON.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.bench.scope_index import encoded_bank
from app.bootstrap import build_service
from app.config import Settings
from app.domain.edit import EditRequest
from app.domain.events import EditCommitted, Origin
from app.scope.models import load_models
from app.store.sqlite import SqliteLog
from tests.redis_server import running_redis
from tests.scale import parts, redis_cost, report
from tests.scale.model import Costs, Design, Limits, Scale, busiest, demands, full_at, queues
from tests.scale.parts import CopiedEvents

SIZES = (1_000, 10_000, 50_000)
FEW = 1_000
PROMPT, TARGET = f"Question: Who runs {parts.NAME}? Answer:", "Ada Quill"
FLEETS = (1, 10, 100, 1_000)
"""Numbers of servers for which it is computed how far one log goes."""
DESIGNS: Mapping[str, Design] = {
    "one log": Design(),
    "one log, lazily": Design(lazy=True, held=0.1),
    "100 shards": Design(shards=100, followers=10, owned=True),
    "100 shards, lazily": Design(shards=100, followers=10, owned=True, lazy=True, held=0.1),
}
SKEWS = (0.0, 0.5, 1.0)
Tell = Callable[[str], None]


async def real_event() -> EditCommitted:
    """The event of an edit that a server of the demo model makes."""
    service = build_service(Settings(store="memory://"))
    await service.start()
    try:
        await service.edit([EditRequest(prompt=PROMPT, target=TARGET, namespace="scale")], Origin(actor="bench"))
        (event,) = service.records.log.read(after=service.revision - 1)
    finally:
        await service.stop()
    assert isinstance(event, EditCommitted)
    return event


def measured(event: EditCommitted, sizes: Sequence[int], few: int, tell: Tell) -> dict[str, Any]:
    """The figures of each part, by its name; `few` is the number of items where their number does not matter."""
    copies, figures = CopiedEvents(event), {}
    for name, measure in _measurements(copies, sizes, few).items():
        figures[name] = measure()
        tell(f"{name}: {figures[name]}")
    return figures


def _measurements(copies: CopiedEvents, sizes: Sequence[int], few: int) -> Mapping[str, Callable[[], Any]]:
    models = load_models()
    real = encoded_bank(models.encoder)

    def sqlite() -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="errata-scale-") as folder:
            return parts.appends(lambda: SqliteLog(Path(folder) / "errata.db"), copies, few)

    def redis() -> dict[str, Any]:
        with running_redis() as server:
            return redis_cost.measure(server.url, copies, few)

    return {
        "codec": lambda: parts.codec(copies, few),
        "ledger": lambda: parts.ledger(copies, sizes),
        "snapshot": lambda: parts.snapshots(copies, sizes[:2]),
        "sqlite": sqlite,
        "redis": redis,
        "encoder": lambda: parts.encoded(models.encoder, copies, 128),
        "scope": lambda: parts.scope(models, real, copies, sizes),
        "first request": lambda: parts.first_request(models, copies, 100),
        "hits": lambda: parts.hits(10 * few),
    }


def costs_of(figures: Mapping[str, Any]) -> Costs:
    """The costs per edit, in seconds and bytes, from the figures of the parts at their largest size."""
    redis, scope, ledger = figures["redis"], figures["scope"], figures["ledger"]
    snapshot, micro = _largest(figures["snapshot"]), 1e-6
    read, following, waiting = redis["catching_up"], redis["following"], redis["waiting_s"]
    return Costs(
        append_s=redis["append_us"] * micro,
        raced_append_s=redis["raced_us"] * micro,
        redis_append_s=redis["append"]["cpu_us"] * micro,
        redis_read_s=read["cpu_us"] * micro,
        redis_read_bytes=read["bytes"],
        redis_wake_s=max(0.0, following["cpu_us"] - read["cpu_us"]) * micro,
        redis_wake_bytes=max(0.0, following["bytes"] - read["bytes"]),
        wake_s=following["wall_us"] * micro,
        redis_waiting_s=waiting["cpu_us"] * micro,
        redis_waiting_bytes=waiting["bytes"],
        fold_s=(redis["read_us"] + _largest(ledger["fold_us"])) * micro,
        encode_s=figures["encoder"]["together_us"] * scope["keys"] * micro,
        load_s=_largest(scope["load_us"]) * micro,
        snapshot_write_s=snapshot["write_us"] * micro,
        snapshot_read_s=snapshot["read_us"] * micro,
        entry_bytes=figures["codec"]["entry_bytes"],
        record_bytes=snapshot["record_bytes"],
        ledger_bytes=ledger["edit_bytes"],
        scope_bytes=scope["edit_bytes"],
        row_bytes=figures["codec"]["tensor_bytes"],
        hit_read_s=figures["hits"]["read_us"] * micro,
    )


def _largest(by_size: Mapping[int, Any]) -> Any:
    return by_size[max(by_size)]


def extrapolated(costs: Costs, seconds: float = 20.0) -> dict[str, Any]:
    """The reach of one log, the use of each part at the scale in question, and the queues of the busiest shard, of
    which so many seconds are simulated."""
    whole, limits = Scale(), Limits()
    reach = {}
    for replicas in FLEETS:
        few, design = Scale(replicas=replicas), Design(followers=replicas)
        demand_of = demands(costs, few, design, limits)
        full = {part: full_at(costs, few, design, limits, part) for part in demand_of}
        reach[replicas] = {
            quantity: min((full[part], part) for part, demand in demand_of.items() if demand.grows_with == quantity)
            for quantity in ("edits_per_s", "edits")
        }
    use = {
        name: {
            part: [demand.use, full_at(costs, whole, design, limits, part), demand.grows_with]
            for part, demand in demands(costs, whole, design, limits).items()
        }
        for name, design in DESIGNS.items()
    }
    waits = {}
    for name, design in DESIGNS.items():
        append_s = costs.append_s if design.owned else costs.raced_append_s
        follow_s = costs.fold_s + (costs.encode_s + costs.load_s) * (design.held if design.lazy else 1.0)
        for skew in SKEWS:
            share, _ = busiest(whole, design.shards, skew)
            rate = whole.edits_per_s * share
            waits[f"{name}, skew {skew:g}"] = {"rate": rate} | queues(rate, append_s, follow_s, seconds)
    return {"costs": asdict(costs), "reach": reach, "use": use, "queues": waits}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {
        "parts": measured(asyncio.run(real_event()), SIZES, FEW, lambda text: print(text, flush=True))
    }
    figures |= extrapolated(costs_of(figures["parts"]))
    print(report.text(figures))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
