"""Tables that fit the terminal: the least important columns are dropped first; an id is shown whole or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column. `least` is the number of characters below which it is not worth showing; None shows it whole, on one
    line.

    If the terminal is too narrow, the column with the highest `drop` is removed first; 0 is never removed. A text that
    is too long ends in an ellipsis, or continues below if the column is to `fold`.
    """

    name: str
    least: int | None = None
    drop: int = 0
    right: bool = False
    fold: bool = False


def print_table(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]) -> None:
    """Print rows of cells, one cell for each column."""
    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    natural = [
        max(len(column.name), *(row[at].cell_len for row in cells), 0) if cells else len(column.name)
        for at, column in enumerate(columns)
    ]
    shown = _that_fit(columns, natural, console.width)
    widths = _widths([columns[at] for at in shown], [natural[at] for at in shown], console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, width in zip(shown, widths, strict=True):
        column = columns[at]
        table.add_column(
            column.name,
            width=width,
            no_wrap=not column.fold,
            overflow="fold" if column.fold else "ellipsis",
            justify="right" if column.right else "left",
        )
    for row in cells:
        table.add_row(*(row[at] for at in shown))
    console.print(table, soft_wrap=False)


def _floor(column: Column, natural: int) -> int:
    return natural if column.least is None else min(natural, column.least)


def _that_fit(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    shown = list(range(len(columns)))
    while sum(_floor(columns[at], natural[at]) + GAP for at in shown) - GAP > width:
        last = max(shown, key=lambda at: columns[at].drop)
        if columns[last].drop == 0:
            break
        shown.remove(last)
    return shown


def _widths(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    """The columns' widths: the space that remains is shared equally among the columns that are cut short, until they
    are whole."""
    widths = [_floor(column, wanted) for column, wanted in zip(columns, natural, strict=True)]
    left = width - sum(widths) - GAP * (len(widths) - 1)
    while left > 0 and (short := [at for at, wanted in enumerate(natural) if widths[at] < wanted]):
        share = max(1, left // len(short))
        for at in short:
            more = min(share, natural[at] - widths[at], left)
            widths[at] += more
            left -= more
    return widths
