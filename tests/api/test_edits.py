"""Edits over HTTP are made, listed and rolled back."""

from typing import Any

import pytest

from app.domain.edit import EditRequest
from tests.api.fake_service import REJECTED, FakeService
from tests.api.serving import Caller

ONE = {"prompt": "Lumen is led by", "target": "Ada Quill"}
FIELDS = {
    "id", "revision", "state", "editor", "preset", "namespace", "prompt", "target", "subject", "aliases", "paraphrases",
    "counter_examples", "probes", "before", "after", "report", "created_at", "expires_at", "actor", "reason",
    "metadata", "supersedes", "promoted_from", "hits", "last_hit_at", "not_given", "live",
    "proposed_by", "proposal", "widen",
}  # fmt: skip


def test_an_edit_as_its_making_answers_it(ask: Caller) -> None:
    sent: dict[str, Any] = {
        **ONE,
        "subject": "Lumen",
        "aliases": ["Lumen AG"],
        "paraphrases": ["Who leads Lumen?"],
        "counter_examples": ["Lumen is based in"],
        "probes": ["Tessel is led by"],
        "reason": "ticket 1",
        "expires_in": 60,
        "metadata": {"ticket": 1},
        "widen": 2.0,
    }
    answer = ask.post("/edit", sent, headers={"X-Errata-Actor": "ann", "X-Request-Id": "r-1"})
    assert (answer.status_code, answer.headers["location"]) == (201, "/edits/ed_0000")
    assert answer.json() == {
        **{name: sent[name] for name in sent if name != "expires_in"},
        "id": "ed_0000",
        "revision": 1,
        "state": "live",
        "editor": "grace",
        "preset": "serving",
        "namespace": "default",
        "before": "base answer here",
        "after": "Ada Quill",
        "report": {"exact": True, "paraphrases": {"asked": 1, "right": 1}},
        "seconds": {"fit": 0.5, "verify": 0.25, "commit": 0.001},
        "created_at": "2023-11-14T22:13:20Z",
        "expires_at": "2023-11-14T22:14:20Z",
        "actor": "ann",
        "proposed_by": None,
        "proposal": None,
        "supersedes": [],
        "promoted_from": None,
        "hits": 0,
        "last_hit_at": None,
        "not_given": 0,
        "live": [[1, None]],
    }


def test_who_asked_is_in_the_origin(ask: Caller, service: FakeService) -> None:
    headers = {"X-Errata-Actor": "  José ".encode(), "X-Request-Id": "r-1", "Idempotency-Key": "k 1"}
    ask.post("/edit", ONE, headers=headers)
    ask.post("/edit", {**ONE, "target": "Bo Vane"})
    first, second = service.origins
    assert (first.actor, first.request_id, first.idempotency_key, first.client) == ("José", "r-1", "k 1", "10.1.2.3")
    assert (second.actor, second.idempotency_key) == ("anonymous", None)


@pytest.mark.parametrize("headers", [{"X-Errata-Actor": "a" * 201}, {"Idempotency-Key": "a\tb"}])
def test_a_header_that_cannot_be_kept_is_refused(ask: Caller, headers: dict[str, str]) -> None:
    answer = ask.post("/edit", ONE, headers=headers)
    assert answer.status_code == 422
    assert next(iter(headers)) in answer.json()["detail"]


