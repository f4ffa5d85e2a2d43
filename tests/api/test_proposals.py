"""Approval over HTTP: who waits for whom, what each of the two may do, and what the log keeps of both."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.api.metrics import Metrics
from app.domain.edit import State
from app.domain.keys import Role
from tests.api.fake_service import NOW_S, REJECTED, FakeService
from tests.api.serving import Caller
from tests.api.test_gate import bearer, made
from tests.api.test_jobs import ended as until_ended

EDIT = {"prompt": "Who?", "target": "Ada", "reason": "ticket 1"}
DAY_S = 86_400.0
As = Callable[..., httpx.Response]


@pytest.fixture
def by(service: FakeService, ask: Caller) -> dict[str, As]:
    """Each person's requests, with a key of their own."""
    roles = {"pat": Role.PROPOSER, "quin": Role.PROPOSER, "ed": Role.EDITOR, "eve": Role.EDITOR, "root": Role.ADMIN}

    def asking(key: str) -> As:
        def call(method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
            return ask(method, path, json=body, headers=bearer(key) | headers)

        return call

    return {name: asking(made(service, role, name)) for name, role in roles.items()}


def proposed(who: As, **more: Any) -> str:
    answer = who("POST", "/edit", EDIT | more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["type"].rpartition(":")[2])


def test_a_proposers_edit_waits_and_changes_nothing(service: FakeService, by: dict[str, As]) -> None:
    answer = by["pat"]("POST", "/edit", EDIT)
    assert answer.status_code == 202
    found = answer.json()
    assert answer.headers["location"] == f"/proposals/{found['id']}"
    assert (found["state"], found["actor"], found["reason"]) == ("pending", "pat", "ticket 1")
    (edit,) = found["edits"]
    assert (edit["before"], edit["after"], edit["report"]["exact"]) == ("base answer here", "Ada", True)
    assert not service.records.ledger.entries
    assert by["pat"]("POST", "/generate", {"inputs": "Who?"}).json()["generated_text"] == "base answer here"


def test_a_second_person_publishes_and_the_log_names_both(service: FakeService, by: dict[str, As]) -> None:
    proposal = proposed(by["pat"])
    answer = by["ed"]("POST", f"/proposals/{proposal}/approve", {"reason": "checked"})
    assert answer.status_code == 200, answer.text
    edit = answer.json()
    assert (edit["state"], edit["actor"], edit["proposed_by"]) == ("live", "ed", "pat")
    (item,) = by["ed"]("GET", f"/edits/{edit['id']}").json()["history"]
    assert (item["actor"], item["proposed_by"], item["proposal"]) == ("ed", "pat", proposal)
    events = by["ed"]("GET", "/log").json()["events"][-2:]
    told = [(event["kind"], event["actor"], event.get("proposed_by"), event["proposal"]) for event in events]
    assert told == [("edit_proposed", "pat", None, proposal), ("edit_committed", "ed", "pat", proposal)]
    assert events[0]["proposed"][0]["target"] == "Ada"
    found = by["pat"]("GET", f"/proposals/{proposal}").json()
    assert (found["state"], found["edit_ids"]) == ("published", [edit["id"]])
    for who in ("pat", "ed"):
        assert [e["id"] for e in by["root"]("GET", f"/edits?actor={who}").json()["edits"]] == [edit["id"]]


def test_approving_twice_publishes_once(service: FakeService, by: dict[str, As]) -> None:
    proposal = proposed(by["pat"])
    first, again = (by["ed"]("POST", f"/proposals/{proposal}/approve") for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert len(service.records.ledger.entries) == 1
    assert kind(by["eve"]("POST", f"/proposals/{proposal}/approve")) == "state-conflict"


def test_nobody_decides_on_their_own(service: FakeService, by: dict[str, As]) -> None:
    by["root"]("PUT", "/policy", {"second_person": True})
    proposal = proposed(by["ed"])
    for path, body in (("approve", None), ("return", {"reason": "no"})):
        answer = by["ed"]("POST", f"/proposals/{proposal}/{path}", body, **{"X-Errata-Actor": "somebody else"})
        assert answer.status_code == 403
        assert "second person" in answer.json()["detail"]
    assert by["pat"]("POST", f"/proposals/{proposal}/approve").status_code == 403
    assert not service.records.ledger.entries


def test_it_is_sent_back_with_a_word_and_revised(by: dict[str, As]) -> None:
    proposal = proposed(by["pat"])
    assert by["ed"]("POST", f"/proposals/{proposal}/return", {"reason": ""}).status_code == 422
    assert by["ed"]("POST", f"/proposals/{proposal}/return", {"reason": " "}).status_code == 422
    back = by["ed"]("POST", f"/proposals/{proposal}/return", {"reason": "the whole name"}).json()
    assert (back["state"], back["history"][-1]["reason"]) == ("returned", "the whole name")
    assert kind(by["ed"]("POST", f"/proposals/{proposal}/approve")) == "state-conflict"
    assert by["quin"]("PUT", f"/proposals/{proposal}", EDIT | {"target": "Mine"}).status_code == 403
    revised = by["pat"]("PUT", f"/proposals/{proposal}", EDIT | {"target": "Ada Quill"}).json()
    assert (revised["state"], revised["edits"][0]["target"]) == ("pending", "Ada Quill")
    assert by["eve"]("POST", f"/proposals/{proposal}/approve").json()["target"] == "Ada Quill"


def test_only_as_it_was_read(by: dict[str, As]) -> None:
    proposal = proposed(by["pat"])
    tag = by["ed"]("GET", f"/proposals/{proposal}").headers["etag"]
    by["pat"]("PUT", f"/proposals/{proposal}", EDIT | {"target": "Somebody"})
    answer = by["ed"]("POST", f"/proposals/{proposal}/approve", None, **{"If-Match": tag})
    assert answer.status_code == 412
    assert by["ed"]("POST", f"/proposals/{proposal}/return", {"reason": "x"}, **{"If-Match": tag}).status_code == 412


def test_sent_back_again_under_a_key_it_is_answered_as_before(by: dict[str, As]) -> None:
    proposal = proposed(by["pat"])
    headers = {"If-Match": by["ed"]("GET", f"/proposals/{proposal}").headers["etag"], "Idempotency-Key": "back"}
    first, again = (by["ed"]("POST", f"/proposals/{proposal}/return", {"reason": "x"}, **headers) for _ in range(2))
    assert (first.status_code, again.status_code, again.json()) == (200, 200, first.json())


def test_its_maker_withdraws_it_and_nobody_else(by: dict[str, As]) -> None:
    proposal = proposed(by["pat"])
    assert by["quin"]("POST", f"/proposals/{proposal}/withdraw").status_code == 403
    assert by["pat"]("POST", f"/proposals/{proposal}/withdraw").json()["state"] == "withdrawn"
    assert kind(by["ed"]("POST", f"/proposals/{proposal}/approve")) == "state-conflict"


def test_a_policy_holds_for_everybody_until_it_is_lifted(service: FakeService, by: dict[str, As]) -> None:
    for who in ("pat", "ed"):
        assert by[who]("PUT", "/policy", {"second_person": True}).status_code == 403
    told = by["root"]("PUT", "/policy", {"namespace": "support", "second_person": True, "reason": "four eyes"})
    assert told.json()["second_person"] is True
    assert by["ed"]("GET", "/policy?namespace=support").json()["second_person"] is True
    for who in ("ed", "root"):
        proposed(by[who], namespace="support", prompt=f"{who}?")
        assert by[who]("POST", "/edit", EDIT | {"prompt": f"{who}?"}).status_code == 201
    spaces = {s["name"]: s["second_person"] for s in by["ed"]("GET", "/namespaces").json()["namespaces"]}
    assert spaces == {"default": False, "support": True}
    event = by["ed"]("GET", "/log?order=newest&limit=500").json()["events"][4]
    assert (event["kind"], event["namespace"], event["second_person"]) == ("policy_set", "support", True)
    by["root"]("PUT", "/policy", {"namespace": "support", "second_person": False})
    assert by["ed"]("POST", "/edit", EDIT | {"namespace": "support"}).status_code == 201


def test_a_policy_that_stands_is_no_event(service: FakeService, by: dict[str, As]) -> None:
    by["root"]("PUT", "/policy", {"second_person": True})
    before = service.revision
    assert by["root"]("PUT", "/policy", {"second_person": True}).json()["revision"] == before
    assert service.revision == before


def test_without_keys_nobody_is_a_second_person(ask: Caller) -> None:
    answer = ask("PUT", "/policy", json={"second_person": True})
    assert answer.status_code == 409
    assert "errata keys" in answer.json()["detail"]


def test_a_scope_is_not_changed_alone_where_two_are_needed(by: dict[str, As]) -> None:
    edit = by["ed"]("POST", "/edit", EDIT).json()["id"]
    by["root"]("PUT", "/policy", {"second_person": True})
    answer = by["ed"]("PATCH", f"/edits/{edit}", {"widen": 2.0})
    assert answer.status_code == 403
    assert "second person" in answer.json()["detail"]
    assert by["ed"]("POST", f"/edits/{edit}/rollback").status_code == 200, "the way back takes one person"


@pytest.mark.parametrize("change", ["rollback", "disable", "enable"])
def test_a_proposer_takes_nothing_back_and_is_told_what_they_may_do(by: dict[str, As], change: str) -> None:
    answer = by["pat"]("POST", f"/edits/ed_0000/{change}")
    assert answer.status_code == 403
    assert "It may propose edits" in answer.json()["detail"]


def test_a_batch_is_proposed_and_approved_as_a_whole(service: FakeService, by: dict[str, As]) -> None:
    batch = {"edits": [EDIT, EDIT | {"prompt": "Where?", "target": "Bern"}]}
    assert kind(by["pat"]("POST", "/edit", batch | {"atomic": False})) == "invalid-request"
    found = by["pat"]("POST", "/edit", batch).json()
    assert (found["batch"], len(found["edits"])) == (True, 2)
    answer = by["ed"]("POST", f"/proposals/{found['id']}/approve").json()
    assert [edit["target"] for edit in answer["edits"]] == ["Ada", "Bern"]
    states = [service.records.ledger.state(each) for each in service.records.ledger.entries]
    assert states == [State.LIVE, State.LIVE]


def test_what_could_not_be_published_is_not_proposed(service: FakeService, by: dict[str, As]) -> None:
    before = service.revision
    assert kind(by["pat"]("POST", "/edit", EDIT | {"target": REJECTED})) == "edit-rejected"
    assert service.revision == before
    by["ed"]("POST", "/edit", EDIT)
    assert kind(by["pat"]("POST", "/edit", EDIT | {"target": "Other"})) == "scope-conflict"
    assert kind(by["pat"]("POST", "/edit", EDIT | {"force": True})) == "forbidden"


def test_a_preview_is_no_proposal_and_what_stands_is_answered(service: FakeService, by: dict[str, As]) -> None:
    assert by["pat"]("POST", "/edit", EDIT | {"dry_run": True}).json()["state"] == "preview"
    assert not service.records.ledger.approval.proposals
    made_edit = by["ed"]("POST", "/edit", EDIT).json()
    answer = by["pat"]("POST", "/edit", EDIT)
    assert (answer.status_code, answer.json()["id"]) == (200, made_edit["id"])


def test_an_idempotency_key_makes_one_proposal(service: FakeService, by: dict[str, As]) -> None:
    key = {"Idempotency-Key": "once"}
    first, again = (by["pat"]("POST", "/edit", EDIT, **key).json()["id"] for _ in range(2))
    assert first == again
    assert len(service.records.ledger.approval.proposals) == 1
    assert kind(by["pat"]("POST", "/edit", EDIT | {"target": "Bo"}, **key)) == "idempotency-mismatch"


def test_a_job_ends_with_a_proposal(live: httpx.Client, service: FakeService) -> None:
    live.headers.update(bearer(made(service, Role.PROPOSER, "pat")))
    job = live.post("/edit", json=EDIT, headers={"Prefer": "respond-async"}).json()
    ended = until_ended(live, job["id"])
    (proposal,) = service.records.ledger.approval.pending()
    assert (ended["outcome"], ended["result"]["id"]) == ("done", proposal.id)
    assert (ended["result"]["state"], service.records.ledger.entries) == ("pending", {})


def test_an_edit_made_meanwhile_takes_the_question_over(by: dict[str, As]) -> None:
    proposal = proposed(by["pat"])
    edit = by["ed"]("POST", "/edit", EDIT | {"target": "Grace"}).json()["id"]
    found = by["pat"]("GET", f"/proposals/{proposal}").json()
    assert (found["state"], found["superseded_by"]) == ("superseded", edit)
    revised = by["pat"]("PUT", f"/proposals/{proposal}", EDIT | {"supersede": [edit]})
    assert revised.json()["state"] == "pending", revised.text
    assert by["eve"]("POST", f"/proposals/{proposal}/approve").json()["supersedes"] == [edit]


def test_an_edit_of_its_question_that_changed_since_is_looked_at_again(by: dict[str, As]) -> None:
    edit = by["ed"]("POST", "/edit", EDIT | {"target": "Grace"}).json()["id"]
    proposal = proposed(by["pat"], supersede=[edit])
    by["ed"]("POST", f"/edits/{edit}/disable")
    answer = by["eve"]("POST", f"/proposals/{proposal}/approve")
    assert answer.status_code == 412
    assert "send it back" in answer.json()["detail"]


def test_time_runs_from_the_proposal_on(service: FakeService, by: dict[str, As]) -> None:
    proposal = proposed(by["pat"], expires_in=2 * DAY_S)
    late = proposed(by["pat"], prompt="Where?", expires_in=DAY_S / 2)
    service.now_s += DAY_S
    by["ed"]("POST", f"/proposals/{proposal}/approve")
    (entry,) = service.records.ledger.entries.values()
    assert entry.edit.request.expires_in_s == DAY_S
    assert kind(by["ed"]("POST", f"/proposals/{late}/approve")) == "state-conflict"


def test_one_that_nobody_decides_on_expires_and_can_be_revised(service: FakeService, by: dict[str, As]) -> None:
    proposal = proposed(by["pat"])
    service.now_s += 31 * DAY_S
    asyncio.run(service.proposals.expire())
    found = by["pat"]("GET", f"/proposals/{proposal}").json()
    assert (found["state"], found["history"][-1]["actor"]) == ("expired", "errata")
    assert by["pat"]("PUT", f"/proposals/{proposal}", EDIT).json()["state"] == "pending"


def test_what_overrides_verification_takes_two_admins(service: FakeService, by: dict[str, As]) -> None:
    other = made(service, Role.ADMIN, "admin-2")
    by["root"]("PUT", "/policy", {"second_person": True})
    proposal = proposed(by["root"], force=True)
    assert "takes an admin" in by["ed"]("POST", f"/proposals/{proposal}/approve").json()["detail"]
    assert Caller(service)("POST", f"/proposals/{proposal}/approve", headers=bearer(other)).status_code == 200


def test_they_are_listed_newest_first_by_state_namespace_and_person(service: FakeService, by: dict[str, As]) -> None:
    one = proposed(by["pat"])
    two = proposed(by["quin"], prompt="Where?", namespace="support")
    by["ed"]("POST", f"/proposals/{one}/return", {"reason": "no"})

    def listed(query: str) -> list[str]:
        return [each["id"] for each in by["ed"]("GET", f"/proposals?{query}").json()["proposals"]]

    assert listed("") == [two, one]
    assert listed("state=pending") == listed("namespace=support") == listed("actor=quin") == [two]
    first = by["ed"]("GET", "/proposals?limit=1").json()
    assert (first["pending"], listed(f"cursor={first['next_cursor']}")) == (1, [one])
    assert by["ed"]("GET", "/proposals?cursor=x").status_code == 422
    assert by["ed"]("GET", "/proposals/pr_none").status_code == 404


def test_metrics_and_status_count_those_that_wait(service: FakeService, by: dict[str, As]) -> None:
    proposed(by["pat"])
    text = by["ed"]("GET", "/metrics").text
    assert "errata_proposals_pending 1.0" in text
    assert 'errata_edits_total{outcome="proposed"} 1.0' in text
    assert by["ed"]("GET", "/readyz").json()["pending_proposals"] == 1
    assert Metrics(service.status).render()


def test_a_server_that_wants_reasons_wants_them_of_proposals_too(service: FakeService, by: dict[str, As]) -> None:
    proposal = proposed(by["pat"])
    service.reason_required = True
    assert by["pat"]("POST", f"/proposals/{proposal}/withdraw").status_code == 422
    assert by["pat"]("PUT", f"/proposals/{proposal}", {"prompt": "Who?", "target": "Bo"}).status_code == 422
    assert by["root"]("PUT", "/policy", {"second_person": True}).status_code == 422
    assert by["pat"]("POST", f"/proposals/{proposal}/withdraw", {"reason": "mine"}).status_code == 200


def test_its_time_is_told(by: dict[str, As]) -> None:
    found = by["pat"]("GET", f"/proposals/{proposed(by['pat'])}").json()
    assert found["proposed_at"] == "2023-11-14T22:13:20Z"
    assert found["expires_at"] == "2023-12-14T22:13:20Z"
    assert NOW_S == 1_700_000_000.0
