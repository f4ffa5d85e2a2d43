"""Answers are reported over HTTP: the roles that may report them, the time that they are kept, and their deletion."""

from typing import Any

import httpx
import pytest

from app.domain.keys import Role
from app.service import feedback
from tests.api.fake_service import FakeService
from tests.api.serving import Caller
from tests.api.test_gate import bearer, made


def answered(ask: Caller, prompt: str = "Who leads Lumen?", **more: Any) -> str:
    """The id of a request that was answered."""
    answer = ask("POST", "/generate", json={"inputs": prompt, "parameters": more})
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-request-id"])


def report(ask: Caller, request_id: str, **more: Any) -> httpx.Response:
    return ask.post("/feedback", {"request_id": request_id, "verdict": "wrong"} | more)


def listed(ask: Caller, query: str = "") -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = ask.get(f"/feedback{query}").json()["groups"]
    return found


def test_an_answer_is_reported_with_what_was_asked_and_said(ask: Caller, service: FakeService) -> None:
    edit = ask.post("/edit", {"prompt": "Who leads Lumen?", "target": "Ada", "namespace": "support"}).json()["id"]
    request_id = answered(ask, namespace="support")
    taken = ask.post(
        "/feedback",
        {"request_id": request_id, "verdict": "wrong", "note": "It is Bo"},
        headers={"X-Errata-Actor": "reader-7"},
    )
    assert (taken.status_code, taken.json()["kept"]) == (201, True)
    ((found,),) = listed(ask)
    assert found["id"] == taken.json()["id"]
    assert (found["prompt"], found["answer"], found["edits"]) == ("Who leads Lumen?", "Ada", [edit])
    assert (found["note"], found["actor"], found["namespace"], found["revision"]) == (
        "It is Bo",
        "reader-7",
        "support",
        1,
    )
    assert service.revision == 1, "what readers wrote is in no log"
    assert "errata_reported_answers 1.0" in ask.get("/metrics").text
    assert 'errata_feedback_total{verdict="wrong"} 1.0' in ask.get("/metrics").text
    assert ask.get("/readyz").json()["reported_answers"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Who?"}]}),
        ("/v1/completions", {"prompt": "Who?"}),
    ],
)
def test_the_ids_of_openais_answers_are_taken(ask: Caller, path: str, body: Any) -> None:
    answer = ask.post(path, body)
    assert report(ask, answer.json()["id"]).status_code == 201
    assert report(ask, answer.headers["x-request-id"]).status_code == 201
    assert len(listed(ask)) == 1


def test_a_streamed_answer_can_be_reported(ask: Caller) -> None:
    answer = ask.post("/generate_stream", {"inputs": "Who?"})
    assert report(ask, answer.headers["x-request-id"]).status_code == 201
    assert listed(ask)[0][0]["answer"] == "base answer here"


def test_one_of_several_answers_is_named_by_its_index(ask: Caller) -> None:
    request_id = ask.post("/v1/completions", {"prompt": ["Who?", "Where?"]}).json()["id"]
    assert report(ask, request_id, index=1).status_code == 201
    assert listed(ask)[0][0]["prompt"] == "Where?"
    assert report(ask, request_id, index=2).status_code == 404


def test_an_id_that_no_answer_has_is_unknown_and_says_what_is_taken(ask: Caller) -> None:
    answer = report(ask, "nobody-asked")
    assert answer.status_code == 404
    assert answer.json()["type"].endswith("unknown-answer")
    assert "X-Request-Id" in answer.json()["detail"]
    unedited = answered(ask, edits="off")
    assert report(ask, unedited).status_code == 404, "what readers do not see cannot be reported"


def test_an_answer_can_be_reported_for_an_hour(ask: Caller, service: FakeService) -> None:
    request_id = answered(ask)
    service.now_s += feedback.ANSWERS_S + 1
    assert report(ask, request_id).status_code == 404


def test_reported_twice_an_answer_is_kept_once_with_the_newest_note(ask: Caller) -> None:
    request_id = answered(ask)
    one, again = (report(ask, request_id, note=note).json()["id"] for note in ("wrong", "very wrong"))
    assert one == again
    assert [each["note"] for each in listed(ask)[0]] == ["very wrong"]


