"""The first signal to a server, before and after it serves; what it says; a second one."""

import asyncio
import os
import signal

import pytest
import typer
from typer.testing import CliRunner

from app.cli import render
from app.cli import signals as module
from app.cli.interruption import on_ctrl_c
from app.cli.main import app
from app.cli.shutdown import Shutdown, farewell
from app.cli.signals import TWICE_S
from app.service.log_lines import collected, note, noted


class Ended(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


@pytest.fixture(autouse=True)
def in_place_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(module, "end_now", end)


@pytest.mark.parametrize(
    ("answers", "edits", "said"),
    [
        (0, 0, "Stopping: nothing is under way."),
        (1, 1, "Finishing 1 answer and 1 edit, at most 2.5 s; press Ctrl-C again to stop at once."),
        (12, 0, "Finishing 12 answers, at most 2.5 s; press Ctrl-C again to stop at once."),
        (0, 2, "Finishing 2 edits, at most 2.5 s; press Ctrl-C again to stop at once."),
    ],
)
def test_it_says_what_it_waits_for_and_how_long(answers: int, edits: int, said: str) -> None:
    assert farewell(answers, edits, answers, 2.5, signal.SIGINT) == said


def test_who_sent_sigterm_is_told_of_no_key() -> None:
    assert farewell(10, 20, 30, 10.0, signal.SIGTERM) == "Finishing 10 answers and 20 edits, at most 10 s."


def test_other_requests_are_told_where_there_is_nothing_else() -> None:
    assert farewell(0, 0, 1, 10.0, signal.SIGTERM) == "Finishing 1 request, at most 10 s."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_loads_is_interrupted(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with Shutdown(lambda: "reading") as shutdown, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert shutdown.code == 128 + number
    render.AS_JSON.set(False)
    shutdown.say()
    shutdown.say()
    name = "Ctrl-C" if number is signal.SIGINT else "SIGTERM"
    assert capsys.readouterr().err == f"Stopped by {name}: while reading\n"
    assert signal.getsignal(number) == before


def test_on_a_loop_it_is_told_there_once_and_a_second_signal_ends_the_process() -> None:
    times = iter([0.0, TWICE_S / 2, TWICE_S])
    told: list[str] = []

    async def story(shutdown: Shutdown) -> None:
        shutdown.on_loop(lambda: told.append("starting"))
        shutdown.on_loop(lambda: told.append("serving"))
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # the same one, sent to the group as well
        await asyncio.sleep(0)
        assert told == ["serving"]
        with pytest.raises(Ended) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
        assert ended.value.code == 143

    with Shutdown(str, lambda: next(times)) as shutdown:
        asyncio.run(story(shutdown))
    assert shutdown.code == 130


def test_its_lines_do_not_name_the_request_that_the_signal_came_amid() -> None:
    logged: list[str | None] = []

    async def request() -> None:
        with collected():
            note(request_id="1")
            os.kill(os.getpid(), signal.SIGINT)

    async def story(shutdown: Shutdown) -> None:
        shutdown.on_loop(lambda: logged.append(noted("request_id")))
        await asyncio.create_task(request())
        await asyncio.sleep(0)

    with Shutdown(str) as shutdown:
        asyncio.run(story(shutdown))
    assert logged == [None]


def test_a_signal_that_came_before_is_not_forgotten() -> None:
    told: list[str] = []

    async def story(shutdown: Shutdown) -> None:
        shutdown.on_loop(lambda: told.append("starting"))
        os.kill(os.getpid(), signal.SIGINT)
        shutdown.on_loop(lambda: told.append("serving"))
        await asyncio.sleep(0)

    with Shutdown(str) as shutdown:
        asyncio.run(story(shutdown))
    assert told == ["starting", "serving"]


def interrupted(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    def wait(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.cli.client.Client.get", wait)
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    return done.exit_code, done.stdout, done.stderr


def test_ctrl_c_ends_every_command_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interrupted("edits", monkeypatch=monkeypatch) == (130, "", "Stopped by Ctrl-C.\n")
    assert interrupted("log", "--follow", monkeypatch=monkeypatch) == (130, "", "Stopped by Ctrl-C.\n")
    told = '{"title": "Stopped by Ctrl-C", "detail": "", "exit_code": 130}\n'
    assert interrupted("edits", "--json", monkeypatch=monkeypatch) == (130, "", told)


def test_a_command_may_say_what_goes_on_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    render.AS_JSON.set(False)
    with pytest.raises(typer.Exit), on_ctrl_c(lambda: "the server goes on."):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "Stopped by Ctrl-C: the server goes on.\n"
