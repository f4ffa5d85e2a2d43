"""The first signal ends the work with what it has, a second one the process; and what a pipe is told of progress."""

import asyncio
import os
import re
import signal
import subprocess
import sys

import pytest
import typer

from app.cli.interruption import Interruption
from app.cli.progress import CountProgress, RunProgress


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_work_and_what_it_had_is_there(number: signal.Signals) -> None:
    kept: list[int] = []

    async def work() -> None:
        kept.append(1)
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()
        kept.append(2)

    before = signal.getsignal(number)
    with Interruption() as stopping:
        asyncio.run(stopping.run(work()))
        assert kept == [1]
        assert stopping.number == number
        with pytest.raises(typer.Exit) as ended:
            stopping.end()
    assert ended.value.exit_code == 128 + number
    assert signal.getsignal(number) == before


def test_work_that_ends_by_itself_goes_on_after_it() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    with Interruption() as stopping:
        asyncio.run(stopping.run(work()))
        stopping.end()
    assert stopping.code == 0


def test_before_there_is_anything_to_keep_a_signal_ends_the_command() -> None:
    def loading() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except Exception as error:
            pytest.fail(f"what loads a model would report it as a fault of the file: {error!r}")

    with Interruption(), pytest.raises(SystemExit) as ended:
        loading()
    assert ended.value.code == 130


def test_after_the_work_it_does_not_say_that_nothing_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    with Interruption() as stopping:
        asyncio.run(stopping.run(work()))
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGINT)
    assert capsys.readouterr().err == "Stopped by Ctrl-C.\n"


def test_a_second_signal_ends_the_process() -> None:
    """The work does not let itself be cancelled."""
    program = """
import asyncio, os, signal
from app.cli.interruption import Interruption

async def work():
    while True:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("cancelled", flush=True)

with Interruption(iter(range(9)).__next__) as stopping:
    asyncio.run(stopping.run(work()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("cancelled\n", 128 + signal.SIGINT)


def test_a_signal_that_comes_twice_at_once_is_one() -> None:
    """`timeout` sends it to the process and to its group."""
    kept: list[int] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            kept.append(1)
            raise

    with Interruption(lambda: 0.0) as stopping:
        asyncio.run(stopping.run(work()))
    assert (kept, stopping.code) == ([1], 143)


def test_a_pipe_is_told_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress() as progress:
        progress.on_step("loading")
        progress.begin("peers")
        progress.figure(f"errata, round 1 of 3: 12.3 tokens/s {'x' * 200}")
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  loading", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d  peers: errata, round 1 of 3: 12.3 tokens/s x{200}", second), "one line each"


def test_a_pipe_is_told_a_count_at_most_every_two_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    with CountProgress(lambda: now) as counting:
        for done in range(50):
            counting.on_step("grace: editing", done, 50)
            counting.on_step(f"grace: {done} of {done} right", done, 50)
            now += 0.125
        counting.on_step("grace: asking about 50", 50, 50)
    lines = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    spaced = [f"grace: {what} ({at} of 50)" for at in (0, 16, 32, 48) for what in ("editing", f"{at} of {at} right")]
    assert lines == [*spaced, "grace: asking about 50 (50 of 50)"]