def test_praise_is_counted_and_not_kept(ask: Caller) -> None:
    taken = report(ask, answered(ask), verdict="right")
    assert taken.json() == {"id": None, "kept": False}
    assert listed(ask) == []
    assert 'errata_feedback_total{verdict="right"} 1.0' in ask.get("/metrics").text
    assert report(ask, "nobody-asked", verdict="right").status_code == 404


def test_where_it_is_off_the_setting_is_named_and_nothing_is_remembered(ask: Caller, service: FakeService) -> None:
    service.feedback.most = 0
    refused = report(ask, answered(ask))
    assert refused.status_code == 422
    assert "ERRATA_FEEDBACK" in refused.json()["detail"]
    service.feedback.most = 10
    assert report(ask, answered(ask)).status_code == 201
    assert ask.get("/feedback").json()["at_most"] == 10


def test_like_questions_stand_together_the_largest_group_first(ask: Caller) -> None:
    for prompt in ("Where is Tessel?", "Who leads Lumen?", "Who leads Lumen now?", "So, who leads Lumen?"):
        report(ask, answered(ask, prompt))
    assert [[each["prompt"] for each in group] for group in listed(ask)] == [
        ["So, who leads Lumen?", "Who leads Lumen now?", "Who leads Lumen?"],
        ["Where is Tessel?"],
    ]


def test_they_are_listed_by_namespace(ask: Caller) -> None:
    report(ask, answered(ask, "Who?"))
    report(ask, answered(ask, "Where?", namespace="support"))
    assert [group[0]["prompt"] for group in listed(ask, "?namespace=support")] == ["Where?"]


def test_the_newest_are_kept_and_none_too_long(ask: Caller, service: FakeService) -> None:
    for number in range(12):
        report(ask, answered(ask, f"Question {number} of {number}{number}?"))
    assert ask.get("/feedback").json()["kept"] == 10
    prompts = {each["prompt"] for group in listed(ask) for each in group}
    assert "Question 0 of 00?" not in prompts
    assert "Question 11 of 1111?" in prompts
    service.now_s += 31 * 86_400
    assert ask.get("/feedback").json()["kept"] == 0


def test_what_is_very_long_is_not_remembered(ask: Caller) -> None:
    assert report(ask, answered(ask, "x" * (feedback.MOST_CHARS + 1))).status_code == 404


def test_answers_that_may_be_reported_are_bounded(
    ask: Caller, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "MOST_ANSWERS", 2)
    ids = [answered(ask, f"Question {number}?") for number in range(3)]
    assert [report(ask, each).status_code for each in ids] == [404, 201, 201]


