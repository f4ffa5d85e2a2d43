"""Histories name the key, the claimed name, an edit's events, and the effects of events on other edits."""

import json
from typing import Any

from app.domain.keys import Role
from app.store import audit
from tests.api.fake_service import FakeService
from tests.api.serving import Caller
from tests.api.test_gate import bearer, made

ONE = {"prompt": "Lumen is led by", "target": "Ada Quill"}
OTHER = {**ONE, "target": "Bo Vane"}


def by(actor: str) -> dict[str, Any]:
    return {"headers": {"X-Errata-Actor": actor}}


def log(ask: Caller, **more: Any) -> list[Any]:
    return list(ask.get("/log", **more).json()["events"])


def test_a_claimed_name_never_stands_alone_where_there_is_a_key(ask: Caller, service: FakeService) -> None:
    key = bearer(made(service, Role.ADMIN, "ci"))
    edit = ask.post("/edit", ONE, headers={**key, "X-Errata-Actor": "the-ceo"}).json()
    ask.post(f"/edits/{edit['id']}/disable", headers={**key, "X-Errata-Actor": "ci"})
    ask.post(f"/edits/{edit['id']}/enable", headers=key)
    ask.post("/switch", {"on": False}, headers={**key, "X-Errata-Actor": "the-ceo"})
    assert edit["actor"] == "ci (as the-ceo)"
    assert [event["actor"] for event in log(ask, headers=key)] == [
        "root", "ci (as the-ceo)", "ci", "ci", "ci (as the-ceo)",
    ]  # fmt: skip
    history = ask.get(f"/edits/{edit['id']}", headers=key).json()["history"]
    assert [item["actor"] for item in history] == ["ci (as the-ceo)", "ci", "ci"]
    assert ask.get("/switch", headers=key).json()["switches"][0]["actor"] == "ci (as the-ceo)"
    for actor in ("ci", "the-ceo", "ci (as the-ceo)"):
        assert len(ask.get("/edits", params={"actor": actor}, headers=key).json()["edits"]) == 1, actor
    assert ask.get("/edits", params={"actor": "ceo"}, headers=key).json()["edits"] == []
    exported = next(audit.lines(service.records.log, 1))
    assert json.loads(exported)["event"]["origin"]["actor"] == "ci (as the-ceo)", "in what the hash is of"


def test_in_entries_from_before_the_claimed_name_is_told_with_its_key(ask: Caller, service: FakeService) -> None:
    """Errata wrote them like this until then: the claimed name alone, and the key's id."""
    key = made(service, Role.ADMIN, "ci")
    ask.post("/edit", ONE, headers=bearer(key))
    entry = service.records.ledger.entries["ed_0000"]
    touch = entry.history[0]
    object.__setattr__(touch.origin, "actor", "the-ceo")
    assert ask.get("/edits/ed_0000", headers=bearer(key)).json()["actor"] == "ci (as the-ceo)"
    assert (touch.revision, touch.kind) == (2, "edit_committed")


def test_events_of_keys_carry_name_and_role(ask: Caller, service: FakeService) -> None:
    key = bearer(made(service, Role.READER, "dashboard"))
    (created,) = log(ask, headers=key)
    assert (created["key_name"], created["key_role"], len(created["key"])) == ("dashboard", "reader", 12)


def test_an_edits_history_shows_what_others_did_to_it_as_their_doing(ask: Caller) -> None:
    first = ask.post("/edit", ONE, **by("ann")).json()["id"]
    second = ask.post("/edit", {**OTHER, "supersede": [first]}, **by("bob")).json()["id"]
    ask.post(f"/edits/{second}/disable", {"reason": "wrong after all"}, **by("cat"))
    ask.post(f"/edits/{second}/enable", **by("bob"))
    ask.post(f"/edits/{second}/rollback", **by("dan"))
    body = ask.get(f"/edits/{first}").json()
    assert [(item["kind"], item["actor"], item["by"]) for item in body["history"]] == [
        ("edit_committed", "ann", None),
        ("edit_superseded", "bob", second),
        ("edit_revived", "cat", second),
        ("edit_superseded", "bob", second),
        ("edit_revived", "dan", second),
    ]
    assert body["history"][2]["reason"] == "wrong after all"
    assert (body["revision"], body["state"]) == (5, "live")
    own = ask.get(f"/edits/{second}").json()["history"]
    assert [(item["kind"], item["by"]) for item in own] == [
        ("edit_committed", None), ("edits_disabled", None), ("edits_enabled", None), ("edits_rolled_back", None),
    ]  # fmt: skip


