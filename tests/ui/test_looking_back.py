"""Timeline, audit, namespaces, keys and health: what was, who did it, and the ways back."""

import asyncio
import base64
import csv
import hashlib
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from app.domain.events import Origin
from app.domain.keys import Role
from app.service.keyring import Keyring
from app.store.codec import GENESIS, decode
from tests.api.fake_service import NOW_S, FakeService
from tests.laws.stores import MemoryStore
from tests.ui.test_coming_in import EVIL, corrected, key_for
from tests.ui.visitor import Forms, Visitor, text_of


def named(visitor: Visitor, name: str) -> Visitor:
    other = Visitor(visitor.service, app=visitor.app)
    other.send("/ui/sign-in", name=name)
    return other


def test_who_changed_an_answer_is_found_and_undone(visitor: Visitor) -> None:
    """The steps of somebody who knows only the address."""
    corrected(named(visitor, "Grace"), "Who?", "Grace", reason="she asked for it")
    found = visitor.get("/ui/audit?q=who")
    assert "Grace" in text_of(found)
    assert "she asked for it" in text_of(found)
    edit_id = next(iter(visitor.service.records.ledger.entries))
    assert f"/ui/edits/{edit_id}" in found.text
    undone = visitor.send(f"/ui/edits/{edit_id}", "/ui/edits/change", action="rollback", reason="it was right")
    assert "it is rolled back" in text_of(undone)


def test_the_timeline_tells_what_was_live_and_what_came_and_went(visitor: Visitor) -> None:
    first = corrected(visitor, "Who?", "Ada")
    corrected(visitor, "Where?", "Bern")
    visitor.send(f"/ui/edits/{first}", "/ui/edits/change", action="rollback")
    assert "2 edits were live" in text_of(visitor.get("/ui/timeline/at?revision=2"))
    assert "1 edit was live" in text_of(visitor.get("/ui/timeline/at?revision=3"))
    told = text_of(visitor.get("/ui/timeline/compare?a=1&b=3"))
    came, went = told.partition("Went")[0], told.partition("Went")[2].partition("Changed")[0]
    assert "Where?" in came
    assert "Who?" in went
    listed = text_of(visitor.get("/ui/timeline"))
    assert listed.index("Rolled back") < listed.index("Published an edit")
    rows = visitor.get("/ui/timeline").text.partition("Rolled back")
    assert "<del>Ada</del> <ins>base answer here</ins>" in rows[2].partition("Published an edit")[0]
    assert "<del>base answer here</del> <ins>Ada</ins>" in rows[2].partition("Published an edit")[2]
    assert visitor.get("/ui/timeline/at?revision=9").status_code == 422


def test_back_to_a_revision_is_previewed_and_carried_out_in_one_step(visitor: Visitor, service: FakeService) -> None:
    corrected(visitor, "Who?", "Ada")
    for n in range(2):
        corrected(visitor, f"Where is {n}?", "Bern")
    asked = visitor.get("/ui/timeline/back?revision=1")
    assert "2 edits that were published in the namespace default after revision 1 are rolled back" in text_of(asked)
    assert "Edits that were rolled back or disabled since then are not brought back" in text_of(asked)
    form = Forms(asked.text).found["/ui/timeline/back"]
    for _ in range(2):
        done = visitor.post("/ui/timeline/back", form, reason="all wrong")
        assert "revision 4" in text_of(done)
    assert service.revision == 4
    assert [edit.request.target for edit in service.records.ledger.live("default")] == ["Ada"]


def test_back_takes_one_namespace_and_names_it(visitor: Visitor, service: FakeService) -> None:
    corrected(visitor, "Who?", "Ada")
    staged = corrected(visitor, "Who?", "Grace", namespace="staging")
    corrected(visitor, "Where?", "Bern")
    visitor.send(f"/ui/edits/{staged}", "/ui/edits/change", action="rollback")
    corrected(visitor, "Where?", "Basel", namespace="staging")
    listed = visitor.get("/ui/timeline").text
    assert "revision=4&amp;namespace=staging" in listed, "what was rolled back was of this namespace"
    assert "revision=3&amp;namespace=default" in listed
    asked = visitor.get("/ui/timeline/back?revision=1")
    assert "Back to revision 1 in default?" in text_of(asked)
    assert "staging 1 edit" in text_of(asked), "the other namespace is told, and goes back on its own"
    visitor.send("/ui/timeline/back?revision=1&namespace=staging", "/ui/timeline/back", reason="not there")
    ledger = service.records.ledger
    assert [edit.request.target for edit in ledger.live("staging")] == []
    assert [edit.request.target for edit in ledger.live("default")] == ["Ada", "Bern"]
    nowhere = visitor.get("/ui/timeline/back?revision=1&namespace=stagign")
    assert nowhere.status_code == 404
    assert "Did you mean 'staging'?" in text_of(nowhere)


