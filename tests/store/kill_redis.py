"""Kills Redis with SIGKILL under four editors while its append-only file is rewritten; everything acknowledged must be
there after it starts again: `python -m tests.store.kill_redis --rounds 200`. A kill says nothing about power loss.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import redis

from app.domain.errors import LostRace, StoreCorrupt, StoreUnavailable
from app.store.redis import RedisLog
from tests.domain.samples import committed
from tests.redis_server import RedisServer

EDITORS = 4
LONGEST_LIFE_S = 0.4
TENSORS_BYTES = 8 * 2**10
ROUNDS_PER_LOG = 20
"""Rounds go on with the same log, as restarts would; then a new one, as each check reads it all."""


@dataclass
class Summary:
    rounds: int = 0
    acknowledged: int = 0
    rewrites: int = 0
    """The rewrites of the append-only file that began while editors wrote."""
    lost: int = 0
    doubled: int = 0
    refused_starts: int = 0
    damaged: int = 0
    seconds: float = 0.0

    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.refused_starts or self.damaged)


def run(rounds: int, seed: int, folder: Path) -> Summary:
    summary, rng = Summary(rounds=rounds), random.Random(seed)
    began = time.monotonic()
    server = RedisServer(folder)
    server.start()
    promised: dict[int, str] = {}
    for number in range(rounds):
        if number % ROUNDS_PER_LOG == 0:
            server.client().flushall()
            promised = {}
        stop, new = threading.Event(), [dict[int, str]() for _ in range(EDITORS)]
        threads = [
            threading.Thread(target=_write, args=(server.url, f"r{number}w{i}", mine, stop))
            for i, mine in enumerate(new)
        ]
        for thread in threads:
            thread.start()
        while not any(new):
            time.sleep(0.001)
        with suppress(redis.RedisError):
            server.client().bgrewriteaof()
            summary.rewrites += 1
        time.sleep(rng.random() * LONGEST_LIFE_S)
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        try:
            server.start()
        except RuntimeError:
            summary.refused_starts += 1
            break
        for mine in new:
            summary.acknowledged += len(mine)
            summary.doubled += len(mine.keys() & promised.keys())
            promised |= mine
        _check(server.url, promised, summary)
    server.kill()
    summary.seconds = round(time.monotonic() - began, 1)
    return summary


def _write(url: str, name: str, acknowledged: dict[int, str], stop: threading.Event) -> None:
    """Appends until told to stop; notes only what `append` has returned for."""
    log = None
    while not stop.is_set():
        try:
            log = log or RedisLog(url)
            revision = log.head() + 1
            edit_id = f"{name}-{revision}-{len(acknowledged)}"
            log.append(committed(revision, edit_id, tensors=bytes(TENSORS_BYTES)))
            acknowledged[revision] = edit_id
        except LostRace:
            continue
        except StoreUnavailable:
            stop.wait(0.01)
    if log is not None:
        log.close()


def _check(url: str, promised: dict[int, str], summary: Summary) -> None:
    log = RedisLog(url)
    try:
        found = {event.revision: event.edit.id for event in log.read()}
    except StoreCorrupt:
        summary.damaged += 1
        return
    finally:
        log.close()
    assert list(found) == list(range(1, len(found) + 1))
    summary.lost += sum(found.get(revision) != edit_id for revision, edit_id in promised.items())
    summary.doubled += len(found) - len(set(found.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = run(chosen.rounds, chosen.seed, Path(temporary))
    print(json.dumps(asdict(result), indent=1))
    sys.exit(0 if result.clean() else 1)
