"""Kills writers of a log with SIGKILL at random moments, and checks that every acknowledged event is there.

`python -m tests.store.kill_rounds --rounds 500 [--redis]` prints a JSON summary, and exits 1 when anything was lost. A
killed process says nothing about power loss: the operating system lives on and still writes what it was given.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from app.domain.errors import StoreCorrupt
from app.store.open import open_log
from tests.redis_server import running_redis

ROOT = Path(__file__).resolve().parents[2]
ROUNDS_PER_LOG = 10
"""Rounds go on with the same log, as restarts would; then a new one, as each check reads it all."""
LONGEST_LIFE_S = 0.25


@dataclass
class Summary:
    rounds: int = 0
    seed: int = 0
    writers: int = 0
    acknowledged: int = 0
    lost: int = 0
    """The acknowledged edits that the log lacks, or has otherwise."""
    duplicated: int = 0
    """The revisions that two writers acknowledged, and the edits that have two revisions."""
    refused_opens: int = 0
    """The log could not be opened or read to its end after the kill."""
    unacknowledged: int = 0
    """The edits in the log that were killed before the acknowledgement: at most one a writer and round is allowed."""
    too_many_unacknowledged: int = 0
    seconds: float = 0.0

    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.refused_opens or self.too_many_unacknowledged)


def run(rounds: int, seed: int, writers: int, directory: Path, redis_url: str | None = None) -> Summary:
    rng = random.Random(seed)
    summary = Summary(rounds=rounds, seed=seed, writers=writers)
    began_s = time.monotonic()
    acknowledged: dict[int, tuple[str, str]] = {}
    for number in range(rounds):
        if number % ROUNDS_PER_LOG == 0:
            where = (redis_url or f"sqlite:///{directory}/log-{number}.sqlite", f"log-{number}")
            acknowledged = {}
        lines = _write_until_killed(where, rng, number, writers)
        summary.acknowledged += len(lines)
        new = {revision: (edit_id, digest) for revision, edit_id, digest in lines}
        summary.duplicated += len(lines) - len(new) + len(new.keys() & acknowledged.keys())
        acknowledged |= new
        _check(where, acknowledged, summary, writers)
    summary.seconds = round(time.monotonic() - began_s, 2)
    return summary


def _write_until_killed(
    where: tuple[str, str], rng: random.Random, number: int, writers: int
) -> list[tuple[int, str, str]]:
    """The edits that the writers acknowledged before they died."""
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(writers)]
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    str(ROOT / "tests/store/writer.py"),
                    *where,
                    f"w{number}.{n}",
                    str(rng.random())[2:],
                ],
                stdout=output,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            for n, output in enumerate(outputs)
        ]
        deadline_s = time.monotonic() + 30
        while not any(os.fstat(output.fileno()).st_size for output in outputs):
            assert all(process.poll() is None for process in processes), "a writer ended by itself"
            assert time.monotonic() < deadline_s, "no writer acknowledged anything"
            time.sleep(0.001)
        time.sleep(rng.random() * LONGEST_LIFE_S)
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            assert process.wait() == -signal.SIGKILL, "a writer ended by itself"
        lines = []
        for output in outputs:
            output.seek(0)
            lines += [line.split() for line in output.read().decode().splitlines(keepends=True) if line.endswith("\n")]
    return [(int(revision), edit_id, digest) for revision, edit_id, digest in lines]


def _check(where: tuple[str, str], acknowledged: dict[int, tuple[str, str]], summary: Summary, writers: int) -> None:
    """Reads the log as a restarted server would, which verifies its chain, and compares it with what was promised."""
    try:
        log = open_log(where[0], redis_prefix=where[1])
        try:
            found = {
                event.revision: (event.edit.id, hashlib.sha256(event.edit.tensors).hexdigest()) for event in log.read()
            }
            gapless = list(found) == list(range(1, log.head() + 1))
        finally:
            log.close()
    except StoreCorrupt:
        summary.refused_opens += 1
        return
    assert gapless
    summary.lost += sum(found.get(revision) != promised for revision, promised in acknowledged.items())
    summary.duplicated += len(found) - len({edit_id for edit_id, _ in found.values()})
    silent = found.keys() - acknowledged.keys()
    summary.unacknowledged += len(silent)
    summary.too_many_unacknowledged += max(0, len(silent) - writers)
    acknowledged |= {revision: found[revision] for revision in silent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writers", type=int, default=1, help="processes that race on the same log")
    parser.add_argument("--redis", action="store_true", help="a log on Redis in place of a SQLite file")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(running_redis()).url if arguments.redis else None
        summary = run(arguments.rounds, arguments.seed, arguments.writers, directory, url)
    print(json.dumps(asdict(summary)))
    sys.exit(0 if summary.clean() else 1)


if __name__ == "__main__":
    main()
