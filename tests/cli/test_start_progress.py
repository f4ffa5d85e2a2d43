"""A start shows each piece of work as it begins, and its progress at steady intervals."""

import io

from rich.console import Console

from app.cli.start_progress import PERIOD_S, StartProgress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_where_the_output_is_a_pipe_lines_come_at_steady_intervals() -> None:
    out, clock = io.StringIO(), Clock()
    with StartProgress(Console(file=out, width=40), clock) as starting:
        starting.on_step("reading the weights of a/model/with/a/rather/long/name", 0, 0)
        for done in range(0, 1776, 8):
            clock.now += 0.1
            starting.on_step("computing scope keys", done, 1776)
    lines = out.getvalue().splitlines()
    assert lines[:2] == [
        "[  0.0 s] reading the weights of a/model/with/a/rather/long/name",
        "[  0.1 s] computing scope keys 0/1,776",
    ]
    assert 2 + int(22 / PERIOD_S) - 1 <= len(lines) <= 2 + int(22 / PERIOD_S) + 1
    assert all("computing scope keys" in line and "/1,776" in line for line in lines[1:])
    assert starting.seconds == clock.now - 100


def test_on_a_terminal_there_is_a_bar_and_it_is_gone_in_the_end() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    with StartProgress(console) as starting:
        starting.on_step("computing scope keys", 888, 1776)
        starting.stop()
        drawn = out.getvalue()
    assert "Computing scope keys" in drawn
    assert "888/1776" in drawn
    assert out.getvalue() == drawn
    assert drawn.endswith("\x1b[2K")  # the line is taken back