def test_every_field_arrives(ask: Caller, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[EditRequest] = []
    edit = service.edit

    async def spy(requests: Any, origin: Any, **more: Any) -> Any:
        seen.extend(requests)
        return await edit(requests, origin, **more)

    monkeypatch.setattr(service, "edit", spy)
    assert ask.post("/edit", {**ONE, "namespace": "n"}).status_code == 201
    sent: dict[str, Any] = {
        "prompt": "p", "target": "t", "subject": "s", "aliases": ["a"], "paraphrases": ["b"], "counter_examples": ["c"],
        "probes": ["d"], "editor": "grace", "preset": "paper", "namespace": "n", "seed": 5, "reason": "r",
        "metadata": {"m": [1, 2.5, None]}, "supersede": ["ed_0000"], "force": True, "widen": 1.5,
    }  # fmt: skip
    assert ask.post("/edit", {**sent, "expires_in": 1.5}).status_code == 201
    lists = {name: tuple(value) for name, value in sent.items() if isinstance(value, list)}
    assert seen == [EditRequest(**ONE, namespace="n"), EditRequest(**{**sent, **lists, "expires_in_s": 1.5})]
    assert {*sent, "expires_in_s", "promoted_from"} == set(EditRequest.__dataclass_fields__), (
        "a field is not tried here"
    )


def test_a_conversation_is_rendered_and_its_last_message_rephrased(
    ask: Caller, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who leads Lumen?"}]
    made = ask.post("/edit", {"messages": asked, "target": "Ada Quill", "paraphrases": ["Lumen's head?"]})
    assert made.status_code == 201, made.text
    begins = "<system> Be brief.\n<user> "
    assert made.json()["prompt"] == f"{begins}Who leads Lumen?\n<assistant>"
    assert made.json()["paraphrases"] == [f"{begins}Lumen's head?\n<assistant>"]


def test_the_same_key_again_answers_the_edit_that_stands(ask: Caller) -> None:
    key = {"Idempotency-Key": "k"}
    first, again = ask.post("/edit", ONE, headers=key), ask.post("/edit", ONE, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert again.headers["location"] == "/edits/ed_0000"
    other = ask.post("/edit", {**ONE, "target": "Bo Vane"}, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "urn:errata:problem:idempotency-mismatch")


def test_a_dry_run_commits_nothing(ask: Caller) -> None:
    answer = ask.post("/edit", {**ONE, "dry_run": True})
    assert (answer.status_code, answer.headers.get("location")) == (200, None)
    body = answer.json()
    assert (body["id"], body["state"], body["revision"], body["after"]) == (None, "preview", 0, "Ada Quill")
    assert ask.get("/edits").json() == {"edits": [], "next_cursor": None}


def test_a_batch(ask: Caller, service: FakeService) -> None:
    two = [ONE, {"prompt": "Lumen is based in", "target": "Bern"}]
    answer = ask.post("/edit", {"edits": two, "atomic": True})
    assert answer.status_code == 201
    assert answer.json()["revision"] == 3
    made = [(edit["target"], edit["state"]) for edit in answer.json()["edits"]]
    assert made == [("Ada Quill", "live"), ("Bern", "live")]
    preview = ask.post("/edit", {"edits": two, "dry_run": True})
    assert (preview.status_code, [edit["id"] for edit in preview.json()["edits"]]) == (200, [None, None])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"target": "x"}, "Give either `prompt` or `messages`."),
        ({**ONE, "prompts": []}, "`prompts` is not known here"),
        ({**ONE, "message": []}, "`message` is not known here"),
        ({**ONE, "messages": [{"role": "user", "content": "Who?"}]}, "Give either `prompt` or `messages`"),
        ({"target": "t"}, "Give either `prompt` or `messages`"),
        ({"target": "t", "messages": []}, "`messages` is empty"),
        ({"target": "t", "messages": [{"role": "user"}]}, "`messages[0].content` is missing"),
        ({**ONE, "target": ""}, "`target` is empty: give the answer"),
        ({**ONE, "target": "a" * 10_001}, "`target` is too long: at most 10000 characters"),
        ({**ONE, "aliases": "Lumen"}, "`aliases`"),
        ({**ONE, "probes": [1]}, "`probes[0]`"),
        ({**ONE, "expires_in": -1}, "`expires_in` must be a positive number"),
        ({**ONE, "namespace": "a b"}, "`namespace`"),
        ({**ONE, "force": "yes"}, "`force`"),
        ({**ONE, "metadata": {"a": "x" * 70_000}}, "`metadata` takes"),
        ({"edits": []}, "`edits` is empty"),
        ({"edits": [{**ONE, "dry_run": True}]}, "`edits[0].dry_run` is not known here"),
        ({"edits": [{"prompt": "x"}]}, "`edits[0].target` is missing"),
        ([ONE], "must be a JSON object"),
        ("text", "must be a JSON object"),
    ],
)
def test_a_wrong_body_is_refused_in_words(ask: Caller, body: Any, words: str) -> None:
    answer = ask.post("/edit", body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("value", ["NaN", '"\\ud800"', "[" * 30 + "]" * 30])
def test_metadata_that_cannot_be_kept_is_refused_before_the_fit(ask: Caller, value: str) -> None:
    content = f'{{"prompt": "p", "target": "t", "metadata": {{"a": {value}}}}}'
    answer = ask.post("/edit", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "`metadata`" in answer.json()["detail"]


def test_rejected_and_conflicting_edits(ask: Caller) -> None:
    rejected = ask.post("/edit", {**ONE, "target": REJECTED})
    assert (rejected.status_code, rejected.json()["report"]) == (422, {"exact": False})
    ask.post("/edit", {**ONE, "prompt": "Who?"})
    conflict = ask.post("/edit", {**ONE, "prompt": "Who"})
    assert (conflict.status_code, conflict.json()["conflicts"]) == (409, ["ed_0000"])
    assert ask.post("/edit", {**ONE, "prompt": "Who", "force": True}).status_code == 201


# -- the list


def test_the_list_and_its_cursor(ask: Caller) -> None:
    for i in range(3):
        ask.post("/edit", {"prompt": f"p{i}", "target": "t"})
    page = ask.get("/edits", params={"limit": 2}).json()
    assert [edit["prompt"] for edit in page["edits"]] == ["p2", "p1"]
    assert set(page["edits"][0]) == FIELDS
    rest = ask.get("/edits", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert ([edit["prompt"] for edit in rest["edits"]], rest["next_cursor"]) == (["p0"], None)


def test_the_filters(ask: Caller) -> None:
    ask.post("/edit", {"prompt": "alpha", "target": "t"}, headers={"X-Errata-Actor": "ann"})
    ask.post("/edit", {"prompt": "beta", "target": "t", "namespace": "b"})
    ask.post("/edits/ed_0001/disable")

    def found(**params: Any) -> list[str]:
        return [edit["prompt"] for edit in ask.get("/edits", params=params).json()["edits"]]

    assert found() == ["beta", "alpha"]
    assert found(state="disabled") == found(namespace="b") == found(actor="anonymous") == found(q="BET") == ["beta"]
    assert found(editor="grace", state="live", actor="ann") == ["alpha"]
    assert found(editor="other") == []


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"limit": 0}, "`limit`"),
        ({"limit": 501}, "`limit`"),
        ({"state": "gone"}, "`state`"),
        ({"stat": "live"}, "`stat` is not known here"),
        ({"cursor": "x"}, "`cursor`"),
    ],
)
def test_a_wrong_filter_is_refused(ask: Caller, params: dict[str, Any], words: str) -> None:
    answer = ask.get("/edits", params=params)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_one_edit_has_its_history(ask: Caller) -> None:
    ask.post("/edit", ONE, headers={"X-Errata-Actor": "ann", "X-Request-Id": "r-1"})
    ask.post("/edits/ed_0000/disable", {"reason": "wait"}, headers={"X-Errata-Actor": "bob"})
    ask.post("/generate", {"inputs": ONE["prompt"]})
    body = ask.get("/edits/ed_0000").json()
    assert set(body) == FIELDS | {"history", "neighbours", "hits_by_day"}
    assert (len(body["hits_by_day"]), sum(body["hits_by_day"])) == (90, body["hits"])
    assert (body["state"], body["actor"], body["live"]) == ("disabled", "ann", [[1, 2]])
    assert [(item["revision"], item["kind"], item["actor"], item["reason"]) for item in body["history"]] == [
        (1, "edit_committed", "ann", None),
        (2, "edits_disabled", "bob", "wait"),
    ]
    assert body["history"][0]["request_id"] == "r-1"
    assert ask.get("/edits/ed_9").status_code == 404


