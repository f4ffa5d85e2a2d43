"""An exported log is self-verifying, without the store and without Errata; whatever is changed in it is found."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.domain.edit import State
from app.domain.errors import StoreCorrupt
from app.domain.events import EditsRolledBack, Event, Origin
from app.domain.ledger import Ledger
from app.store import audit
from app.store.chain import Chain
from app.store.codec import GENESIS, encode
from app.store.memory import MemoryLog
from app.store.seal import Seal
from app.store.sqlite import SqliteLog
from tests.domain.samples import committed, rolled_back, switched
from tests.store.test_released import RELEASED, SECRETS

SCRIPT = Path(__file__).parents[2] / "deploy" / "verify-log.py"
STRANGE = 'Wörks 🦔 \x85\u2028\x1e \\ " 1e+16'
"""Whatever a reader of lines, or of JSON, might take for something else."""


def a_log() -> MemoryLog:
    log, ledger = MemoryLog(), Ledger()
    events: list[Event] = [
        committed(
            1, "e1", metadata={"n": [1.0, 1e16, -0.0, 10**30, None, True, 0.1], STRANGE: STRANGE}, reason=STRANGE
        ),
        committed(2, "e2", supersedes=("e1",), tensors=bytes(range(256)), force=True),
        rolled_back(3, "e2"),
        switched(4, None, False),
    ]
    for event in events:
        told = ledger.as_recorded(event)
        log.append(told)
        ledger.apply(told)
    return log


def rows(log: Any) -> list[str]:
    return list(audit.lines(log, log.first() - 1))


def script(path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The script runs on a machine that has nothing but Python: no environment, no package, another folder."""
    command = [sys.executable, "-I", "-S", str(SCRIPT), str(path), *more]
    return subprocess.run(command, env={}, cwd=path.parent, capture_output=True, text=True, check=False)


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_the_script_is_short_and_knows_only_hashes_and_json() -> None:
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 40
    imported = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    assert imported == ["import hashlib", "import json", "import sys"]


def test_an_exported_log_is_verified_by_errata_and_by_the_script(tmp_path: Path) -> None:
    log = a_log()
    file = written(tmp_path / "audit.jsonl", rows(log))
    found = audit.verify(rows(log))
    assert (found.first, found.last, found.hash) == (1, 4, log.hash_of(4))
    assert found.ledger is not None
    assert found.ledger.state("e1") is State.LIVE
    told = script(file)
    assert (told.returncode, told.stdout.split()[-1]) == (0, log.hash_of(4)), told.stderr
    assert script(file, log.hash_of(4)).returncode == 0
    assert script(file, log.hash_of(3)).returncode == 1


def test_each_line_says_all_that_an_audit_asks_for() -> None:
    lines = [json.loads(row) for row in rows(a_log())]
    assert [line["prev"] for line in lines] == [GENESIS, *(line["hash"] for line in lines[:-1])]
    second = lines[1]["event"]
    assert (second["edit"]["before"], second["edit"]["after"]) == ("Bo Vane", "Ada Quill")
    assert second["edit"]["request"]["force"] is True
    assert second["superseded"] == ["e1"]
    assert lines[2]["event"]["revived"] == ["e1"]


@pytest.mark.parametrize("name", SECRETS)
def test_logs_of_every_released_format_are_exported_as_they_are(name: str, tmp_path: Path) -> None:
    seal = Seal(SECRETS[name])
    log = SqliteLog(shutil.copy(RELEASED / name, tmp_path), Chain(seal=seal))
    found = audit.verify(rows(log), seal)
    assert found.hash == log.hash_of(log.head())
    told = script(written(tmp_path / "audit.jsonl", rows(log)))
    if seal.keyed:
        assert (told.returncode, "sealed" in told.stderr) == (1, True)
        with pytest.raises(StoreCorrupt, match="ERRATA_LOG_SECRET"):
            audit.verify(rows(log))
    else:
        assert (told.returncode, told.stdout.split()[-1]) == (0, found.hash), told.stderr
    log.close()


@pytest.mark.parametrize("name", SECRETS)
def test_entries_of_every_released_format_are_written_again_byte_for_byte(name: str, tmp_path: Path) -> None:
    """A log that is copied keeps its hashes."""
    seal = Seal(SECRETS[name])
    log = SqliteLog(shutil.copy(RELEASED / name, tmp_path), Chain(seal=seal))
    for event in log.read():
        assert encode(event, log.hash_of(event.revision - 1), seal) == log.entry(event.revision)
    log.close()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [leaf for key, each in inner for leaf in leaves(each, (*path, key))] or [path]


def changed(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case str():
            return value[:-1] + ("0" if value[-1:] != "0" else "1")
        case int() | float():
            return 2 * value + 1
        case _:
            return "something"


def test_whatever_is_changed_is_found_by_both(tmp_path: Path) -> None:
    """Every value of every line, one at a time."""
    lines = [json.loads(row) for row in rows(a_log())]
    for number, line in enumerate(lines):
        for path in leaves(line):
            forged = json.loads(json.dumps(lines))
            place = forged[number]
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = changed(place[path[-1]])
            with pytest.raises(StoreCorrupt, match=rf"Line [{number + 1}{number + 2}] "):
                audit.verify(json.dumps(each) for each in forged)
    forged = json.loads(json.dumps(lines))
    forged[1]["event"]["origin"]["actor"] = "somebody else"
    told = script(written(tmp_path / "forged.jsonl", [json.dumps(each) for each in forged]))
    assert (told.returncode, "Line 2" in told.stderr) == (1, True)


@pytest.mark.parametrize("order", [[0, 2, 3], [0, 1, 1, 2, 3], [0, 2, 1, 3], [1, 0]])
def test_lines_that_are_missing_doubled_or_out_of_place_are_found_by_both(order: list[int], tmp_path: Path) -> None:
    lines = rows(a_log())
    forged = [lines[at] for at in order]
    with pytest.raises(StoreCorrupt, match="Line"):
        audit.verify(forged)
    assert script(written(tmp_path / "forged.jsonl", forged)).returncode == 1


def test_a_log_that_is_cut_short_does_not_end_with_the_hash_that_is_known(tmp_path: Path) -> None:
    log = a_log()
    file = written(tmp_path / "short.jsonl", rows(log)[:3])
    assert audit.verify(rows(log)[:3]).hash != log.hash_of(4)
    assert script(file, log.hash_of(4)).returncode == 1
    assert script(written(tmp_path / "empty.jsonl", [])).returncode == 1


def test_a_trimmed_log_begins_later_and_says_so() -> None:
    log = a_log()
    log.trim(3)
    found = audit.verify(rows(log))
    assert (found.first, found.last, found.ledger) == (3, 4, None)


def test_effects_that_an_event_does_not_have_are_not_believed() -> None:
    """The hashes are right: whoever wrote the log lied."""
    log = MemoryLog()
    log.append(committed(1, "e1"))
    log.append(committed(2, "e2", prompt="Other?"))
    log.append(EditsRolledBack(revision=3, at_s=3.0, origin=Origin(), edit_ids=("e2",), revived=("e1",)))
    with pytest.raises(StoreCorrupt, match=r"Line 3 .* other effects"):
        audit.verify(rows(log))


@pytest.mark.parametrize("row", ["", "[]", "7", "{}", '{"schema": 1}', '{"kind": NaN}', "[" * 100_000])
def test_what_is_no_line_is_refused_in_words(row: str) -> None:
    with pytest.raises(StoreCorrupt, match="Line 1 is not what was exported"):
        audit.verify([row])
