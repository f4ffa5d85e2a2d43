"""Namespaces set up, keys for some of them, and edits promoted from one to another, on the pages."""

from html import unescape

import pytest

from app.domain.keys import Role
from app.ui import notifications, promotion
from tests.api.fake_answers import DOUBTFUL
from tests.api.fake_service import FakeService
from tests.ui.test_coming_in import EVIL, corrected, key_for
from tests.ui.test_proposing import proposed
from tests.ui.visitor import Forms, Visitor, text_of


def set_up(visitor: Visitor, *names: str) -> None:
    for name in names:
        visitor.send("/ui/namespaces", "/ui/namespaces/create", namespace=name, description=f"{name} it is")


def staging_key(visitor: Visitor, service: FakeService, role: str = "editor") -> Visitor:
    """Somebody else, who signs in with a key for `staging`; the visitor is an admin."""
    visitor.sign_in(key_for(service, Role.ADMIN, "boss"))
    made = visitor.send("/ui/keys", "/ui/keys", name="stage", role=role, namespaces="staging")
    other = Visitor(service, app=visitor.app)
    other.sign_in(made.text.partition('<code class="key">')[2].partition("</code>")[0])
    return other


def test_a_namespace_is_set_up_and_described(visitor: Visitor, service: FakeService) -> None:
    form = Forms(visitor.get("/ui/namespaces").text).found["/ui/namespaces/create"]
    for _ in range(2):
        told = visitor.post("/ui/namespaces/create", form, namespace="staging", description=f"Tried {EVIL}")
    assert "The namespace staging is set up." in text_of(told)
    assert "<script>alert" not in told.text
    assert service.records.ledger.described == {"staging": f"Tried {EVIL}"}
    assert service.revision == 1
    refused = visitor.post("/ui/namespaces/create", form, namespace="no name", description="kept")
    assert refused.status_code == 422
    assert 'value="kept"' in refused.text


def test_a_key_for_staging_sees_and_touches_nothing_else(visitor: Visitor, service: FakeService) -> None:
    secret = corrected(visitor, "Secret?", "classified")
    set_up(visitor, "staging", "production")
    preview = visitor.send("/ui/correct", q="Secret too?", target="classified", how="text")
    sheet = visitor.send("/ui/many", pasted="prompt,target\nSecret?,classified\n", how="text")
    other = staging_key(visitor, service, "admin")
    assert "staging" in text_of(visitor.get("/ui/keys"))
    before = service.revision
    refused = [
        "/ui/timeline",
        "/ui/timeline/at?revision=1",
        "/ui/timeline/back?revision=0",
        "/ui/audit",
        "/ui/audit/export.csv",
        "/ui/keys",
        "/ui/health",
        f"/ui/edits/{secret}",
        "/ui/edits?namespace=default",
        "/ui/ask?q=Secret%3F&how=text&namespace=default",
        "/ui/correct?q=Secret%3F&namespace=default",
        preview.url.path,
        f"{preview.url.path}/change",
        sheet.url.path,
        f"{sheet.url.path}/rest",
        "/ui/namespaces/switch?on=0",
        "/ui/namespaces/switch?on=0&namespace=production",
        "/ui/namespaces/protected?namespace=production",
        "/ui/promote?from=staging&to=production",
    ]
    for path in refused:
        answer = other.get(path)
        assert answer.status_code == 403, path
        assert "classified" not in answer.text, path
    for path in ("/ui/edits", "/ui/namespaces", "/ui/ask?q=Secret%3F&how=text", "/ui/promote"):
        answer = other.get(path)
        assert answer.status_code == 200, path
        assert "classified" not in answer.text, path
        assert "production" not in answer.text, path
    form = [pair for pair in Forms(other.get("/ui/namespaces").text).found["/ui/sign-out"] if pair[0] == "csrf"]
    steps = [
        ("/ui/edits/change", {"id": secret, "action": "rollback", "confirmed": "1", "read": "99"}),
        (f"/ui/edits/{secret}/retune", {"reach": "2", "read": "99"}),
        ("/ui/correct", {"q": "Who?", "target": "x", "how": "text", "namespace": "production"}),
        ("/ui/many", {"pasted": "prompt,target\na,b\n", "namespace": "production"}),
        (preview.url.path, {"read": "99"}),
        (f"{sheet.url.path}/preview", {}),
        ("/ui/namespaces/create", {"namespace": "production", "description": "mine"}),
        ("/ui/namespaces/switch", {"on": "0"}),
        ("/ui/namespaces/protected/set", {"namespace": "production", "prompts": "a"}),
        ("/ui/namespaces/protected/run", {"namespace": "production", "prompts": "a"}),
        ("/ui/promote", {"from": "staging", "to": "production", "id": secret}),
        ("/ui/keys", {"name": "more", "role": "admin"}),
        ("/ui/timeline/back", {"revision": "0", "read": "99"}),
    ]
    for path, fields in steps:
        answer = other.post(path, form, follow=False, **fields)
        assert answer.status_code == 403, path
        assert "This key is for the namespace staging" in text_of(answer), path
    assert service.revision == before


