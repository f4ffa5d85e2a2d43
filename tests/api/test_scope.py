"""The wire of scopes: edits retuned, probes of a namespace, recent prompts."""

from typing import Any

import pytest

from tests.api.fake_service import FakeService
from tests.api.serving import Caller

ONE = {"prompt": "The chief executive of Lumen is", "target": "Ada Quill", "subject": "Lumen"}


def test_an_edit_is_retuned_under_its_id(ask: Caller, service: FakeService) -> None:
    made = ask.post("/edit", ONE).json()
    body = {"widen": 1.5, "paraphrases": ["Lumen is led by"], "counter_examples": ["Who led it?"], "reason": "missed"}
    answer = ask("PATCH", f"/edits/{made['id']}", json=body, headers={"X-Errata-Actor": "bob"})
    assert answer.status_code == 200
    told = answer.json()
    assert (told["id"], told["revision"], told["state"]) == (made["id"], 2, "live")
    assert (told["paraphrases"], told["counter_examples"]) == (["Lumen is led by"], ["Who led it?"])
    assert (service.origins[-1].actor, service.origins[-1].reason) == ("bob", "missed")
    history = ask.get(f"/edits/{made['id']}").json()["history"]
    assert [item["kind"] for item in history] == ["edit_committed", "edit_retuned"]
    (event,) = ask.get("/log", params={"after": 1}).json()["events"]
    assert (event["kind"], event["edit_ids"]) == ("edit_retuned", [made["id"]])


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "There is nothing to change"),
        ({"widen": 0}, 422, "widen"),
        ({"widen": "far"}, 422, "widen"),
        ({"target": "x"}, 422, "target"),
        ({"paraphrases": ["x"] * 101}, 422, "paraphrases"),
    ],
)
def test_a_wrong_change_is_refused(ask: Caller, body: dict[str, Any], status: int, said: str) -> None:
    made = ask.post("/edit", ONE).json()
    answer = ask("PATCH", f"/edits/{made['id']}", json=body)
    assert answer.status_code == status
    assert said in answer.text
    assert ask("PATCH", "/edits/ed_9", json={"widen": 2.0}).status_code == 404


def test_one_edit_names_its_neighbours(ask: Caller) -> None:
    first, second = (ask.post("/edit", {**ONE, "prompt": prompt}).json() for prompt in ("Lumen A", "Lumen B"))
    near = ask.get(f"/edits/{first['id']}").json()["neighbours"]
    assert near == [{"id": second["id"], "prompt": "Lumen B", "target": "Ada Quill"}]


def test_probes_of_a_namespace_are_set_and_shown(ask: Caller) -> None:
    assert ask.get("/probes").json() == {"namespace": "default", "prompts": [], "revision": 0}
    body = {"prompts": ["a", "b"], "namespace": "support", "reason": "house rules"}
    assert ask("PUT", "/probes", json=body).json() == {"namespace": "support", "prompts": ["a", "b"], "revision": 1}
    assert ask.get("/probes", params={"namespace": "support"}).json()["prompts"] == ["a", "b"]
    assert ask.get("/probes").json()["prompts"] == []
    (event,) = ask.get("/log").json()["events"]
    assert (event["kind"], event["namespace"], event["prompts"]) == ("probes_set", "support", ["a", "b"])
    assert ask("PUT", "/probes", json={"prompts": ["a"], "namespace": "no name"}).status_code == 422
    assert ask.get("/probes", params={"namespace": "no name"}).status_code == 422


def test_prompts_are_told_the_edit_that_they_ask_for_and_the_stated_share_of_false_hits(ask: Caller) -> None:
    edit_id = ask.post("/edit", {"prompt": "Who?", "target": "Ada", "namespace": "lax"}).json()["id"]
    told = ask.post("/scope", {"prompts": ["Who?", "Where?"], "namespace": "lax"}).json()
    assert [each["edit"] and each["edit"]["id"] for each in told["decisions"]] == [edit_id, None]
    assert (told["false_hits"], told["revision"]) == (0.25, 1)
    told = ask.post("/scope", {"prompts": ["Who?"]}).json()
    assert (told["decisions"][0]["edit"], told["false_hits"]) == (None, 0.002), "another namespace"


def test_recent_prompts_are_counted_and_deleted(ask: Caller, service: FakeService) -> None:
    for namespace in ("default", "default", "support"):
        service.recent.add(namespace, f"{namespace} {len(service.recent.counts())}")
    assert ask.get("/recent").json() == {"kept": {"default": 2, "support": 1}, "at_most": 10}
    assert ask("DELETE", "/recent", params={"namespace": "default"}).json() == {"forgotten": 2}
    assert ask("DELETE", "/recent").json() == {"forgotten": 1}
    assert ask.get("/recent").json()["kept"] == {}


def test_probes_are_asked_with_the_edits_and_without(ask: Caller, service: FakeService) -> None:
    made = ask.post("/edit", {"prompt": "Who?", "target": "Ada"}).json()
    ask("PUT", "/probes", json={"prompts": ["Who?", "Where?"]})
    told = ask.post("/probes/check", {}).json()
    assert told["changed"] == 1
    assert told["probes"] == [
        {"prompt": "Who?", "base": "base answer here", "now": "Ada", "changed": True, "edit": made["id"]},
        {"prompt": "Where?", "base": "base answer here", "now": "base answer here", "changed": False, "edit": None},
    ]
    assert service.records.hits.of(made["id"]) == 0, "these are nobody's questions"
    assert ask.post("/probes/check", {"prompts": ["Where?"]}).json()["changed"] == 0
    assert ask.post("/probes/check", {"namespace": "elsewhere"}).json()["probes"] == []
