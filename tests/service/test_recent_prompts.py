"""Recent prompts: which are kept, in which order, and which nothing pushes out."""

import threading

import pytest

from app.domain.errors import InvalidRequest
from app.service.recent_prompts import MOST_NAMESPACES, RecentPrompts


def test_the_newest_are_kept_and_told_first() -> None:
    recent = RecentPrompts(3)
    for prompt in ("a", "b", "a", "c", "d"):
        recent.add("one", prompt)
    assert recent.newest("one", 9) == ["d", "c", "a"]
    assert recent.newest("one", 2) == ["d", "c"]
    assert recent.newest("two", 9) == []


def test_what_is_asked_pushes_out_nothing_that_no_edit_is_to_answer() -> None:
    recent = RecentPrompts(2)
    assert recent.add_all("one", ["x", "y"], others=True) == 2
    for prompt in ("a", "b", "x", "c"):
        recent.add("one", prompt)
    assert recent.both("one") == (["b", "c"], ["y", "x"])
    assert recent.add_all("one", ["b"], others=True) == 3
    assert recent.both("one") == (["c"], ["x", "b"])
    assert recent.counts() == {"one": 3}
    assert recent.forget() == 3
    assert recent.both("one") == ([], [])


def test_none_are_kept_unless_they_may_be() -> None:
    recent = RecentPrompts(0)
    recent.add("one", "a")
    assert recent.counts() == {}
    with pytest.raises(InvalidRequest, match="ERRATA_RECENT_PROMPTS"):
        recent.add_all("one", ["a"])


def test_namespaces_are_bounded() -> None:
    recent = RecentPrompts(1)
    for at in range(MOST_NAMESPACES + 1):
        recent.add(f"n{at}", "a")
    assert len(recent.counts()) == MOST_NAMESPACES
    assert "n0" not in recent.counts()


def test_threads_may_read_while_prompts_are_added() -> None:
    recent, failed, stop = RecentPrompts(200), [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                recent.both("one")
                recent.counts()
            except RuntimeError as error:
                failed.append(error)
                return

    thread = threading.Thread(target=read)
    thread.start()
    for at in range(20_000):
        recent.add("one", str(at % 400))
    stop.set()
    thread.join()
    assert failed == []