def test_a_key_for_staging_works_there(visitor: Visitor, service: FakeService) -> None:
    set_up(visitor, "staging")
    other = staging_key(visitor, service, "admin")
    edit_id = corrected(other, "Who?", "Ada", namespace="staging")
    assert service.records.ledger.entry(edit_id).request.namespace == "staging"
    assert "Ada" in text_of(other.get("/ui/ask?q=Who%3F&how=text"))
    other.send("/ui/namespaces/switch?on=0&namespace=staging", "/ui/namespaces/switch")
    assert not service.records.ledger.switched_on("staging")
    assert service.records.ledger.switched_on("default")


def test_a_proposer_for_staging_reaches_what_they_proposed(visitor: Visitor, service: FakeService) -> None:
    set_up(visitor, "staging")
    other = staging_key(visitor, service, "proposer")
    elsewhere = Visitor(service, app=visitor.app)
    elsewhere.sign_in(key_for(service, Role.PROPOSER, "quin"))
    proposed(elsewhere, "Secret?", "classified")
    mine = proposed(other, "Who?", "Ada", namespace="staging")
    listed = other.get("/ui/proposals")
    assert (listed.status_code, "Who?" in text_of(listed), "classified" in listed.text) == (200, True, False)
    assert '<span class="badge">1' in listed.text
    assert '<span class="badge">2' in visitor.get("/ui/edits").text
    assert other.get("/ui/proposals?namespace=default").status_code == 403
    theirs = next(each for each in service.records.ledger.approval.pending() if each.id != mine.id)
    form = Forms(other.get(f"/ui/proposals/{mine.id}").text).found[f"/ui/proposals/{mine.id}/withdraw"]
    for path in (f"/ui/proposals/{theirs.id}", f"/ui/proposals/{theirs.id}/revise"):
        assert other.get(path).status_code == 403
    assert other.post(f"/ui/proposals/{theirs.id}/withdraw", form).status_code == 403
    peeping = other.send("/ui/correct", q="Who?", target="Eve", how="text", namespace="staging", proposal=theirs.id)
    assert (peeping.status_code, "classified" in peeping.text) == (403, False)
    assert "withdrawn" in text_of(other.post(f"/ui/proposals/{mine.id}/withdraw", form))


def test_a_key_for_staging_hears_of_no_change_elsewhere(
    visitor: Visitor, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "SILENCE_S", 0.01)
    set_up(visitor, "staging")
    other = staging_key(visitor, service)
    corrected(other, "Who?", "Ada", namespace="staging")
    at = service.revision
    corrected(visitor, "Secret?", "classified")
    assert f'{{"revision": {at}, "text": "stage published an edit"}}' in other.heard("event: change")
    assert "event: change" not in other.heard("all is quiet", since=at)
    assert '"text": "boss published an edit"' in visitor.heard("event: change", since=at)
    visitor.send("/ui/namespaces/switch?on=0", "/ui/namespaces/switch")
    assert '"text": "boss used the switch"' in other.heard("event: change", since=at), "it is about staging too"


