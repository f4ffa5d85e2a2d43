"""Two people over the pages: one proposes, the other looks at the same preview and decides."""

import math
from dataclasses import replace

import pytest

from app.domain.approval import Proposal
from app.domain.errors import StoreUnavailable
from app.domain.keys import Role
from app.service.views import kept_report
from tests.api.fake_service import FakeService
from tests.ui.test_coming_in import EVIL, corrected, key_for
from tests.ui.visitor import Forms, Visitor, text_of


@pytest.fixture
def pat(visitor: Visitor, service: FakeService) -> Visitor:
    return person(visitor, Role.PROPOSER, "pat")


@pytest.fixture
def ed(visitor: Visitor, service: FakeService) -> Visitor:
    return person(visitor, Role.EDITOR, "ed")


def person(visitor: Visitor, role: Role, name: str) -> Visitor:
    other = Visitor(visitor.service, app=visitor.app)
    other.sign_in(key_for(visitor.service, role, name))
    return other


def proposed(who: Visitor, question: str = "Who?", target: str = "Ada", **more: str) -> Proposal:
    """Through the pages: form, preview, proposal."""
    preview = who.send("/ui/correct", q=question, target=target, how="text", **more)
    told = who.send(preview.url.path)
    assert "it waits for a second person" in text_of(told), text_of(told)
    return list(who.service.records.ledger.approval.proposals.values())[-1]


def test_who_proposes_is_told_that_it_waits_and_nothing_is_live(pat: Visitor, service: FakeService) -> None:
    assert "This is wrong" in pat.get("/ui/ask?q=Who%3F&how=text").text
    preview = pat.send("/ui/correct", q="Who?", target="Ada", how="text", reason="ticket 1")
    assert "It waits for a second person" in text_of(preview)
    assert ">Propose</button>" in preview.text
    told = text_of(pat.send(preview.url.path))
    assert "nobody approves their own proposal" in told
    assert "ticket 1" in told
    assert not service.records.ledger.entries


def test_a_proposal_carries_the_border_that_was_dragged(pat: Visitor, ed: Visitor, service: FakeService) -> None:
    preview = pat.send("/ui/correct", q="Who?", target="Ada", how="text")
    pat.send(preview.url.path, border="-0.7")
    (proposal,) = service.records.ledger.approval.proposals.values()
    assert proposal.edits[0].request.widen == pytest.approx(math.exp(0.7))
    page = ed.get(f"/ui/proposals/{proposal.id}")
    assert "moved by hand, to reach more questions: 2 times the odds" in text_of(page)
    assert 'type="range"' not in page.text, "who decides does not change what is proposed"
    revised = pat.send(f"/ui/proposals/{proposal.id}/revise", "/ui/correct", target="Ada Quill")
    pat.send(revised.url.path)
    assert service.records.ledger.approval.proposal(proposal.id).edits[0].request.widen == pytest.approx(math.exp(0.7))
    ed.send(f"/ui/proposals/{proposal.id}", f"/ui/proposals/{proposal.id}/approve")
    (entry,) = service.records.ledger.entries.values()
    assert (entry.request.target, entry.request.widen) == ("Ada Quill", pytest.approx(math.exp(0.7)))
    assert "moved by hand" in text_of(ed.get(f"/ui/edits/{entry.edit.id}"))


def test_a_promoted_proposal_is_shown_as_wide_as_it_is_and_revised_as_wide_as_a_new_one_may_be(
    pat: Visitor, ed: Visitor, service: FakeService
) -> None:
    proposal = proposed(pat)
    (item,) = proposal.edits
    proposal.edits = (replace(item, request=replace(item.request, promoted_from="ed_0", widen=40.0)),)
    assert "40 times the odds" in text_of(ed.get(f"/ui/proposals/{proposal.id}"))
    revised = pat.send(f"/ui/proposals/{proposal.id}/revise", "/ui/correct", target="Ada Quill")
    pat.send(revised.url.path)
    assert proposal.edits[0].request.widen == 10


