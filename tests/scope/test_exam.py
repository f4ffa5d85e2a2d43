"""The exam: fair, of its own, and passed by nobody who does not know what asks the same."""

import json
import logging
import random
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from app.domain.words import plain_words
from app.scope.exam import PASS_MARK, ExamPair, ExamResult, ExamResults, best_cut, graded, load_exam
from app.scope_training.items import PAIRS
from app.service.hosted_judge import TASK

EXAM = load_exam()


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts_of(each)


def in_common(pair: ExamPair) -> float:
    """Share of words."""
    mine, known = set(plain_words(pair.doubt.question)), set(plain_words(pair.doubt.keys[0]))
    return len(mine & known) / len(mine | known)


def area(same: list[float], other: list[float]) -> float:
    """Under the curve: how often a pair that asks the same scores above one that does not."""
    return sum((s > o) + 0.5 * (s == o) for s in same for o in other) / (len(same) * len(other))


def grade(logits: list[float]) -> ExamResult:
    return graded("x", EXAM, logits, 1.5)


def test_the_exam_is_large_and_balanced_in_each_half() -> None:
    assert len(EXAM) >= 120
    counts = Counter((pair.same, pair.wording, pair.half) for pair in EXAM)
    assert len(counts) == 8
    assert set(counts.values()) == {len(EXAM) // 8}
    for half in ("settle", "report"):
        shown = [pair for pair in EXAM if pair.half == half and len(pair.doubt.keys) > 1 and pair.doubt.counter]
        assert len(shown) >= 8, "edits have paraphrases and counter-examples, and a judge is shown them"


def test_no_pair_stands_in_it_twice() -> None:
    asked = [pair.doubt.question for pair in EXAM]
    assert len(asked) == len(set(asked))
    known = {pair.doubt.keys[0] for pair in EXAM}
    assert not known.intersection(asked)


def test_words_in_common_do_not_tell_what_asks_the_same() -> None:
    for half in ("settle", "report"):
        mine = [pair for pair in EXAM if pair.half == half]
        same, other = ([in_common(pair) for pair in mine if pair.same == each] for each in (True, False))
        assert 0.4 < area(same, other) < 0.6
    near, far = ([in_common(pair) for pair in EXAM if pair.wording == each] for each in ("near", "far"))
    assert area(near, far) > 0.95


def test_none_of_it_is_what_scope_was_made_or_is_measured_with() -> None:
    mine = {" ".join(plain_words(each)) for p in EXAM for each in (p.doubt.question, *p.doubt.keys, *p.doubt.counter)}
    rows = [*PAIRS.iterdir(), *(files("app.evaluation")).iterdir()]
    others = {
        " ".join(plain_words(text))
        for file in rows
        if file.name.endswith(".jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
        for text in texts_of(json.loads(line))
    }
    assert len(others) > 10_000
    assert not mine & others
    assert not [text for text in mine if text in " ".join(plain_words(TASK))], "nor what the hosted judge is told"


def test_who_knows_passes_whatever_the_scale() -> None:
    for low, high in ((-3.0, 3.0), (-9.5, -9.0), (0.0, 1e-3), (float("-inf"), 0.0)):
        result = grade([high if pair.same else low for pair in EXAM])
        assert (result.passed, result.same, result.other, result.wrong) == (True, 1.0, 1.0, [])
        assert low < result.cut <= high
        assert result.pairs == len(EXAM)


@pytest.mark.parametrize("answer", [1.0, -1.0, float("-inf")], ids=str)
def test_who_always_says_the_same_fails(answer: float) -> None:
    result = grade([answer] * len(EXAM))
    assert not result.passed
    assert min(result.same, result.other) == 0.0


def test_who_counts_words_fails() -> None:
    assert not grade([in_common(pair) for pair in EXAM]).passed
    assert not grade([-in_common(pair) for pair in EXAM]).passed


def test_who_guesses_fails() -> None:
    for seed in range(50):
        draw = random.Random(seed)
        assert not grade([draw.random() for _ in EXAM]).passed


def test_who_knows_only_one_class_fails_and_is_told_what_was_wrong() -> None:
    """Near misses are taken for the same, but on the settling half."""
    logits = [1.0 if pair.same or (pair.wording == "near" and pair.half == "report") else -1.0 for pair in EXAM]
    result = grade(logits)
    assert (result.passed, result.same, result.other) == (False, 1.0, 0.5)
    near = [p for p in EXAM if p.half == "report" and not p.same and p.wording == "near"]
    assert [(w.known, w.question, w.same) for w in result.wrong] == [
        (p.doubt.keys[0], p.doubt.question, False) for p in near
    ]


def test_the_pass_mark_is_of_both_classes() -> None:
    reported = [pair for pair in EXAM if pair.half == "report"]
    for same in (True, False):
        of = [pair for pair in reported if pair.same == same]
        for wrong in range(len(of)):
            denied = set(of[:wrong])
            result = grade([1.0 if pair.same != (pair in denied) else -1.0 for pair in EXAM])
            assert result.passed == ((len(of) - wrong) / len(of) >= PASS_MARK)


@pytest.mark.parametrize(
    ("answered", "cut"),
    [
        ([(True, 2.0), (False, 1.0)], 1.5),
        # all three cuts between two levels serve half of the worse class, or more: the middle one is taken
        ([(True, 3.0), (True, 0.0), (False, 1.0), (False, -1.0)], 0.5),
        ([(True, -5.0), (False, -6.0), (False, float("-inf"))], -5.5),
        ([(True, float("-inf")), (False, float("-inf"))], 0.0),
        ([(True, 2.0), (False, 2.0)], 3.0),
    ],
)
def test_a_scale_is_cut_in_the_middle_between_the_classes(answered: list[tuple[bool, float]], cut: float) -> None:
    assert best_cut(answered) == cut


# -- what is kept


def a_result(**more: Any) -> ExamResult:
    told = {"judge": "x", "same": 0.9, "other": 1.0, "cut": -0.5, "pairs": 4, "seconds": 1.0, "wrong": []}
    return ExamResult.model_validate({**told, **more})


def test_a_result_is_kept_by_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ExamResults(tmp_path / "new")
    assert kept.load("a") is None
    kept.store("a", a_result())
    assert ExamResults(tmp_path / "new").load("a") == a_result()
    assert kept.load("b") is None, "another model, or another prompt"
    monkeypatch.setattr("app.scope.exam.FILE", "scope_bank_v1.tsv")
    assert kept.load("a") is None
    ExamResults(None).store("a", a_result())
    assert ExamResults(None).load("a") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"judge": "x"}', a_result().model_dump_json().replace("0.9", "9")])
def test_a_file_that_cannot_be_read_is_no_result(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = ExamResults(tmp_path)
    kept.store("a", a_result())
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert kept.load("a") is None
    assert "sat again" in caplog.text


def test_a_folder_that_cannot_be_written_costs_no_more_than_an_exam(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    ExamResults(tmp_path / "file").store("a", a_result())
    assert "cannot be written" in caplog.text
