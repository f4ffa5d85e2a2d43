"""Half an hour of load, edits and rollbacks on a real server: memory and latency at the end as at the beginning.

`python -m tests.acceptance.soak --minutes 30`. Two clients ask without a pause; one edits and, once there are LIVE
edits, takes the oldest back, so that the number of live edits stays the same. Figures are of the first and the last
third of the time. An edit's history stays in memory for ever, by design: `bytes_an_edit` is what that comes to.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.demo.facts import load_relations
from tests.server import running

LIVE = 50
PAUSE_S = 1.0
"""Between an edit and the next."""
WARM_S = 60.0
"""Allocators and caches fill up at first."""


@dataclass
class Seen:
    began: float
    memory: list[tuple[float, int]] = field(default_factory=list)
    answers: list[tuple[float, float]] = field(default_factory=list)
    edits: list[tuple[float, float]] = field(default_factory=list)
    rolled_back: int = 0
    wrong: list[str] = field(default_factory=list)


def run(minutes: float, folder: Path, model: str = "demo") -> dict[str, Any]:
    prompts = [r.built_prompts(f.subject)[0] for r in load_relations() for f in r.facts]
    with running(folder, "--model", model) as server:
        pid = server.pid
        seen, over = Seen(time.monotonic()), threading.Event()
        jobs = [(_ask, 1), (_ask, 2), (_edit, 3)]
        threads = [
            threading.Thread(target=job, args=(server.address, prompts, random.Random(seed), seen, over))
            for job, seed in jobs
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() - seen.began < 60 * minutes:
            seen.memory.append((time.monotonic() - seen.began, _resident_bytes(pid)))
            over.wait(min(5.0, 2 * minutes))
        over.set()
        for thread in threads:
            thread.join()
    return _told(seen)


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _ask(address: str, prompts: list[str], rng: random.Random, seen: Seen, over: threading.Event) -> None:
    with httpx.Client(base_url=f"http://{address}", timeout=60, trust_env=False) as client:
        while not over.is_set():
            asked = time.monotonic()
            body = {"inputs": rng.choice(prompts), "parameters": {"max_new_tokens": 24}}
            answer = client.post("/generate", json=body)
            if answer.status_code != 200:
                seen.wrong.append(answer.text)
            seen.answers.append((asked - seen.began, time.monotonic() - asked))


def _edit(address: str, prompts: list[str], rng: random.Random, seen: Seen, over: threading.Event) -> None:
    live: list[str] = []
    with httpx.Client(base_url=f"http://{address}", timeout=60, trust_env=False) as client:
        number = 0
        while not over.wait(PAUSE_S):
            number += 1
            asked = time.monotonic()
            body = {"prompt": rng.choice(prompts), "target": f"answer {number}", "force": True}
            answer = client.post("/edit", json=body)
            if answer.status_code != 201:
                seen.wrong.append(answer.text)
                continue
            seen.edits.append((asked - seen.began, time.monotonic() - asked))
            live.append(answer.json()["id"])
            if len(live) > LIVE:
                seen.rolled_back += client.post(f"/edits/{live.pop(0)}/rollback").status_code == 200


def _told(seen: Seen) -> dict[str, Any]:
    end = max(at for at, _ in seen.memory)
    warm = min(WARM_S, end / 4)
    first, last = (warm, warm + (end - warm) / 3), (end - (end - warm) / 3, end)

    def median(series: list[tuple[float, Any]], span: tuple[float, float]) -> float:
        return statistics.median([value for at, value in series if span[0] <= at <= span[1]])

    memory = [median(seen.memory, span) for span in (first, last)]
    grown_edits = len([at for at, _ in seen.edits if at >= sum(first) / 2 and at <= sum(last) / 2])
    return {
        "minutes": round(end / 60, 1),
        "answers": len(seen.answers),
        "edits": len(seen.edits),
        "rolled_back": seen.rolled_back,
        "wrong": seen.wrong[:5],
        "memory_mib": [round(each / 2**20, 1) for each in memory],
        "memory_growth": round(memory[1] / memory[0] - 1, 4),
        "bytes_an_edit": round((memory[1] - memory[0]) / max(1, grown_edits)),
        "answer_ms": [round(1000 * median(seen.answers, span), 1) for span in (first, last)],
        "edit_ms": [round(1000 * median(seen.edits, span), 1) for span in (first, last)],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(run(chosen.minutes, Path(temporary)), indent=1))