def test_the_queue_counts_those_that_wait_on_every_page(pat: Visitor, ed: Visitor) -> None:
    assert 'class="badge"' not in ed.get("/ui/edits").text
    proposed(pat)
    assert '<span class="badge">1' in ed.get("/ui/edits").text
    listed = ed.get("/ui/proposals")
    assert "Who?" in text_of(listed)
    assert "pat" in text_of(listed)


def test_a_second_person_tries_a_proposal_on_what_is_live_now(pat: Visitor, ed: Visitor, service: FakeService) -> None:
    page = f"/ui/proposals/{proposed(pat).id}"
    shown = ed.get(page)
    assert "Tried now" not in text_of(shown)
    assert f'action="{page}/try"' not in pat.get(page).text, "it is for those who decide"
    before = service.revision
    form = Forms(shown.text).found[f"{page}/try"]
    for _ in range(2):
        tried = ed.post(f"{page}/try", form)
        assert tried.url.path == f"{page}/tried"
        assert "Tried now, it holds." in text_of(tried)
        assert "none were looked at" in text_of(tried), "recent questions are not kept here"
    assert service.revision == before
    done = ed.post(f"{page}/approve", Forms(tried.text).found[f"{page}/approve"])
    assert "It is published" in text_of(done)


def test_a_trial_that_fails_says_why_and_one_of_an_earlier_content_is_not_shown(
    pat: Visitor, ed: Visitor, service: FakeService
) -> None:
    proposal = proposed(pat)
    page = f"/ui/proposals/{proposal.id}"
    assert ed.get(f"{page}/tried").url.path == page
    service.fails = StoreUnavailable("The log is away: try again later.")
    assert "The log is away" in text_of(ed.send(page, f"{page}/try"))
    assert "Tried now" in text_of(ed.send(page, f"{page}/try"))
    revised = pat.send(f"{page}/revise", "/ui/correct", target="Ada Quill")
    pat.send(revised.url.path)
    assert "Tried now" not in text_of(ed.get(f"{page}/tried"))
    assert pat.request("POST", f"{page}/try", content=b"").status_code == 403


def test_a_second_person_sees_the_preview_and_publishes(pat: Visitor, ed: Visitor, service: FakeService) -> None:
    proposal = proposed(pat, more="Whom?", keep="Where?", until="2030-12-31")
    page = ed.get(f"/ui/proposals/{proposal.id}")
    told = text_of(page)
    for text in (
        "base answer here",
        "Ada",
        "Who? please",
        "Who? in 1990",
        "Where?",
        "It ends on",
        "Approve and publish",
    ):
        assert text in told, text
    assert "<svg" in page.text
    path = f"/ui/proposals/{proposal.id}/approve"
    done = ed.send(f"/ui/proposals/{proposal.id}", path, reason="checked")
    assert "It is published" in text_of(done)
    (entry,) = service.records.ledger.entries.values()
    origin = entry.history[0].origin
    assert (origin.actor, origin.reason, origin.proposer and origin.proposer.actor) == ("ed", "checked", "pat")
    assert entry.request.expires_in_s is not None
    shown = text_of(ed.get(f"/ui/edits/{entry.edit.id}"))
    assert "proposed by pat, and approved by ed" in shown
    assert "ed, for pat" in text_of(ed.get("/ui/edits"))
    audit = text_of(ed.get("/ui/audit"))
    assert "Proposed an edit Who?" in audit
    assert "proposed by pat" in audit
    assert "Nothing waits" in text_of(ed.get("/ui/proposals"))


def test_recent_questions_are_told_by_number_and_not_kept(pat: Visitor, ed: Visitor, service: FakeService) -> None:
    """Users' questions must stay deletable, and the log is not."""
    found = proposed(pat)
    (edit,) = found.edits
    told = {"asked": 40, "changed": 3, "shown": [{"prompt": "secret", "before": "a", "now": "b", "signals": {}}]}
    kept = kept_report({**edit.report, "recent": told})
    assert "secret" not in str(kept)
    found.edits = (replace(edit, report=kept),)
    page = ed.get(f"/ui/proposals/{found.id}")
    assert "3 of 40 recent questions would have changed" in text_of(page)