def test_changes_elsewhere_do_not_hold_up_the_way_back(visitor: Visitor, service: FakeService) -> None:
    corrected(visitor, "Who?", "Ada")
    form = Forms(visitor.get("/ui/timeline/back?revision=0").text).found["/ui/timeline/back"]
    corrected(named(visitor, "Grace"), "Where?", "Bern", namespace="staging")
    assert visitor.post("/ui/timeline/back", form).status_code == 200
    ledger = service.records.ledger
    assert (ledger.live_count("default"), ledger.live_count("staging")) == (0, 1)


def test_back_takes_nothing_that_was_not_shown(visitor: Visitor, service: FakeService) -> None:
    corrected(visitor, "Who?", "Ada")
    form = Forms(visitor.get("/ui/timeline/back?revision=0").text).found["/ui/timeline/back"]
    corrected(named(visitor, "Grace"), "Where?", "Bern")
    told = visitor.post("/ui/timeline/back", form)
    assert told.status_code == 409
    assert "Changed meanwhile" in text_of(told)
    assert service.revision == 2


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("kind=edits_rolled_back", {2}),
        ("actor=grace", {1}),
        ("q=typo", {2}),
        ("since=2023-11-14", {1, 2}),
        ("until=2023-11-13", set()),
        ("mark=forced", set()),
    ],
)
def test_the_audit_is_filtered(visitor: Visitor, query: str, found: set[int]) -> None:
    edit_id = corrected(named(visitor, "Grace"))
    visitor.send(f"/ui/edits/{edit_id}", "/ui/edits/change", action="rollback", reason="a typo")
    rows = visitor.get(f"/ui/audit?{query}").text.partition("<tbody")[2]
    assert {n for n in (1, 2) if f'rev-mark">{n}<' in rows} == found


def test_replacing_anothers_edit_is_marked(visitor: Visitor) -> None:
    corrected(named(visitor, "Grace"), "Who?", "Grace")
    corrected(visitor, "Who?", "Ada")
    assert "replaced 1" in text_of(visitor.get("/ui/audit?mark=superseded"))


def test_the_badge_says_whether_the_chain_is_whole_and_when_it_was_checked(
    visitor: Visitor, service: FakeService
) -> None:
    corrected(visitor)
    assert "was not checked yet" in text_of(visitor.get("/ui/audit"))
    checked = text_of(visitor.send("/ui/audit", "/ui/audit/check"))
    assert "The chain is whole: 1 entry, up to revision 1" in checked
    log: Any = service.records.log
    torn = bytearray(log.entry(1))
    torn[40] ^= 1
    store = MemoryStore(None)
    store.log = log
    store.rewrite([bytes(torn)])
    broken = text_of(visitor.send("/ui/audit", "/ui/audit/check"))
    assert "The chain is broken" in broken


def test_the_export_checks_out_without_a_server(visitor: Visitor) -> None:
    edit_id = corrected(visitor, "Who?", "Ada", reason=f"=1+1 {EVIL}")
    visitor.send(f"/ui/edits/{edit_id}", "/ui/edits/change", action="rollback")
    lines = [json.loads(line) for line in visitor.get("/ui/audit/export.jsonl").text.splitlines()]
    prev = GENESIS
    for line in lines:
        entry = base64.b64decode(line["entry"])
        assert hashlib.sha256(entry[:-32]).hexdigest() == line["hash"] == entry[-32:].hex()
        assert line["prev"] == prev
        event, prev = decode(entry, line["prev"], line["revision"])
        assert (event.kind, event.origin.reason) == (line["kind"], line["reason"])
    assert len(lines) == 2
    rows = list(csv.DictReader(io.StringIO(visitor.get("/ui/audit/export.csv").text)))
    assert [row["hash"] for row in rows] == [line["hash"] for line in lines]
    assert [row["prev"] for row in rows] == [line["prev"] for line in lines]
    assert rows[0]["question"] == "Who?"
    assert rows[0]["reason"].startswith("'=")  # a spreadsheet must not take it for a formula