def test_what_stays_superseded_is_not_told_to_come_back(ask: Caller) -> None:
    """The third correction supersedes the first, too, so a rollback of the second changes nothing for it."""
    first, second, _ = (ask.post("/edit", {**ONE, "target": each}, **by("ann")).json()["id"] for each in "abc")
    ask.post(f"/edits/{second}/rollback", **by("ann"))
    assert [item["kind"] for item in ask.get(f"/edits/{first}").json()["history"]] == [
        "edit_committed", "edit_superseded",
    ]  # fmt: skip


def test_a_batch_that_supersedes_is_the_others_doing_too(ask: Caller) -> None:
    first = ask.post("/edit", ONE, **by("ann")).json()["id"]
    ask.post("/edit", {"edits": [OTHER, {"prompt": "p", "target": "t"}]}, **by("ann"))
    (_, taken) = ask.get(f"/edits/{first}").json()["history"]
    assert (taken["kind"], taken["by"]) == ("edit_superseded", "ed_0001")


def test_the_log_tells_before_and_after_what_was_forced_and_what_came_back(ask: Caller) -> None:
    ask.post("/edit", ONE, **by("ann"))
    ask.post("/edit", {**OTHER, "force": True, "reason": "urgent"}, **by("ann"))
    ask.post("/edits/ed_0001/rollback", **by("ann"))
    one, two, back = log(ask)
    assert (one["edit"]["before"], one["edit"]["after"], one["edit"]["forced"]) == (
        "base answer here", "Ada Quill", False,
    )  # fmt: skip
    assert (two["edit"]["forced"], two["edit"]["reason"], two["superseded"]) == (True, "urgent", ["ed_0000"])
    assert (back["revived"], back["superseded"]) == (["ed_0000"], [])


def test_the_log_tells_what_a_retune_changed(ask: Caller, service: FakeService) -> None:
    ask.post("/edit", ONE, **by("ann"))
    change = {"widen": 1.5, "paraphrases": ["Lumen's head?"], "force": True, "reason": "missed"}
    ask("PATCH", "/edits/ed_0000", json=change, **by("ann"))
    retuned = log(ask)[1]
    assert (retuned["changed"], retuned["forced"]) == ({"widen": 1.5, "paraphrases": ["Lumen's head?"]}, True)
    assert ask.get("/edits/ed_0000").json()["history"][1]["changed"] == {"paraphrases": ["Lumen's head?"]}


def test_a_batch_has_the_reason_of_each_edit(ask: Caller) -> None:
    edits = [{"prompt": "a", "target": "t", "reason": "ticket 1"}, {"prompt": "b", "target": "t", "reason": "ticket 2"}]
    ask.post("/edit", {"edits": edits}, **by("ann"))
    closed = log(ask)[2]
    assert [(each["prompt"], each["reason"]) for each in closed["edits"]] == [("a", "ticket 1"), ("b", "ticket 2")]


def test_the_whole_log_is_exported_as_lines_that_prove_themselves(ask: Caller, service: FakeService) -> None:
    for prompt in ("a", "b\u2028c"):
        ask.post("/edit", {"prompt": prompt, "target": "t"}, **by("ann"))
    answer = ask.get("/log/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert audit.verify(answer.text.splitlines()).hash == service.records.hash
    assert len(ask.get("/log/export", params={"after": 1}).text.splitlines()) == 1
    beyond = ask.get("/log/export", params={"after": 4711})
    assert (beyond.status_code, beyond.text) == (200, "")
    service.records.log.trim(2)
    assert ask.get("/log/export", params={"after": 0}).status_code == 410
    assert audit.verify(ask.get("/log/export").text.splitlines()).first == 2