def test_forms_that_are_sent_twice_decide_once(pat: Visitor, ed: Visitor, service: FakeService) -> None:
    proposal = proposed(pat)
    page = f"/ui/proposals/{proposal.id}"
    forms = Forms(ed.get(page).text).found
    for _ in range(2):
        assert "sent back" in text_of(ed.post(f"{page}/return", forms[f"{page}/return"], reason="no"))
    pat.send(f"{page}/revise", "/ui/correct")
    assert len(proposal.history) == 2


def test_nobody_is_offered_to_decide_on_their_own(visitor: Visitor, ed: Visitor, service: FakeService) -> None:
    root = person(visitor, Role.ADMIN, "root")
    asked = root.send("/ui/namespaces/policy?namespace=default&second=1", "/ui/namespaces/policy", reason="four eyes")
    assert "two persons" in text_of(asked)
    proposal = proposed(ed)
    page = ed.get(f"/ui/proposals/{proposal.id}")
    assert "Approve" not in page.text
    withdraw = Forms(page.text).found[f"/ui/proposals/{proposal.id}/withdraw"]
    tried = ed.post(f"/ui/proposals/{proposal.id}/approve", withdraw)
    assert "second person" in text_of(tried)
    assert not service.records.ledger.entries
    assert "Approve and publish" in root.get(f"/ui/proposals/{proposal.id}").text
    root.send("/ui/namespaces/policy?namespace=default&second=0", "/ui/namespaces/policy")
    assert corrected(ed, "Where?")


def test_it_is_sent_back_with_a_word_revised_and_published(pat: Visitor, ed: Visitor, service: FakeService) -> None:
    proposal = proposed(pat, more="Whom?", reason="ticket 1")
    page = f"/ui/proposals/{proposal.id}"
    refused = ed.send(page, f"{page}/return", reason="")
    assert refused.status_code == 422
    assert "say to its proposer why" in text_of(refused)
    assert "sent back" in text_of(ed.send(page, f"{page}/return", reason="the whole name"))
    assert "Sent back to you" in text_of(pat.get("/ui/proposals"))
    assert "Sent back to you" not in text_of(ed.get("/ui/proposals"))
    assert "the whole name" in text_of(pat.get(page))
    form = pat.get(f"{page}/revise")
    for text in ("Who?", "Whom?", "ticket 1", "Ada"):
        assert text in form.text
    preview = pat.send(f"{page}/revise", "/ui/correct", target="Ada Quill")
    assert "waits for a second person" in text_of(pat.send(preview.url.path))
    (now,) = service.records.ledger.approval.proposals.values()
    (edit,) = now.edits
    assert (edit.request.target, now.state.value) == ("Ada Quill", "pending")
    assert set(edit.request.paraphrases) == {"Whom?", "Who? please"}
    assert edit.request.counter_examples == ("Who? in 1990",)
    assert "It is published" in text_of(ed.send(page, f"{page}/approve"))


def test_one_withdraws_ones_own_and_nobody_elses(visitor: Visitor, pat: Visitor, service: FakeService) -> None:
    proposal = proposed(pat)
    page = f"/ui/proposals/{proposal.id}"
    other = person(visitor, Role.PROPOSER, "quin")
    form = Forms(pat.get(page).text).found[f"{page}/withdraw"]
    token = dict(Forms(other.get("/ui/proposals").text).found["/ui/sign-out"])
    assert other.post(f"{page}/withdraw", form, csrf=token["csrf"]).status_code == 403
    assert other.get(f"{page}/revise").status_code == 403
    assert "Withdraw it" not in other.get(page).text
    assert "it is withdrawn" in text_of(pat.send(page, f"{page}/withdraw"))
    assert "Revise it" not in pat.get(page).text


def test_a_proposer_is_kept_from_what_edits_by_hand(pat: Visitor, ed: Visitor, service: FakeService) -> None:
    edit_id = corrected(ed)
    page = pat.get(f"/ui/edits/{edit_id}")
    assert "Roll back" not in page.text
    form = Forms(page.text).found["/ui/sign-out"]
    refused = pat.post("/ui/edits/change", form, id=edit_id, action="rollback")
    assert refused.status_code == 403
    assert "It may propose edits" in text_of(refused)
    proposal = proposed(pat, "Where?")
    assert pat.post(f"/ui/proposals/{proposal.id}/approve", form).status_code == 403


