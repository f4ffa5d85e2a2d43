"""Kill -9 the whole server in the middle of edits: nothing acknowledged may be lost or doubled.

The quick form runs with the tests; the long form is `python -m tests.acceptance.kill_server`. A kill does not
test power loss.
"""

import argparse
import json
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from app.demo.facts import load_relations
from tests.server import Server

EDITORS = 3
"""Clients that post edits and rollbacks at once."""
FIRST_ANSWER_S = 30.0
"""A slow machine is killed later, but not before it has acknowledged something that could be lost."""


class Round:
    """The acknowledgements that clients received in one life of the server."""

    def __init__(self) -> None:
        self.committed: dict[str, str] = {}
        self.rolled_back: set[str] = set()
        self.asked_back: set[str] = set()
        self.refused: list[int] = []

    def work(self, address: str, prompts: list[str], stop: threading.Event) -> None:
        """Post until the server dies under it. Only what was answered counts as acknowledged."""
        with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
            for i, prompt in enumerate(prompts):
                try:
                    answer = client.post("/edit", json={"prompt": prompt, "target": f"answer {i}", "force": True})
                    if answer.status_code not in (200, 201):
                        self.refused.append(answer.status_code)
                        continue
                    edit_id = answer.json()["id"]
                    self.committed[edit_id] = prompt
                    if i % 3 == 2:
                        self.asked_back.add(edit_id)
                        if client.post(f"/edits/{edit_id}/rollback").status_code == 200:
                            self.rolled_back.add(edit_id)
                except httpx.TransportError:
                    return
                if stop.is_set():
                    return


def run(rounds: int, seed: int, folder: Path, model: str = "demo") -> dict[str, Any]:
    rng = random.Random(seed)
    prompts = [r.built_prompts(f.subject)[0] for r in load_relations() for f in r.facts]
    server = Server(folder, "--model", model)
    committed: dict[str, str] = {}
    rolled_back: set[str] = set()
    asked_back: set[str] = set()
    refused: list[int] = []
    lost = 0
    server.start()
    for _ in range(rounds):
        life, stop = Round(), threading.Event()
        chosen = [rng.sample(prompts, 200) for _ in range(EDITORS)]
        threads = [threading.Thread(target=life.work, args=(server.address, each, stop)) for each in chosen]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        while not life.committed and time.monotonic() - began < FIRST_ANSWER_S:
            stop.wait(0.01)
        stop.wait(rng.uniform(0.0, 2.0))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        committed |= life.committed
        rolled_back |= life.rolled_back
        asked_back |= life.asked_back
        refused += life.refused
        server.start()
        states = all_edits(server)
        lost += sum(edit_id not in states for edit_id in committed)
        lost += sum(states.get(edit_id) != "rolled_back" for edit_id in rolled_back)
        lost += sum(states[i] == "rolled_back" for i in committed if i in states and i not in asked_back)
    events, revision = log_length(server), server.client.get("/readyz").json()["revision"]
    code = server.stop()
    server.client.close()
    return {
        "rounds": rounds,
        "edits_acknowledged": len(committed),
        "rollbacks_acknowledged": len(rolled_back),
        "lost_or_wrong": lost,
        "gapless": events == revision,
        "revision": revision,
        "refused": len(refused),
        "last_exit_code": code,
    }


def all_edits(server: Server) -> dict[str, str]:
    """id -> state, by paging through GET /edits; an id that comes twice is a duplicate."""
    found: dict[str, str] = {}
    cursor: str | None = None
    while True:
        parameters = {"limit": "500"} | ({"cursor": cursor} if cursor else {})
        page = server.client.get("/edits", params=parameters).json()
        for edit in page["edits"]:
            assert edit["id"] not in found, "an edit is listed twice"
            found[edit["id"]] = edit["state"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def log_length(server: Server) -> int:
    """Events in the log, each following the one before."""
    after = 0
    while True:
        events = server.client.get("/log", params={"after": after, "limit": 500}).json()["events"]
        if not events:
            return after
        assert [event["revision"] for event in events] == list(range(after + 1, after + 1 + len(events)))
        after = events[-1]["revision"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(run(chosen.rounds, chosen.seed, Path(temporary)), indent=1))
