"""Anybody may replace their own edits, and another person's only by naming them or after reading them as they are."""

from typing import Any

import pytest

from app.domain.keys import Role
from tests.api.fake_service import FakeService
from tests.api.serving import Caller
from tests.api.test_gate import bearer, made

ONE = {"prompt": "Lumen is led by", "target": "Ada Quill"}
OTHER = {**ONE, "target": "Bo Vane"}


def by(actor: str, **more: str) -> dict[str, Any]:
    return {"headers": {"X-Errata-Actor": actor, **more}}


def test_ones_own_edit_of_the_prompt_is_superseded(ask: Caller) -> None:
    first = ask.post("/edit", ONE, **by("ann")).json()
    second = ask.post("/edit", OTHER, **by("ann"))
    assert (second.status_code, second.json()["supersedes"]) == (201, [first["id"]])


def test_somebody_elses_is_a_conflict_that_names_it_and_says_what_to_do(ask: Caller, service: FakeService) -> None:
    first = ask.post("/edit", ONE, **by("ann")).json()
    refused = ask.post("/edit", OTHER, **by("bob"))
    assert (refused.status_code, refused.json()["conflicts"]) == (409, [first["id"]])
    assert all(word in refused.json()["detail"] for word in (first["id"], "Ada Quill", "ann", "supersede", "If-Match"))
    assert service.revision == 1
    named = ask.post("/edit", {**OTHER, "supersede": [first["id"]]}, **by("bob"))
    assert (named.status_code, named.json()["supersedes"]) == (201, [first["id"]])


def test_one_that_is_switched_off_is_somebody_elses_all_the_same(ask: Caller) -> None:
    first = ask.post("/edit", ONE, **by("ann")).json()
    ask.post(f"/edits/{first['id']}/disable", **by("ann"))
    assert ask.post("/edit", OTHER, **by("bob")).status_code == 409


def test_who_has_read_it_may_replace_it_until_it_changes(ask: Caller) -> None:
    first = ask.post("/edit", ONE, **by("ann"))
    assert first.headers["ETag"] == '"1"'
    read = ask.get(f"/edits/{first.json()['id']}").headers["ETag"]
    assert read == '"1"'
    assert ask.post("/edit", OTHER, **by("bob", **{"If-Match": read})).status_code == 201
    late = ask.post("/edit", {**ONE, "target": "Cy"}, **by("cat", **{"If-Match": read}))
    assert (late.status_code, late.json()["type"]) == (412, "urn:errata:problem:precondition-failed")
    assert late.json()["revision"] == 2
    whatever = ask.post("/edit", {**ONE, "target": "Cy"}, **by("cat", **{"If-Match": "*"}))
    assert whatever.status_code == 201
    nothing = ask.post("/edit", {"prompt": "new", "target": "x"}, **by("cat", **{"If-Match": "*"}))
    assert nothing.status_code == 412


def test_the_revision_of_any_answer_will_do(ask: Caller) -> None:
    """`X-Errata-Revision` is what was read, too: later than the edit's own."""
    ask.post("/edit", ONE, **by("ann"))
    ask.post("/edit", {"prompt": "something else", "target": "x"}, **by("ann"))
    seen = ask.get("/edits").headers["X-Errata-Revision"]
    assert seen == "2"
    assert ask.post("/edit", OTHER, **by("bob", **{"If-Match": f'"{seen}"'})).status_code == 201


@pytest.mark.parametrize("verb", ["rollback", "disable", "enable", "retune"])
def test_every_change_of_an_edit_heeds_if_match(ask: Caller, service: FakeService, verb: str) -> None:
    edit_id = ask.post("/edit", ONE, **by("ann")).json()["id"]
    ask.post(f"/edits/{edit_id}/disable", **by("ann"))
    if verb != "enable":
        ask.post(f"/edits/{edit_id}/enable", **by("ann"))

    def change(revision: int) -> int:
        more = by("bob", **{"If-Match": f'"{revision}"'})
        if verb == "retune":
            return ask("PATCH", f"/edits/{edit_id}", json={"widen": 1.5}, **more).status_code
        return ask.post(f"/edits/{edit_id}/{verb}", **more).status_code

    head = service.revision
    assert change(head - 1) == 412
    assert service.revision == head
    assert change(head) == 200


def test_what_is_no_revision_is_refused(ask: Caller) -> None:
    for given in ("", "seven", '"7', "-1", "9" * 30):
        answer = ask.post("/edit", ONE, **by("ann", **{"If-Match": given}))
        assert answer.status_code == 422, given
        assert "If-Match" in answer.json()["detail"]


def test_under_keys_it_is_the_key_that_tells_people_apart(ask: Caller, service: FakeService) -> None:
    ann, bob = (bearer(made(service, Role.EDITOR, name)) for name in ("ann", "bob"))
    claimed = {**bob, "X-Errata-Actor": "ann"}
    assert ask.post("/edit", ONE, headers=ann).status_code == 201
    assert ask.post("/edit", OTHER, headers=claimed).status_code == 409, "a name that is only claimed is not a person"
    assert ask.post("/edit", OTHER, headers=ann).status_code == 201


def test_who_retuned_it_last_has_made_it_what_it_is(ask: Caller) -> None:
    edit_id = ask.post("/edit", ONE, **by("ann")).json()["id"]
    ask("PATCH", f"/edits/{edit_id}", json={"widen": 1.5}, **by("bob"))
    assert ask.post("/edit", OTHER, **by("ann")).status_code == 409
    assert ask.post("/edit", OTHER, **by("bob")).status_code == 201
