"""The server reports on the judge and on uncertain decisions."""

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.service.views import JudgeView
from tests.api.fake_service import FakeService
from tests.api.serving import Caller

JUDGE = JudgeView(
    judge="hosted", state="failed", why_not="it failed its exam", pass_mark=0.85, same=0.9, other=0.5, pairs=192,
    seconds=2.5, wrong=(("a", "b", True),), asked=7, changed=3, failed=1, asked_seconds=1.5,
)  # fmt: skip
COUNTED = [
    f"errata_judge_{name}" for name in ("serving", "asked_total", "changed_total", "failed_total", "seconds_total")
]


def metrics(ask: Caller) -> dict[str, float]:
    families = text_string_to_metric_families(ask.get("/metrics").text)
    return {" ".join((s.name, *s.labels.values())): s.value for family in families for s in family.samples}


def test_the_judge_is_told_with_its_exam(ask: Caller, service: FakeService) -> None:
    service.examined_judge.views = [JUDGE]
    judge = ask.get("/readyz").json()["judge"]
    assert judge == {
        "judge": "hosted", "state": "failed", "why_not": "it failed its exam", "pass_mark": 0.85, "same": 0.9,
        "other": 0.5, "pairs": 192, "asked": 7, "changed": 3, "failed": 1,
    }  # fmt: skip
    answer = ask.get("/scope/exam")
    assert answer.status_code == 200
    wrong = [{"known": "a", "question": "b", "same": True}]
    assert answer.json() == {**judge, "seconds": 2.5, "wrong": wrong}


@pytest.mark.parametrize("state", ["off", "sitting", "serving", "failed", "broken"])
def test_a_judge_in_every_state_leaves_the_server_ready(ask: Caller, service: FakeService, state: str) -> None:
    service.examined_judge.views = [replace(JUDGE, state=state)]
    answer = ask.get("/readyz")
    assert (answer.status_code, answer.json()["judge"]["state"]) == (200, state)
    assert metrics(ask)["errata_judge_serving"] == (state == "serving")


def test_the_cost_of_the_judge_is_in_the_metrics(ask: Caller, service: FakeService) -> None:
    assert [metrics(ask)[name] for name in COUNTED] == [0, 0, 0, 0, 0]
    service.examined_judge.views = [JUDGE]
    assert [metrics(ask)[name] for name in COUNTED] == [0, 7, 3, 1, 1.5]


def test_uncertain_decisions_are_counted_by_what_was_decided(ask: Caller) -> None:
    ask.post("/edit", {"prompt": "perhaps so", "target": "t"})
    for prompt in ("perhaps so", "perhaps not", "perhaps never", "surely"):
        ask.post("/generate", {"inputs": prompt})
    ask.post("/generate_stream", {"inputs": "perhaps so"})
    got = metrics(ask)
    assert got["errata_uncertain_decisions_total answered"] == 2
    assert got["errata_uncertain_decisions_total deferred"] == 2