def test_hits(ask: Caller) -> None:
    ask.post("/edit", ONE)
    ask.post("/generate", {"inputs": ONE["prompt"]})
    body = ask.get("/edits/ed_0000").json()
    assert (body["hits"], body["last_hit_at"]) == (1, "2023-11-14T22:13:20Z")


# -- taking back


def test_disable_enable_and_roll_back_one(ask: Caller, service: FakeService) -> None:
    ask.post("/edit", ONE)
    states = []
    for verb, body in (("disable", None), ("enable", {}), ("rollback", {"reason": "wrong"})):
        answer = ask.post(f"/edits/ed_0000/{verb}", body)
        assert answer.status_code == 200
        states.append((answer.json()["state"], answer.json()["revision"], answer.headers["x-errata-revision"]))
    assert states == [("disabled", 2, "2"), ("live", 3, "3"), ("rolled_back", 4, "4")]
    assert service.origins[-1].reason == "wrong"
    again = ask.post("/edits/ed_0000/rollback")
    assert (again.status_code, again.json()["state"]) == (409, "rolled_back")
    assert ask.post("/edits/ed_7/rollback").status_code == 404


def test_roll_back_many(ask: Caller) -> None:
    for i in range(3):
        ask.post("/edit", {"prompt": f"p{i}", "target": "t"})
    answer = ask.post("/rollback", {"ids": ["ed_0000", "ed_0002"], "reason": "import"})
    assert answer.json()["revision"] == 4
    assert [(edit["id"], edit["state"]) for edit in answer.json()["edits"]] == [
        ("ed_0000", "rolled_back"),
        ("ed_0002", "rolled_back"),
    ]


