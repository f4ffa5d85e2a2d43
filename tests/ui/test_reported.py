"""The queue of reported answers: like questions together, each one click from its correction."""

from urllib.parse import parse_qs, urlsplit

import pytest

from app.domain.keys import Role
from tests.api.fake_service import FakeService
from tests.ui.test_coming_in import EVIL, key_for
from tests.ui.visitor import Forms, Visitor, text_of

WHO = "Who leads Lumen?"


def reported(visitor: Visitor, prompt: str = WHO, note: str = "It is Bo", chat: bool = False, **headers: str) -> None:
    """An application sends it like this."""
    ask = {"messages": [{"role": "user", "content": prompt}]} if chat else {"inputs": prompt}
    path = "/v1/chat/completions" if chat else "/generate"
    answer = visitor.request("POST", path, json=ask, headers=headers)
    body = {"request_id": answer.headers["x-request-id"], "verdict": "wrong", "note": note}
    taken = visitor.request("POST", "/feedback", json=body, headers=headers)
    assert taken.status_code == 201, taken.text


def test_reported_answers_are_counted_and_shown_with_what_was_said(visitor: Visitor) -> None:
    assert "No answer was reported" in text_of(visitor.get("/ui/reported"))
    for prompt in (WHO, "Who leads Lumen now?", "Where is Tessel?"):
        reported(visitor, prompt)
    assert '<span class="badge">3' in visitor.get("/ui/ask").text
    told = text_of(visitor.get("/ui/reported"))
    for text in ("2 alike", "Where is Tessel?", "base answer here", "It is Bo", "at revision 0"):
        assert text in told, text


@pytest.mark.parametrize("chat", [False, True])
def test_each_is_one_click_from_its_correction(visitor: Visitor, service: FakeService, chat: bool) -> None:
    reported(visitor, chat=chat)
    page = visitor.get("/ui/reported").text
    link = page.partition('href="/ui/correct?')[2].partition('"')[0].replace("&amp;", "&")
    assert parse_qs(link) == {"q": [WHO], "how": ["chat" if chat else "text"], "namespace": ["default"]}
    preview = visitor.send(f"/ui/correct?{link}", "/ui/correct", target="Bo")
    visitor.send(preview.url.path)
    (entry,) = service.records.ledger.entries.values()
    assert entry.request.prompt == (f"<user> {WHO}\n<assistant>" if chat else WHO)


def test_what_is_seen_to_leaves_the_queue(visitor: Visitor, service: FakeService) -> None:
    for prompt in (WHO, "Who leads Lumen now?", "Where is Tessel?"):
        reported(visitor, prompt)
    ids = [each.id for each in service.feedback.groups()[0]]
    done = visitor.send("/ui/reported", "/ui/reported/delete", id=ids)
    assert "Deleted: 2 reported answers" in text_of(done)
    assert "Tessel" in text_of(done)
    assert "Lumen" not in text_of(done)
    form = Forms(done.text).found["/ui/reported/delete"]
    for _ in range(2):  # whoever was first, both are led back to the queue
        assert visitor.post("/ui/reported/delete", form).status_code == 200
    assert service.feedback.count() == 0


def test_admins_delete_all(visitor: Visitor, service: FakeService) -> None:
    reported(visitor)
    assert "Deleted: 1 reported answer." in text_of(visitor.send("/ui/reported", "/ui/reported/delete-all"))


def test_where_it_is_off_the_page_names_the_setting_and_nothing_leads_there(
    visitor: Visitor, service: FakeService
) -> None:
    service.feedback.most = 0
    assert "ERRATA_FEEDBACK" in text_of(visitor.get("/ui/reported"))
    assert "/ui/reported" not in visitor.get("/ui/ask").text


def test_a_question_that_is_too_long_for_the_form_says_so(visitor: Visitor) -> None:
    reported(visitor, "word " * 1_000)
    page = visitor.get("/ui/reported")
    assert "too long for the form" in text_of(page)
    assert 'href="/ui/correct?' not in page.text


def test_what_applications_readers_and_models_wrote_is_shown_as_text(visitor: Visitor, service: FakeService) -> None:
    service.canned[f"Who? {EVIL}"] = f"said {EVIL}"
    reported(visitor, f"Who? {EVIL}", note=EVIL, **{"X-Errata-Actor": EVIL})
    page = visitor.get("/ui/reported")
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert "<img src=x" not in page.text
    assert page.text.count("&lt;script&gt;alert") >= 4
    link = page.text.partition('href="/ui/correct?')[2].partition('"')[0].replace("&amp;", "&")
    form = visitor.get(f"/ui/correct?{link}")
    assert urlsplit(str(form.url)).path == "/ui/correct"
    assert "<script>alert" not in form.text


def test_readers_see_and_only_whoever_edits_deletes(visitor: Visitor, service: FakeService) -> None:
    reported(visitor)
    visitor.sign_in(key_for(service, Role.READER))
    page = visitor.get("/ui/reported")
    assert "It is Bo" in text_of(page)
    assert "Seen to" not in page.text
    assert "/ui/correct?" not in page.text
    form = Forms(page.text).found["/ui/sign-out"]
    (found,) = service.feedback.groups()[0]
    assert visitor.post("/ui/reported/delete", form, id=found.id).status_code == 403
    assert visitor.post("/ui/reported/delete-all", form).status_code == 403
    assert service.feedback.count() == 1


@pytest.mark.parametrize("path", ["delete", "delete-all"])
def test_forged_forms_delete_nothing(visitor: Visitor, service: FakeService, path: str) -> None:
    reported(visitor)
    form = Forms(visitor.get("/ui/reported").text).found[f"/ui/reported/{path}"]
    assert visitor.post(f"/ui/reported/{path}", form, csrf="0" * 64).status_code == 403
    assert service.feedback.count() == 1


def test_a_proposer_is_one_click_from_a_proposal(visitor: Visitor, service: FakeService) -> None:
    reported(visitor)
    visitor.sign_in(key_for(service, Role.PROPOSER))
    assert "/ui/correct?" in visitor.get("/ui/reported").text