def test_the_characters_of_answers_that_may_be_reported_are_bounded_too(
    ask: Caller, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = len("base answer here")
    monkeypatch.setattr(feedback, "MOST_CHARS_IN_ALL", 2 * (1_000 + said))
    first, second, third = (answered(ask, letter * 1_000) for letter in "abc")
    assert [report(ask, each).status_code for each in (first, second, third)] == [404, 201, 201]
    fourth = answered(ask, "d" * 500)
    assert [report(ask, each).status_code for each in (second, third, fourth)] == [404, 201, 201]
    assert ask("DELETE", "/feedback").status_code == 200
    ids = [answered(ask, letter * 1_000) for letter in "ef"]
    assert [report(ask, each).status_code for each in ids] == [201, 201], "what was deleted takes no room"


def test_one_that_is_deleted_is_gone_and_cannot_be_reported_again(ask: Caller, service: FakeService) -> None:
    request_id = answered(ask)
    ask("DELETE", f"/feedback/{report(ask, request_id).json()['id']}")
    assert report(ask, request_id).status_code == 404


def test_what_is_deleted_while_it_is_being_reported_stays_deleted(ask: Caller, service: FakeService) -> None:
    request_id = answered(ask)
    vector = service.feedback.likeness.vector

    def deleting(prompt: str) -> Any:
        service.feedback.forget_all()
        return vector(prompt)

    service.feedback.likeness.vector = deleting  # type: ignore[method-assign]
    assert report(ask, request_id).status_code == 404
    assert service.feedback.count() == 0


def test_applications_that_number_their_requests_alike_report_their_own(ask: Caller, service: FakeService) -> None:
    one, two, three = (bearer(made(service, Role.GENERATOR, name)) for name in ("one", "two", "three"))
    reader = bearer(made(service, Role.READER, "reader"))
    body = {"request_id": "1", "verdict": "wrong"}
    for key, prompt in ((one, "Who?"), (two, "Where?")):
        ask("POST", "/generate", json={"inputs": prompt}, headers=key | {"X-Request-Id": "1"})
    assert ask("POST", "/feedback", json=body, headers=three).status_code == 404, "it may be either"
    assert ask("POST", "/feedback", json=body, headers=one).status_code == 201
    ((found,),) = ask("GET", "/feedback", headers=reader).json()["groups"]
    assert found["prompt"] == "Who?"
    ask("POST", "/generate", json={"inputs": "When?"}, headers=one | {"X-Request-Id": "2"})
    assert ask("POST", "/feedback", json=body | {"request_id": "2"}, headers=three).status_code == 201


def test_a_namespace_tells_apart_requests_that_are_numbered_alike(ask: Caller) -> None:
    for namespace in ("east", "west"):
        body = {"inputs": f"Who leads {namespace}?", "parameters": {"namespace": namespace}}
        ask("POST", "/generate", json=body, headers={"X-Request-Id": "1"})
    refused = report(ask, "1")
    assert refused.status_code == 404
    assert "`namespace`" in refused.json()["detail"]
    assert report(ask, "1", namespace="east").status_code == 201
    assert [each["prompt"] for group in listed(ask) for each in group] == ["Who leads east?"]


def test_one_is_deleted_or_all_and_what_could_be_reported_with_them(ask: Caller) -> None:
    first, second = answered(ask, "Who?"), answered(ask, "Where?")
    one = report(ask, first).json()["id"]
    report(ask, second)
    assert ask("DELETE", f"/feedback/{one}").json() == {"forgotten": 1}
    assert ask("DELETE", f"/feedback/{one}").status_code == 404
    assert [group[0]["prompt"] for group in listed(ask)] == ["Where?"]
    assert ask("DELETE", "/feedback").json() == {"forgotten": 1}
    assert listed(ask) == []
    assert report(ask, second).status_code == 404


def test_a_group_goes_with_its_last_answer(ask: Caller, service: FakeService) -> None:
    report_id = report(ask, answered(ask, "Who leads Lumen?")).json()["id"]
    ask("DELETE", f"/feedback/{report_id}")
    report(ask, answered(ask, "Who leads Lumen now?"))
    report(ask, answered(ask, "Who leads Lumen?"))
    assert [len(group) for group in listed(ask)] == [2]


def test_whoever_may_generate_may_report_and_only_whoever_edits_deletes(ask: Caller, service: FakeService) -> None:
    generator, reader, editor = (
        bearer(made(service, role, role)) for role in (Role.GENERATOR, Role.READER, Role.EDITOR)
    )
    request_id = ask("POST", "/generate", json={"inputs": "Who?"}, headers=generator).headers["x-request-id"]
    body = {"request_id": request_id, "verdict": "wrong"}
    assert ask("POST", "/feedback", json=body, headers=reader).status_code == 403
    found = ask("POST", "/feedback", json=body, headers=generator).json()["id"]
    assert ask("GET", "/feedback", headers=generator).status_code == 403
    ((told,),) = ask("GET", "/feedback", headers=reader).json()["groups"]
    assert (told["actor"], len(told["key_id"])) == ("generator", 12)
    assert ask("DELETE", f"/feedback/{found}", headers=reader).status_code == 403
    assert ask("DELETE", "/feedback", headers=editor).status_code == 403
    assert ask("DELETE", f"/feedback/{found}", headers=editor).status_code == 200


@pytest.mark.parametrize("body", [{"request_id": "r"}, {"request_id": "r", "verdict": "meh"}, {"verdict": "wrong"}])
def test_a_body_that_says_too_little_is_refused(ask: Caller, body: Any) -> None:
    assert ask.post("/feedback", body).status_code == 422
