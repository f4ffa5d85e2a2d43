"""The callback by which long work reports its progress."""

from collections.abc import Callable

OnStep = Callable[[str, int, int], None]
"""Receives the present step, how much of it is done, and the total; 0 of 0 if the total is unknown."""


def quietly(_what: str, _done: int, _total: int) -> None: ...
