"""The time of a start over a long log, which it makes: `python -m tests.service.start_many --edits 100000`."""

import argparse
import asyncio
import json
import random
import sqlite3
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from app.bootstrap import build_service
from app.config import Settings
from app.domain.edit import EditRequest
from app.domain.events import EditCommitted, Origin
from app.editors.packing import pack, unpack
from app.store.codec import GENESIS, closing_hash, encode
from app.store.sqlite import SqliteLog

ORIGIN = Origin(actor="start_many")


async def one_edit(url: str) -> None:
    service = build_service(Settings(_env_file=None, store=url))  # type: ignore[call-arg]
    await service.start()
    await service.edit([EditRequest(prompt="The capital of Ruritania is", target="Strelsau")], ORIGIN)
    await service.stop()


def fill(path: Path, edits: int) -> None:
    """Copies of one real edit under other subjects and keys, written past the log's syncs."""
    log = SqliteLog(path)
    (event,) = log.read()
    assert isinstance(event, EditCommitted)
    last, rng = log.hash_of(1), random.Random(0)
    tensors = unpack(event.edit.tensors)
    log.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN")
    for revision in range(2, edits + 1):
        name = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(10)).capitalize()
        keys = tensors["keys"] + torch.randn_like(tensors["keys"])
        edit = replace(
            event.edit,
            id=f"ed_{revision:016x}",
            request=replace(event.edit.request, prompt=f"The capital of {name} is"),
            learned={**event.edit.learned, "who": [[[name.casefold()]]]},
            tensors=pack({**tensors, "keys": keys}),
        )
        entry = encode(replace(event, revision=revision, edit=edit), last)
        last = closing_hash(entry)
        connection.execute("INSERT INTO log VALUES (?, ?)", (revision, entry))
    connection.execute("COMMIT")
    connection.close()
    assert last != GENESIS


async def take_snapshot(url: str) -> None:
    """Trim the log below the snapshot, too, so that a start cannot fall back to the whole."""
    service = build_service(Settings(_env_file=None, store=url))  # type: ignore[call-arg]
    await service.start()
    await service.take_snapshot()
    service.records.log.trim(service.revision)
    await service.stop()


async def start(url: str) -> dict[str, float]:
    began = time.perf_counter()
    service = build_service(Settings(_env_file=None, store=url))  # type: ignore[call-arg]
    built = time.perf_counter()
    await service.start()
    started = time.perf_counter()
    await service.edit([EditRequest(prompt="The king of Zenda was", target="Rudolf")], ORIGIN)
    edited = time.perf_counter()
    status = service.status()
    await service.stop()
    return {
        "edits": status.live_edits,
        "model_s": round(built - began, 2),
        "start_s": round(started - built, 2),
        "first_edit_s": round(edited - started, 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=100_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "errata.db"
        asyncio.run(one_edit(f"sqlite:///{path}"))
        fill(path, chosen.edits)
        print(json.dumps({"from the whole log": asyncio.run(start(f"sqlite:///{path}"))}))
        asyncio.run(take_snapshot(f"sqlite:///{path}"))
        print(json.dumps({"from a snapshot, the log trimmed": asyncio.run(start(f"sqlite:///{path}"))}))
