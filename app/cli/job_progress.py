"""The display while a change is carried out by the server, on standard error: a bar on a terminal, elsewhere a line
from time to time, and nothing for a quick change. Takes jobs as the API returns them."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from app.cli import render
from app.cli.client import Client
from app.cli.interruption import on_ctrl_c

PREVIEW = "preview"
QUICK_S = 1.0
"""A change that takes no longer than this, in seconds, shows no progress."""
PERIOD_S = 5.0
"""The interval between two plain lines, in seconds."""
DOING = {
    "waiting": "waiting for its turn",
    "fit": "fitting the answer",
    "scope": "learning which questions ask for it",
    "verify": "asking the question and those around it",
}


class JobProgress:
    """The progress of one job, shown while used as a context manager."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._began = clock()
        self._next_s = QUICK_S
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, job: dict[str, Any]) -> None:
        took_s = self._clock() - self._began
        if job["outcome"] != "running" or took_s < QUICK_S:
            return
        doing, progress = DOING.get(job["phase"], job["phase"]), job["progress"]
        if self._console.is_terminal:
            if self._bar is None:
                doing_now, how_long = TextColumn("{task.description}"), TextColumn("{task.fields[left]}")
                columns = SpinnerColumn(), doing_now, BarColumn(), how_long
                self._bar = Progress(*columns, console=self._console, transient=True)
                self._bar.add_task("", total=None, left="")
                self._bar.start()
            (task,) = self._bar.tasks
            if progress is None and task.total is not None:  # a task keeps its total once it has one
                self._bar.remove_task(task.id)
                self._bar.add_task("", total=None, left="")
                (task,) = self._bar.tasks
            total, share = (None, 0) if progress is None else (1, progress["share"] or 0)
            self._bar.update(task.id, description=doing.capitalize(), left=left(job), completed=share, total=total)
        elif took_s >= self._next_s:
            self._next_s = took_s + PERIOD_S
            said = ", ".join(filter(None, (doing + (" " + percent(job) if progress else ""), left(job))))
            self._console.print(f"[{took_s:5.1f} s] {said}", markup=False, soft_wrap=True)


def percent(job: dict[str, Any]) -> str:
    return f"{100 * job['progress']['share']:.0f} %"


def left(job: dict[str, Any]) -> str:
    """The time that its phase still takes, as text; empty if unknown or under a second."""
    seconds = (job["progress"] or {}).get("seconds_left")
    return "" if seconds is None or seconds < 1 else f"about {seconds:.0f} s left"


def carried_out(
    client: Client, method: str, path: str, body: dict[str, Any], what: str, if_match: int | None = None
) -> Any:
    """The result of a change, once the server has carried it out. Ctrl-C ends the wait and prints what continues."""
    job: dict[str, Any] = {}

    def goes_on() -> str:
        parts = [f"the server goes on with the {what}." if job else f"the server may have the {what} already."]
        if job:
            parts.append(f"`errata job {job['id']}` shows how far it is, and with --cancel ends it;")
        parts.append("it commits nothing." if what == PREVIEW else "`errata log` shows it once it is live.")
        return " ".join(parts)

    with on_ctrl_c(goes_on), JobProgress(quietly() if render.AS_JSON.get() else Console(stderr=True)) as waiting:
        for job in client.watch(method, path, body, if_match):
            waiting.show(job)
    return result_of(job)


def quietly() -> Console:
    """Standard error for a command that answers in JSON: a terminal may show a bar, while lines are reserved for
    problems."""
    console = Console(stderr=True)
    console.quiet = not console.is_terminal
    return console


def result_of(job: dict[str, Any]) -> Any:
    """The result of a job that has ended. A problem ends the program."""
    if job["problem"] is not None:
        render.fail_with_problem(job["problem"])
    if job["outcome"] == "cancelled":
        render.fail(f"The job {job['id']} was cancelled: nothing of it goes live that was not live already.")
    return job["result"]


def descriptions(job: dict[str, Any]) -> Iterator[str]:
    """Describe a job in words, in parts."""
    yield f"The job {job['id']} is {job['outcome']}"
    if job["outcome"] == "running":
        yield DOING.get(job["phase"], job["phase"])
        if job["progress"]:
            yield percent(job)
            yield left(job)