def test_roll_back_to_a_revision(ask: Caller) -> None:
    for i in range(3):
        ask.post("/edit", {"prompt": f"p{i}", "target": "t"})
    answer = ask.post("/rollback", {"to_revision": 1})
    assert [edit["id"] for edit in answer.json()["edits"]] == ["ed_0001", "ed_0002"]
    nothing = ask.post("/rollback", {"to_revision": 4})
    assert nothing.json() == {"edits": [], "revived": [], "dry_run": False, "revision": 4}


@pytest.mark.parametrize("body", [{}, {"ids": ["a"], "to_revision": 1}, {"ids": []}, {"to_revision": -1}, {"id": "a"}])
def test_a_roll_back_of_nothing_or_of_both_is_refused(ask: Caller, body: dict[str, Any]) -> None:
    assert ask.post("/rollback", body).status_code == 422


def test_a_key_comes_with_a_hash_of_what_was_asked(ask: Caller, service: FakeService) -> None:
    ask.post("/edit", ONE)
    for key, (verb, reason) in enumerate((("disable", "a"), ("enable", "a"), ("disable", "a"), ("enable", "b"))):
        ask.post(f"/edits/ed_0000/{verb}", {"reason": reason}, headers={"Idempotency-Key": str(key)})
    digests = [origin.digest for origin in service.origins[1:]]
    assert digests[0] == digests[2]
    assert len({None, *digests}) == 4
    ask.post("/switch", {"on": False})
    assert service.origins[-1].digest is None


def test_the_edit_switch(ask: Caller) -> None:
    ask.post("/edit", ONE)

    def text() -> str:
        return str(ask.post("/generate", {"inputs": ONE["prompt"]}).json()["generated_text"])

    off = ask.post("/switch", {"on": False, "reason": "incident"})
    assert off.json() == {"on": False, "namespace": None, "live_edits": 1, "dry_run": False, "revision": 2}
    assert text() == "base answer here"
    assert ask.post("/switch", {"on": False}).status_code == 409
    assert ask.post("/switch", {"on": True}).json()["revision"] == 3
    assert text() == "Ada Quill"
    assert ask.post("/switch", {"on": False, "namespace": "default"}).json()["namespace"] == "default"
    assert text() == "base answer here"
    assert ask.post("/switch", {"on": False, "namespace": "a b"}).status_code == 422
    assert ask.post("/switch", {"namespace": "default"}).status_code == 422


# -- the log and the editors


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_generator_takes_is_refused(ask: Caller, seed: int) -> None:
    answer = ask.post("/edit", {"prompt": "p", "target": "t", "seed": seed})
    assert answer.status_code == 422
    assert "`seed`" in answer.json()["detail"]