def test_edits_are_promoted_and_each_is_tried_there(visitor: Visitor, service: FakeService) -> None:
    set_up(visitor, "staging", "production")
    ids = [corrected(visitor, f"{q}?", f"{q} it is", namespace="staging") for q in ("Who", "Where", "Same")]
    corrected(visitor, "Same?", "Same it is", namespace="production")
    object.__setattr__(service.records.ledger.entry(ids[1]).edit.request, "target", DOUBTFUL)
    chosen = visitor.get("/ui/promote?from=staging&to=production")
    form = Forms(chosen.text).found["/ui/promote"]
    assert [value for name, value in form if name == "id"] == ids[:2], "what is there already is not ticked"
    for _ in range(2):
        checked = visitor.post("/ui/promote", form, id=ids[:2], reason="release 12")
    assert "Checked: 2 corrections from staging" in text_of(checked)
    tried = visitor.send(checked.url.path, f"{checked.url.path}/preview")
    assert "Publish what holds: 1" in text_of(tried)
    assert service.records.ledger.live_count("production") == 1
    publish = Forms(tried.text).found[f"{tried.url.path}/publish"]
    for _ in range(2):
        done = visitor.post(f"{tried.url.path}/publish", publish)
    assert "1 is live" in text_of(done)
    made = service.records.ledger.live("production")[-1]
    assert (made.request.promoted_from, made.request.reason) == (ids[0], "release 12")
    assert service.records.ledger.live_count("production") == 2
    assert "promoted from staging" in text_of(visitor.get("/ui/timeline"))
    assert f"/ui/edits/{ids[0]}" in visitor.get(f"/ui/edits/{made.id}").text


def test_a_promotion_of_nothing_says_so(visitor: Visitor, service: FakeService) -> None:
    set_up(visitor, "staging", "production")
    assert "there is nothing to promote" in text_of(visitor.get("/ui/promote?from=staging&to=production"))
    edit_id = corrected(visitor, "Who?", "Ada", namespace="staging")
    form = Forms(visitor.get("/ui/promote?from=staging&to=production").text).found["/ui/promote"]
    none = visitor.post("/ui/promote", form, id=[])
    assert (none.status_code, "tick at least one" in text_of(none)) == (422, True)
    visitor.send(f"/ui/edits/{edit_id}", "/ui/edits/change", action="rollback")
    gone = visitor.post("/ui/promote", form)
    assert (gone.status_code, "only live edits are promoted" in text_of(gone)) == (409, True)
    assert visitor.get("/ui/promote?from=stagign&to=production").status_code == 404


def test_many_edits_are_promoted_page_by_page(
    visitor: Visitor, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "PER_PAGE", 2)
    set_up(visitor, "staging", "production")
    ids = [corrected(visitor, f"{q}?", q, namespace="staging") for q in ("Who", "Where", "When", "Why", "How")]
    visitor.send(f"/ui/edits/{ids[1]}", "/ui/edits/change", action="rollback", confirmed="1", read="99")
    del ids[1]
    page = visitor.get("/ui/promote?from=staging&to=production")
    assert "Edits 1 to 2 of 4" in text_of(page)
    assert [value for name, value in Forms(page.text).found["/ui/promote"] if name == "id"] == ids[:2]
    second = unescape(page.text.partition('class="button next" href="')[2].partition('"')[0])
    page = visitor.get(second)
    assert "Edits 3 to 4 of 4" in text_of(page)
    assert 'class="button next"' not in page.text
    none = visitor.send(second, "/ui/promote", id=[])
    assert (none.status_code, "Edits 3 to 4 of 4" in text_of(none)) == (422, True), "it is the same page still"
    checked = visitor.send(second, "/ui/promote")
    assert "Checked: 2 corrections from staging" in text_of(checked)
    assert "There are no newer edits" in text_of(visitor.get("/ui/promote?from=staging&to=production&after=99"))


@pytest.mark.parametrize("path", ["/ui/promote", "/ui/promote?from=staging&to=production"])
def test_readers_do_not_promote(visitor: Visitor, service: FakeService, path: str) -> None:
    visitor.sign_in(key_for(service, Role.READER))
    assert visitor.get(path).status_code == 403


def test_what_is_promoted_is_shown_as_text(visitor: Visitor, service: FakeService) -> None:
    set_up(visitor, "staging", "production")
    corrected(visitor, f"Who? {EVIL}", f"Ada {EVIL}", namespace="staging")
    chosen = visitor.get("/ui/promote?from=staging&to=production")
    checked = visitor.send("/ui/promote?from=staging&to=production", "/ui/promote", reason=EVIL)
    tried = visitor.send(checked.url.path, f"{checked.url.path}/preview")
    done = visitor.send(tried.url.path, f"{tried.url.path}/publish")
    for each in (chosen, checked, tried, done, visitor.get("/ui/timeline")):
        assert each.status_code == 200
        assert "<script>alert" not in each.text, each.url
        assert "<img src=x" not in each.text, each.url
    assert "&lt;script&gt;alert" in done.text
