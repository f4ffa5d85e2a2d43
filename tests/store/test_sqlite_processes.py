"""One SQLite log in several hands: other processes and threads that append, read and are killed."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.domain.errors import LostRace
from app.store.chain import Chain
from app.store.codec import GENESIS
from app.store.sqlite import SqliteLog
from tests.domain.samples import committed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "errata.sqlite"


@pytest.fixture
def log(path):
    log = SqliteLog(path, busy_timeout_s=0.1)
    yield log
    log.close()


def test_an_append_between_the_look_at_the_head_and_the_insert_is_a_lost_race(path, log, monkeypatch):
    def overtaken(chain, event, head, head_hash):
        monkeypatch.undo()
        other = SqliteLog(path)
        other.append(committed(1, "theirs"))
        other.close()
        return chain.next_entry(event, head, head_hash)

    monkeypatch.setattr(Chain, "next_entry", overtaken)
    with pytest.raises(LostRace, match="head is 1"):
        log.append(committed(1, "ours"))
    log.append(committed(2, "ours"))
    assert [event.edit.id for event in log.read()] == ["theirs", "ours"]


def test_a_long_read_sees_appends_and_does_not_hold_them_up(path, log, monkeypatch):
    monkeypatch.setattr("app.store.sqlite.READ_ENTRIES", 2)
    for revision in (1, 2, 3):
        log.append(committed(revision, f"e{revision}"))
    events = log.read()
    assert next(events).revision == 1
    other = SqliteLog(path)
    other.append(committed(4, "e4"))
    other.close()
    log.append(committed(5, "e5"))
    assert [event.revision for event in events] == [2, 3, 4, 5]


def test_a_read_takes_a_bounded_number_of_bytes_at_a_time(log, monkeypatch):
    size = len(Chain().next_entry(committed(1), 0, GENESIS))
    monkeypatch.setattr("app.store.sqlite.READ_BYTES", size + 1)
    for revision in range(1, 6):
        log.append(committed(revision, f"e{revision}"))
    assert [event.revision for event in log.read()] == [1, 2, 3, 4, 5]


def test_handles_that_make_the_same_log_at_once_make_one(path):
    failures = []
    barrier = threading.Barrier(8)

    def open_and_append():
        try:
            barrier.wait()
            log = SqliteLog(path)
            while True:
                try:
                    revision = log.head() + 1
                    log.append(committed(revision, f"e{revision}"))
                    break
                except LostRace:
                    continue
            log.close()
        except BaseException as error:  # a thread's error would pass unseen
            failures.append(error)

    threads = [threading.Thread(target=open_and_append) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    log = SqliteLog(path)
    assert [event.revision for event in log.read()] == list(range(1, 9))
    log.close()


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "writers", "store"), [(15, 1, []), (4, 2, []), (6, 2, ["--redis"])])
def test_nothing_acknowledged_is_lost_to_kill_9(rounds, writers, store):
    """The quick form; `python -m tests.store.kill_rounds --rounds 500` is the long one."""
    command = [sys.executable, "-m", "tests.store.kill_rounds", *store, "--rounds", str(rounds)]
    command += ["--writers", str(writers), "--seed", "11"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["rounds"] == rounds
    assert summary["acknowledged"] >= rounds
    assert summary["lost"] == summary["duplicated"] == summary["refused_opens"] == 0
