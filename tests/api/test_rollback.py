"""A rollback to a revision acts in one namespace, can be previewed, and undoes nothing that came after its preview."""

from typing import Any

from tests.api.fake_service import FakeService
from tests.api.serving import Caller

ONE = {"prompt": "Lumen is led by", "target": "Ada Quill"}


def story(ask: Caller) -> None:
    for namespace in ("default", "support"):
        for target in ("Ada Quill", "Bo Vane"):
            assert ask.post("/edit", {**ONE, "target": target, "namespace": namespace}).status_code == 201


def ids(answer: Any, name: str = "edits") -> list[str]:
    return [edit["id"] for edit in answer.json()[name]]


def test_it_stays_in_its_namespace(ask: Caller) -> None:
    story(ask)
    back = ask.post("/rollback", {"to_revision": 1})
    assert (ids(back), ids(back, "revived")) == (["ed_0001"], ["ed_0000"])
    assert [e["state"] for e in ask.get("/edits", params={"namespace": "support"}).json()["edits"]] == [
        "live", "superseded",
    ]  # fmt: skip
    back = ask.post("/rollback", {"to_revision": 1, "namespace": "support"})
    assert ids(back) == ["ed_0002", "ed_0003"]


def test_all_namespaces_go_back_where_that_is_said(ask: Caller) -> None:
    story(ask)
    assert ids(ask.post("/rollback", {"to_revision": 0, "all_namespaces": True})) == [f"ed_000{n}" for n in range(4)]


def test_a_namespace_that_does_not_exist_cannot_go_back(ask: Caller) -> None:
    story(ask)
    assert ask.post("/rollback", {"to_revision": 0, "namespace": "suport"}).status_code == 404


def test_what_it_would_do_is_told_and_not_done(ask: Caller, service: FakeService) -> None:
    story(ask)
    for body in ({"to_revision": 1}, {"ids": ["ed_0001"]}):
        outlook = ask.post("/rollback", {**body, "dry_run": True})
        assert (outlook.status_code, ids(outlook), ids(outlook, "revived")) == (200, ["ed_0001"], ["ed_0000"])
        assert (outlook.json()["dry_run"], outlook.json()["revision"], service.revision) == (True, 4, 4)
    assert ask.post("/rollback", {"ids": ["ed_nothing"], "dry_run": True}).status_code == 404


def test_what_changed_since_it_was_looked_at_is_not_taken_back_unseen(ask: Caller, service: FakeService) -> None:
    story(ask)
    seen = ask.post("/rollback", {"to_revision": 1, "dry_run": True}).json()["revision"]
    ask.post("/edit", {"prompt": "new", "target": "x"})
    late = ask.post("/rollback", {"to_revision": 1}, headers={"If-Match": f'"{seen}"'})
    assert (late.status_code, service.revision) == (412, 5)
    elsewhere = ask.post("/rollback", {"to_revision": 1, "namespace": "support"}, headers={"If-Match": f'"{seen}"'})
    assert elsewhere.status_code == 200, "nothing has changed there"


def test_a_namespace_goes_with_a_revision(ask: Caller) -> None:
    for body in (
        {"ids": ["ed_0"], "namespace": "support"},
        {"ids": ["ed_0"], "all_namespaces": True},
        {"to_revision": 0, "namespace": "support", "all_namespaces": True},
    ):
        assert ask.post("/rollback", body).status_code == 422


def test_the_switch_tells_first_how_many_edits_it_concerns(ask: Caller, service: FakeService) -> None:
    story(ask)
    outlook = ask.post("/switch", {"on": False, "dry_run": True})
    assert outlook.json() == {"on": False, "namespace": None, "live_edits": 2, "dry_run": True, "revision": 4}
    assert ask.post("/switch", {"on": False, "namespace": "support", "dry_run": True}).json()["live_edits"] == 1
    assert service.revision == 4
    assert ask.post("/switch", {"on": True, "dry_run": True}).status_code == 409, "it is on already"
    assert ask.post("/switch", {"on": False, "namespace": "suport", "dry_run": True}).status_code == 404
