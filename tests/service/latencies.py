"""The latency of a commit that fits nothing, and of its arrival at another server, on each store.

`python -m tests.service.latencies --changes 500` prints milliseconds: `commit` is from the call to the answer of a
change (disable, enable), `commit_64k` an edit's event with 64 KiB of tensors through the same records, `converged` the
time from that answer until a second server over the same log is at its revision.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from app.domain.events import EditCommitted
from app.service.records import Records
from app.service.service import Service
from app.store.base import Log
from app.store.open import open_log
from tests.domain.samples import edit as sample
from tests.redis_server import running_redis
from tests.service.conftest import ORIGIN, edit, serving

TENSORS_BYTES = 64 * 2**10


async def changes(one: Service, other: Service, count: int) -> dict[str, Any]:
    commits, converged = [], []
    edit_id = (await edit(one, "The capital of Ruritania is", "Strelsau")).edit.id
    for number in range(count):
        began = time.perf_counter()
        await (one.enable if number % 2 else one.disable)([edit_id], ORIGIN)
        answered = time.perf_counter()
        while other.revision < one.revision:
            await asyncio.sleep(0.0005)
        commits.append(answered - began)
        converged.append(time.perf_counter() - answered)
    return {"commit": _told(commits), "converged": _told(converged)}


async def large(log: Log, count: int) -> dict[str, Any]:
    records = Records(log)
    records.fold_all()
    times = []
    for number in range(count):
        made = sample(f"large-{number}", prompt=f"{number}?", tensors=bytes(TENSORS_BYTES))

        def committed(made: Any = made) -> EditCommitted:
            return EditCommitted(revision=records.revision + 1, at_s=0.0, origin=ORIGIN, edit=made)

        began = time.perf_counter()
        await records.write(committed)
        times.append(time.perf_counter() - began)
    return {"commit_64k": _told(times)}


async def measure(url: str, count: int) -> dict[str, Any]:
    async with serving(open_log(url)) as one, serving(open_log(url)) as other:
        found = await changes(one, other, count)
    log = open_log(url)
    found |= await large(log, count)
    log.close()
    return found


def _told(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    last = len(ordered) - 1
    return {name: round(1000 * ordered[min(last, int(share * len(ordered)))], 2) for name, share in shares.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=500)
    chosen = parser.parse_args()
    with running_redis() as server, tempfile.TemporaryDirectory() as folder:
        for name, store in (("sqlite", f"sqlite:///{Path(folder) / 'e.db'}"), ("redis", server.url)):
            print(json.dumps({name: asyncio.run(measure(store, chosen.changes))}))
