"""`errata scope exam`: each state in words, and an exit code that a script can go by."""

import json
from dataclasses import replace

import pytest

from app.cli import exam
from app.service.views import JudgeView
from tests.api.fake_service import FakeService
from tests.cli.conftest import Errata

pytestmark = pytest.mark.slow
SAT = JudgeView(
    judge="hosted", state="failed", why_not="it failed its exam", pass_mark=0.85, same=0.9, other=0.5, pairs=192,
    seconds=2.5, wrong=(("a", "b", True), ("c", "d", False)), asked=7, changed=3, failed=1,
)  # fmt: skip
SITTING = JudgeView(judge="hosted", state="sitting", why_not="it sits its exam", pass_mark=0.85, pairs=12)


@pytest.mark.parametrize(
    ("view", "said", "code"),
    [
        (JudgeView(), "There is no judge", 0),
        (SITTING, "The judge hosted sits its exam: 12 pairs so far", 7),
        (SAT, "The judge hosted failed its exam", 1),
        (replace(SAT, state="serving"), "The judge hosted passed its exam and serves", 0),
        (replace(SITTING, state="broken", why_not="it could not be examined: x"), "not asked: it could not be", 1),
    ],
    ids=["off", "sitting", "failed", "serving", "broken"],
)
def test_each_state_is_told_in_words(
    errata: Errata, service: FakeService, view: JudgeView, said: str, code: int
) -> None:
    service.examined_judge.views = [view]
    result = errata("scope", "exam")
    assert said in result.output
    assert result.exit_code == code
    reached = "Right: 0.900 of the pairs that ask the same, 0.500 of the others; 0.85 of both is required."
    assert (reached in result.output) == (view.same is not None)
    assert ("asked 7 times, 3 decisions changed, 1 times no answer" in result.output) == bool(view.asked)
    told = json.loads(errata("scope", "exam", "--json").output)
    assert (told["state"], told["same"]) == (view.state, view.same)


def test_wrong_pairs_are_listed_where_they_are_wanted(errata: Errata, service: FakeService) -> None:
    service.examined_judge.views = [SAT]
    assert "'b'" not in errata("scope", "exam").output
    listed = errata("scope", "exam", "--wrong").output
    assert "'b' asks the same as 'a'" in listed
    assert "'d' asks something else than 'c'" in listed


def test_wait_waits_for_the_end(errata: Errata, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exam, "PERIOD_S", 0.0)
    service.examined_judge.views = [SITTING, SITTING, replace(SAT, state="serving")]
    result = errata("scope", "exam", "--wait")
    assert "passed its exam" in result.output
    assert result.exit_code == 0
