"""A quick change shows no progress, a longer one a bar or a line now and then; `errata job` shows it, too."""

import asyncio
import io
import json
from typing import Any

import pytest
from rich.console import Console

from app.cli.client import Client
from app.cli.exits import Exit
from app.cli.job_progress import PERIOD_S, QUICK_S, JobProgress, descriptions, quietly
from app.domain.edit import EditRequest
from app.domain.events import Origin
from tests.api.fake_service import REJECTED, FakeService
from tests.cli.conftest import Errata
from tests.cli.test_commands import ASKED, made

pytestmark = pytest.mark.slow
OTHER = "Who wrote Emma?"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def job(share: float | None = None, left_s: float | None = None, **more: Any) -> dict[str, Any]:
    progress = None if share is None else {"share": share, "seconds_left": left_s, "done": 1, "of": 60, "loss": None}
    return {"id": "jb_1", "outcome": "running", "phase": "fit", "progress": progress, "problem": None} | more


def test_what_is_quick_shows_nothing() -> None:
    out, clock = io.StringIO(), Clock()
    with JobProgress(Console(file=out), clock) as waiting:
        waiting.show(job(0.1))
        clock.now += QUICK_S - 0.01
        waiting.show(job(0.9))
        clock.now += 10
        waiting.show(job(outcome="done"))
    assert out.getvalue() == ""


def test_a_pipe_is_told_now_and_then_how_far_it_is_and_how_much_longer_it_takes() -> None:
    out, clock = io.StringIO(), Clock()
    with JobProgress(Console(file=out, width=40), clock) as waiting:
        for tenths in range(121):
            clock.now = 100 + tenths / 10
            waiting.show(job(tenths / 120, 12 - tenths / 10, phase="fit" if tenths < 110 else "verify"))
    lines = out.getvalue().splitlines()
    assert len(lines) == 1 + int((12 - QUICK_S) / PERIOD_S)
    assert lines[0].endswith("s] fitting the answer 8 %, about 11 s left")
    assert lines[-1].endswith("s] asking the question and those around it 92 %, about 1 s left")


def test_what_is_not_known_is_not_told() -> None:
    out, clock = io.StringIO(), Clock()
    with JobProgress(Console(file=out), clock) as waiting:
        clock.now += QUICK_S
        waiting.show(job(phase="waiting"))
        clock.now += PERIOD_S
        waiting.show(job(0.5))
        clock.now += PERIOD_S
        waiting.show(job(0.999, 0.2))
    assert [line.partition("] ")[2] for line in out.getvalue().splitlines()] == [
        "waiting for its turn",
        "fitting the answer 50 %",
        "fitting the answer 100 %",
    ]


def test_on_a_terminal_there_is_a_bar_and_it_is_gone_in_the_end() -> None:
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    with JobProgress(console, clock) as waiting:
        clock.now += QUICK_S
        waiting.show(job(phase="waiting"))
        waiting.show(job(0.25, 8.2))
    assert "Fitting the answer" in out.getvalue()
    assert "about 8 s left" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")  # the line is taken back


@pytest.mark.parametrize(
    ("last", "cells"),
    [
        pytest.param(job(0.0, None), 0, id="nothing is done yet"),
        pytest.param(job(0.5, None), 20, id="half is done"),
        pytest.param(job(phase="verify"), 40, id="nobody knows how much there is to do"),
    ],
)
def test_the_bar_is_as_long_as_what_is_done(last: dict[str, Any], cells: int) -> None:
    """The bar pulses over its whole length without a share, also after a phase that had one."""
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    with JobProgress(console, clock) as waiting:
        clock.now += QUICK_S
        waiting.show(job(0.25, 8.2))
        waiting.show(last)
    frames = [frame for frame in out.getvalue().split("\x1b[2K") if frame.strip()]
    assert frames[-1].count("━") == cells


def test_beside_json_lines_are_for_problems_alone(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with JobProgress(quietly(), clock) as waiting:
        clock.now += QUICK_S
        waiting.show(job(0.5, 10.0))
    assert capsys.readouterr().err == ""


def test_a_command_that_waits_tells_its_progress_on_standard_error(errata: Errata, service: FakeService) -> None:
    service.slow_s = QUICK_S + 1.5
    done = errata("edit", OTHER, "Jane Austen")
    assert done.exit_code == 0
    assert "fitting the answer 2 %" in done.stderr
    assert "fitting" not in done.stdout
    service.slow_s = 0
    quick = errata("edit", ASKED, "euro")
    assert (quick.exit_code, quick.stderr) == (0, "")


def test_a_retune_is_waited_for_as_well(errata: Errata, service: FakeService) -> None:
    edit_id = made(errata)
    service.slow_s = QUICK_S + 1.5
    done = errata("retune", edit_id, "--widen", "1.1")
    assert done.exit_code == 0
    assert "asking the question and those around it 25 %" in done.stderr
    assert f"{edit_id} is live" in done.stdout


def test_what_the_server_refuses_meanwhile_ends_the_command(errata: Errata) -> None:
    refused = errata("edit", ASKED, REJECTED)
    assert refused.exit_code == Exit.REFUSED
    assert "did not hold" in refused.stderr


# -- errata job


def test_a_job_is_looked_up_and_cancelled(errata: Errata, service: FakeService) -> None:
    request = EditRequest(prompt=ASKED, target="euro")

    async def one_done_one_failed() -> list[str]:
        async def made(on_progress: Any) -> Any:
            return await service.edit([request], Origin(), on_progress=on_progress), False, False

        async def failed(on_progress: Any) -> Any:
            return (
                await service.edit([EditRequest(prompt=ASKED, target=REJECTED)], Origin(), on_progress=on_progress),
                False,
                False,
            )

        ids = [service.jobs.start(each).id for each in (made, failed)]
        while "running" in {service.jobs.job(each).outcome for each in ids}:
            await asyncio.sleep(0.01)
        return ids

    done, failed = asyncio.run(one_done_one_failed())
    shown = errata("job", done)
    assert shown.exit_code == 0
    assert f"The job {done} is done." in shown.stdout
    assert "ed_0000 is live" in shown.stdout
    assert errata("job", failed).exit_code == Exit.REFUSED
    assert json.loads(errata("job", failed, "--json").stdout)["problem"]["status"] == 422
    assert errata("job", "jb_nothing").exit_code == Exit.UNKNOWN
    assert json.loads(errata("job", done, "--cancel", "--json").stdout)["outcome"] == "done", "it has ended"


def test_a_job_that_became_a_proposal_is_shown_as_one(monkeypatch: pytest.MonkeyPatch, errata: Errata) -> None:
    edit = {"prompt": ASKED, "target": "euro", "before": "kuna", "after": "euro"}
    proposal = {"id": "pr_1", "state": "pending", "actor": "ann", "revision": 3, "proposed_at": "2026", "edits": [edit]}
    found = job(outcome="done", result=proposal)
    monkeypatch.setattr(Client, "get", lambda *_, **__: found)
    shown = errata("job", "jb_1")
    assert (shown.exit_code, shown.exception) == (0, None)
    assert "pr_1 is pending, proposed by ann" in shown.stdout


def test_a_job_in_words() -> None:
    assert list(descriptions(job(0.34, 8.0))) == [
        "The job jb_1 is running",
        "fitting the answer",
        "34 %",
        "about 8 s left",
    ]
    assert list(descriptions(job(outcome="cancelled"))) == ["The job jb_1 is cancelled"]
