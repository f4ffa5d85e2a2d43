"""`errata bench` as a user runs it, on a tiny model in place of one that is loaded."""

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.bench.budget import TimeBudget
from app.bench.comparison import Bench
from app.bench.workload import Workload
from app.bootstrap import assemble
from app.cli.main import app
from app.config import Settings
from app.store.memory import MemoryLog
from tests.models import tiny
from tests.rig import CORPUS

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def standing(
        _settings: Any, _shape: Any, _counts: Any, rounds: int, seed: int, on_step: Any, figure: Any, pace: TimeBudget
    ) -> AsyncIterator[Bench]:
        hosted = tiny("llama")
        service = assemble(hosted, MemoryLog(), Settings(_env_file=None, slots=40), threads=1)  # type: ignore[call-arg]
        await service.start()
        try:
            yield Bench(service, hosted, Workload(hosted.tokenizer, CORPUS, seed), None, rounds, on_step, figure, pace)
        finally:
            await service.stop()

    monkeypatch.setattr("app.bench.server_setup.started_server", standing)


def bench(*arguments: object) -> Result:
    environment = {"COLUMNS": "160", "TERM": "dumb"}
    return CliRunner().invoke(app, ["bench", *map(str, arguments)], env=environment)


def test_figures_are_told_in_a_pipe_and_kept(tmp_path: Path) -> None:
    found = bench("--section", "http", "--section", "roofline", "--rounds", 1, "--out", tmp_path)
    assert found.exit_code == 0, found.output
    assert "decoding: " in found.output
    assert "  http: errata, HTTP, round 1 of 1: " in found.output
    assert "16 streaming clients" in found.output
    results = json.loads((tmp_path / "bench.json").read_text())
    assert set(results["sections"]["http"]["runs"]) == {"errata, HTTP", "errata"}
    assert results["incomplete"] == {}
    assert "size" not in results["sections"]["http"], "all of it fitted"
    assert "16 streaming clients" in (tmp_path / "bench.md").read_text()
    assert (tmp_path / "bench.svg").exists()
    assert not list(tmp_path.glob("*.part"))


def test_a_run_that_is_stopped_has_its_figures_and_says_that_it_is_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes with the second run that counts."""
    from app.bench import comparison

    figures = comparison.figures
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return figures(*arguments)

    monkeypatch.setattr("app.bench.decoding.figures", counted)
    found = bench("--section", "http", "--section", "concurrency", "--rounds", 2, "--out", tmp_path)
    assert found.exit_code == 128 + signal.SIGTERM, found.output
    results = json.loads((tmp_path / "bench.json").read_text())
    assert set(results["sections"]) == {"http"}
    assert set(results["sections"]["http"]["runs"]) == {"errata, HTTP", "errata"}
    assert results["incomplete"] == {"http": "it was stopped", "concurrency": "it was not begun"}
    assert results["stopped"] == "SIGTERM"
    assert "Stopped by SIGTERM: the run is incomplete." in found.output
    assert "Section http is incomplete: it was stopped." in (tmp_path / "bench.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--section", "pears"), "no section 'pears'"),
        (("--peer", "vllm"), "--peer-python"),
        (("--peer", "vllm", "--peer-python", __file__, "--shape", "8b"), "leave out --section and --shape"),
        (("--peer", "vllm", "--peer-python", __file__, "--edits", "32", "--edits", "64"), "name --edits once"),
        (("--peer", "vllm", "--peer-python", __file__, "--edits", "32", "--clients", "64"), "at least 328"),
        (("--clients", "64"), "--clients belongs to --peer"),
        (("--peer", "vllm", "--peer-python", __file__, "--model", "/no/such/model"), "/no/such/model"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments: tuple[str, ...], words: str) -> None:
    found = bench(*arguments)
    assert found.exit_code == 1
    assert words in " ".join(found.output.replace("│", " ").split())
