"""Namespaces and their switches over HTTP, and edits that wait to be looked after: never hit, or soon over."""

from app.domain.keys import Role
from tests.api.fake_service import FakeService
from tests.api.serving import Caller
from tests.api.test_gate import bearer, made

ONE = {"prompt": "Lumen is led by", "target": "Ada Quill"}


EMPTY = {"edits": 0, "live_edits": 0, "probes": 0, "second_person": False, "description": ""}


def test_namespaces_are_listed_with_what_is_in_them(ask: Caller, service: FakeService) -> None:
    assert ask.get("/namespaces").json() == {
        "namespaces": [{"name": "default", **EMPTY, "answering": True}],
        "revision": 0,
    }
    service.configured = ("strict",)
    ask.post("/edit", {**ONE, "namespace": "support"})
    ask.post("/edit", {**ONE, "prompt": "p", "namespace": "support"})
    ask.post("/edits/ed_0000/rollback")
    ask("PUT", "/probes", json={"prompts": ["a", "b"], "namespace": "legal"})
    ask.post("/switch", {"on": False, "namespace": "support"})
    found = {each.pop("name"): each for each in ask.get("/namespaces").json()["namespaces"]}
    assert list(found) == ["default", "legal", "strict", "support"]
    assert found["legal"] == EMPTY | {"probes": 2, "answering": True}
    assert found["support"] == EMPTY | {"edits": 2, "live_edits": 1, "answering": False}
    ask.post("/switch", {"on": False})
    assert not any(each["answering"] for each in ask.get("/namespaces").json()["namespaces"])


def test_the_switch_can_be_read_with_who_set_it_and_why(ask: Caller) -> None:
    untouched = {"namespace": None, "on": True, "since": None, "at": None, "actor": None, "reason": None}
    assert ask.get("/switch").json() == {"on": True, "off": [], "switches": [untouched], "revision": 0}
    ask.post("/switch", {"on": False, "reason": "incident 12"}, headers={"X-Errata-Actor": "ann"})
    ask.post("/switch", {"on": False, "namespace": "default"}, headers={"X-Errata-Actor": "bob"})
    ask.post("/switch", {"on": True, "namespace": "default"}, headers={"X-Errata-Actor": "cat"})
    body = ask.get("/switch").json()
    assert (body["on"], body["off"], body["revision"]) == (False, [], 3)
    of_all, own = body["switches"]
    assert of_all == {
        "namespace": None, "on": False, "since": 1, "at": "2023-11-14T22:13:20Z", "actor": "ann",
        "reason": "incident 12",
    }  # fmt: skip
    assert (own["namespace"], own["on"], own["since"], own["actor"]) == ("default", True, 3, "cat")
    ask.post("/switch", {"on": False, "namespace": "default"})
    assert ask.get("/switch").json()["off"] == ["default"]


def test_what_the_log_no_longer_has_is_left_out(ask: Caller, service: FakeService) -> None:
    ask.post("/switch", {"on": False})
    ask.post("/edit", ONE)
    service.records.log.trim(2)
    (of_all,) = ask.get("/switch").json()["switches"]
    assert (of_all["on"], of_all["since"], of_all["actor"]) == (False, 1, None)


def test_a_namespace_that_does_not_exist_has_no_switch(ask: Caller, service: FakeService) -> None:
    ask.post("/edit", {**ONE, "namespace": "support"})
    answer = ask.post("/switch", {"on": False, "namespace": "suport"})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:errata:problem:unknown-namespace")
    assert "Did you mean 'support'?" in answer.json()["detail"]
    assert service.revision == 1
    assert ask.post("/switch", {"on": False, "namespace": "default"}).status_code == 200, "it is always there"


def test_a_reader_may_look_and_no_more(ask: Caller, service: FakeService) -> None:
    key = bearer(made(service, Role.READER))
    assert ask.get("/switch", headers=key).status_code == ask.get("/namespaces", headers=key).status_code == 200
    assert ask.post("/switch", {"on": False}, headers=key).status_code == 403


def listed(ask: Caller, **query: object) -> list[str]:
    answer = ask.get("/edits", params=query)
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["edits"]]


def test_edits_that_never_answered_are_listed(ask: Caller) -> None:
    ask.post("/edit", ONE)
    ask.post("/edit", {"prompt": "p", "target": "t"})
    assert listed(ask, never_hit=True) == ["ed_0001", "ed_0000"]
    ask.post("/generate", {"inputs": "p"})
    assert listed(ask, never_hit=True) == ["ed_0000"]
    assert listed(ask, never_hit=False) == ["ed_0001", "ed_0000"]


def test_edits_that_expire_soon_are_listed(ask: Caller) -> None:
    for prompt, expires_in in (("a", None), ("b", 60), ("c", 7200), ("d", 60)):
        ask.post("/edit", {"prompt": prompt, "target": "t", "expires_in": expires_in})
    ask.post("/edits/ed_0003/rollback")
    assert listed(ask, expires_within=3600) == ["ed_0001"], "one that is taken back does not expire"
    assert listed(ask, expires_within=86400) == ["ed_0002", "ed_0001"]
    assert ask.get("/edits", params={"expires_within": 0}).status_code == 422


def test_readyz_and_metrics_tell_which_switches_are_off(ask: Caller) -> None:
    ask.post("/edit", {**ONE, "namespace": "support"})
    ask.post("/switch", {"on": False, "namespace": "support"})
    ready = ask.get("/readyz").json()
    assert (ready["switched_on"], ready["switched_off"]) == (True, ["support"]), "only one namespace is off"
    metrics = ask.get("/metrics").text
    assert 'errata_switched_on{namespace=""} 1.0' in metrics
    assert 'errata_switched_on{namespace="support"} 0.0' in metrics
    ask.post("/switch", {"on": False})
    ask.post("/switch", {"on": True, "namespace": "support"})
    ready = ask.get("/readyz").json()
    assert (ready["switched_on"], ready["switched_off"]) == (False, [])
    assert 'errata_switched_on{namespace=""} 0.0' in ask.get("/metrics").text
    assert len(ready["hash"]) == 64