def test_the_switch_is_confirmed_told_on_every_page_and_turned_back(visitor: Visitor, service: FakeService) -> None:
    corrected(visitor)
    done = visitor.send("/ui/namespaces/switch?on=0", "/ui/namespaces/switch", reason="incident 12")
    assert "No edit answers anywhere" in text_of(done)
    assert "incident 12" in text_of(done)
    for path in ("/ui/ask", "/ui/edits", "/ui/audit", "/ui/health"):
        assert "Edits are switched off" in visitor.get(path).text, path
    visitor.send("/ui/namespaces/switch?on=1", "/ui/namespaces/switch")
    assert "Edits are switched off" not in visitor.get("/ui/ask").text
    assert service.records.ledger.switched_on("default")


def test_the_switch_of_a_namespace_that_is_not_there_is_refused(visitor: Visitor) -> None:
    path = "/ui/namespaces/switch?on=0&namespace=defualt"
    refused = visitor.send(path, "/ui/namespaces/switch")
    assert refused.status_code == 404
    assert "Did you mean" in text_of(refused)


def test_a_log_that_is_silent_is_told_on_every_page(
    visitor: Visitor, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = service.status()
    monkeypatch.setattr(service, "status", lambda: replace(status, log_silence_s=60.0))
    assert "The log is away" in visitor.get("/ui/ask").text


def test_protected_questions_are_kept(visitor: Visitor, service: FakeService) -> None:
    path = "/ui/namespaces/protected?namespace=default"
    saved = visitor.send(path, "/ui/namespaces/protected/set", prompts="Who are you?\n\nWhere?\n", reason="house rules")
    assert "2 questions are protected" in text_of(saved)
    assert service.records.ledger.probes["default"] == ("Who are you?", "Where?")


def test_the_first_key_is_an_admins_and_closes_the_door(visitor: Visitor, service: FakeService) -> None:
    evil = EVIL.replace("(", "").replace(")", "")  # names of keys have no parentheses
    refused = visitor.send("/ui/keys", name="Ada", role="reader")
    assert refused.status_code == 422
    assert not service.records.ledger.keys
    form = Forms(visitor.get("/ui/keys").text).found["/ui/keys"]
    made = visitor.post("/ui/keys", form, name=f"Ada {evil}", role="admin")
    key = made.text.partition('<code class="key">')[2].partition("</code>")[0]
    assert key.startswith("errata_")
    assert "<script>alert" not in made.text
    assert visitor.get("/ui/keys").url.path == "/ui/sign-in"
    assert visitor.sign_in(key).url.path == "/ui/ask"
    assert key not in visitor.get("/ui/keys").text
    again = visitor.post("/ui/keys", form, name=f"Ada {evil}", role="admin")
    assert again.status_code in (403, 422)
    assert len(service.records.ledger.keys) == 1


def test_a_key_is_revoked(visitor: Visitor, service: FakeService) -> None:
    visitor.sign_in(key_for(service, Role.ADMIN, "boss"))
    other, _ = asyncio.run(Keyring(service.records, lambda: NOW_S).create(Role.READER, "left", Origin()))
    form = [
        (name, value) for name, value in Forms(visitor.get("/ui/keys").text).found["/ui/keys/revoke"] if name != "id"
    ]
    visitor.post("/ui/keys/revoke", form, id=other.id)
    assert service.records.ledger.keys[other.id].revoked_at_s is not None


@pytest.mark.parametrize("path", ["/ui/keys", "/ui/namespaces/switch?on=0"])
def test_only_admins_make_keys_and_turn_switches(visitor: Visitor, service: FakeService, path: str) -> None:
    visitor.sign_in(key_for(service, Role.EDITOR))
    assert visitor.get(path).status_code == 403


def test_health_tells_how_it_stands(visitor: Visitor) -> None:
    visitor.get("/ui/ask?q=Who%3F&how=text")
    told = text_of(visitor.get("/ui/health"))
    assert "The server is ready" in told
    assert "memory://" in told
    assert "3 changes" in told
    assert "Whole answer 2" in told