def test_what_was_revised_meanwhile_is_not_published_unread(pat: Visitor, ed: Visitor, service: FakeService) -> None:
    proposal = proposed(pat)
    page = f"/ui/proposals/{proposal.id}"
    form = Forms(ed.get(page).text).found[f"{page}/approve"]
    preview = pat.send(f"{page}/revise", "/ui/correct", target="Mallory")
    pat.send(preview.url.path)
    told = ed.post(f"{page}/approve", form)
    assert told.status_code == 412
    assert "Mallory" in text_of(told)
    assert not service.records.ledger.entries


def test_what_goes_wrong_is_told_and_it_still_waits(pat: Visitor, ed: Visitor, service: FakeService) -> None:
    page = f"/ui/proposals/{proposed(pat).id}"
    service.fails = StoreUnavailable("The log cannot be written now: try again.")
    refused = ed.send(page, f"{page}/approve")
    assert refused.status_code == 503
    assert "The log cannot be written" in text_of(refused)
    assert "It is published" in text_of(ed.send(page, f"{page}/approve"))


def test_the_queue_is_filtered(pat: Visitor, ed: Visitor) -> None:
    page = f"/ui/proposals/{proposed(pat, 'Who?').id}"
    proposed(pat, "Where?", namespace="staging")
    ed.send(page, f"{page}/return", reason="no")
    assert "Who?" not in ed.get("/ui/proposals").text.partition("<tbody")[2]
    assert "Where?" not in ed.get("/ui/proposals?state=returned").text.partition("<tbody")[2]
    assert "Where?" in ed.get("/ui/proposals?state=&namespace=staging").text
    assert "No proposal is like that" in ed.get("/ui/proposals?state=&actor=ed").text
    assert ed.get("/ui/proposals?state=odd").status_code == 422


@pytest.mark.parametrize("field", ["q", "target", "reason", "subject", "more", "keep"])
def test_what_a_proposer_writes_is_shown_as_text(visitor: Visitor, pat: Visitor, ed: Visitor, field: str) -> None:
    fields = {"question": "Who?", "target": "Ada"} | {"question" if field == "q" else field: f"Who? {EVIL}"}
    page = f"/ui/proposals/{proposed(pat, **fields).id}"
    back = ed.send(page, f"{page}/return", reason=EVIL)
    shown = [back, ed.get("/ui/proposals?state="), pat.get("/ui/proposals"), pat.get(f"{page}/revise")]
    shown += [ed.get("/ui/audit"), ed.get("/ui/timeline"), pat.get(page)]
    for each in shown:
        assert each.status_code == 200, each.url
        assert "<script>alert" not in each.text, each.url
        assert "<img src=x" not in each.text, each.url
    assert any("&lt;script&gt;alert" in each.text for each in shown)


@pytest.mark.parametrize("path", ["approve", "return", "withdraw"])
def test_forged_forms_decide_nothing(pat: Visitor, ed: Visitor, service: FakeService, path: str) -> None:
    proposal = proposed(pat)
    page = f"/ui/proposals/{proposal.id}"
    who = pat if path == "withdraw" else ed
    form = Forms(who.get(page).text).found[f"{page}/{path}"]
    assert who.post(f"{page}/{path}", form, csrf="0" * 64, reason="x").status_code == 403
    assert proposal.state.value == "pending"


def test_only_admins_ask_for_a_second_person(ed: Visitor) -> None:
    assert ed.get("/ui/namespaces/policy?namespace=default&second=1").status_code == 403
    assert "Ask for two" not in ed.get("/ui/namespaces").text


def test_without_keys_a_second_person_cannot_be_asked_for(visitor: Visitor) -> None:
    refused = visitor.send("/ui/namespaces/policy?namespace=default&second=1", "/ui/namespaces/policy")
    assert refused.status_code == 409
    assert "second API key" in text_of(refused)
