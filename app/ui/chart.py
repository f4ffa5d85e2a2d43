"""Hits over time as bars: a drawing that the server makes, with its figures in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.service.hits import DAY_S, day_of
from app.ui import words

WIDTH = 4
"""The width of a day, in the units of the drawing."""
HEIGHT = 60


@dataclass(frozen=True, slots=True)
class Bar:
    """The hits of one day, as a rectangle: its left and upper edges and its height, in the units of the drawing."""

    x: int
    y: float
    height: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Hits by day. `first` and `last` are days in words; `text` has the figures for those who do not see the bars."""

    bars: list[Bar]
    width: int
    first: str
    last: str
    text: str


def chart(by_day: Sequence[int], now_s: float) -> Chart:
    """The chart of hits on successive days, of which the last one is today. Days without hits have no bar."""
    today = day_of(now_s)

    def name(at: int) -> str:
        return words.date((today - len(by_day) + 1 + at) * DAY_S)

    most = max(by_day)
    bars = [
        Bar(at * WIDTH, HEIGHT - height, height, f"{name(at)}: {count:,}")
        for at, count in enumerate(by_day)
        if count and (height := max(2.0, round(count / most * HEIGHT, 1)))
    ]
    text = f"{by_day[-1]:,} today, {sum(by_day[-7:]):,} in 7 days, {sum(by_day):,} in {len(by_day)} days"
    if most:
        peak = len(by_day) - 1 - list(reversed(by_day)).index(most)
        text += f"; most on {name(peak)}: {most:,}"
    return Chart(bars, len(by_day) * WIDTH, name(0), name(len(by_day) - 1), text)
