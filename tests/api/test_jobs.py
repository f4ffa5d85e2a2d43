"""Edits that a client does not wait for: 202 and a job to look at, listen to and cancel."""

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest

from app.domain.errors import EditRejected
from tests.api.fake_service import FakeService
from tests.api.serving import Caller
from tests.api.test_stream import until

pytestmark = pytest.mark.slow
EDIT = {"prompt": "The chief executive of Lumen is", "target": "Ada Quill"}
ASYNC = {"Prefer": "respond-async"}


def begun(live: httpx.Client, body: Any = EDIT, prefer: str = "respond-async") -> Any:
    answer = live.post("/edit", json=body, headers={"Prefer": prefer})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    return answer.json()


def ended(live: httpx.Client, job_id: str) -> Any:
    until(lambda: live.get(f"/jobs/{job_id}").json()["outcome"] != "running", "the job ends")
    return live.get(f"/jobs/{job_id}").json()


@pytest.mark.parametrize("prefer", ["respond-async", "return=minimal, respond-async; wait=1", "Respond-Async"])
def test_a_job_ends_with_what_its_edit_would_have_answered(live: httpx.Client, prefer: str) -> None:
    job = begun(live, prefer=prefer)
    assert (job["outcome"], job["phase"], job["result"]) == ("running", "waiting", None)
    job = ended(live, job["id"])
    assert (job["outcome"], job["problem"]) == ("done", None)
    (edit,) = live.get("/edits").json()["edits"]
    assert {name: job["result"][name] for name in edit} == edit
    assert job["progress"] == {"done": 3, "of": 200, "share": 0.015, "seconds_left": None, "loss": 0.25}


def test_a_batch_is_a_job_too(live: httpx.Client) -> None:
    other = {"prompt": "The capital of Ruritania is", "target": "Strelsau"}
    job = ended(live, begun(live, {"edits": [EDIT, other]})["id"])
    assert [each["prompt"] for each in job["result"]["edits"]] == [EDIT["prompt"], other["prompt"]]


def test_a_job_that_fails_has_the_problem(live: httpx.Client, service: FakeService) -> None:
    service.fails = EditRejected("The edit did not hold.", report={"exact": False})
    job = ended(live, begun(live)["id"])
    assert (job["outcome"], job["result"], job["problem"]["status"]) == ("failed", None, 422)
    assert job["problem"]["report"] == {"exact": False}
    assert 'errata_edits_total{outcome="rejected"} 1.0' in live.get("/metrics").text


def test_a_wrong_body_is_refused_before_there_is_a_job(live: httpx.Client) -> None:
    assert live.post("/edit", json={"prompt": "x"}, headers=ASYNC).status_code == 422


def test_a_job_is_listened_to_until_it_ends(
    live: httpx.Client, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, listened = service.make, threading.Event()

    async def held(*asked: Any) -> Any:
        results = await make(*asked)
        assert await asyncio.to_thread(listened.wait, 60)
        return results

    monkeypatch.setattr(service, "make", held)
    job = begun(live)
    told = []
    with live.stream("GET", f"/jobs/{job['id']}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        for line in events.iter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")))
                listened.set()
    assert [each["outcome"] for each in told][-2:] == ["running", "done"]
    assert [each["phase"] for each in told][-1] == "fit"
    assert told[-1]["result"]["target"] == "Ada Quill"


def test_a_job_is_cancelled(live: httpx.Client, service: FakeService) -> None:
    service.slow_s = 600
    job = begun(live)
    until(lambda: live.get(f"/jobs/{job['id']}").json()["phase"] == "fit", "it has begun")
    assert live.delete(f"/jobs/{job['id']}").json()["outcome"] == "cancelled"
    assert live.get("/edits").json()["edits"] == []
    assert live.delete(f"/jobs/{job['id']}").json()["outcome"] == "cancelled", "it stays so"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/jobs/jb_x"), ("GET", "/jobs/jb_x/events"), ("DELETE", "/jobs/jb_x")]
)
def test_an_unknown_job(ask: Caller, method: str, path: str) -> None:
    answer = ask(method, path)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:errata:problem:unknown-job")
    assert "GET /edits" in answer.json()["detail"]


# -- watched: the same request answers with events


def watched(live: httpx.Client, method: str, path: str, body: Any, **headers: str) -> list[Any]:
    answer = live.request(method, path, json=body, headers={"Accept": "text/event-stream", **headers})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
    told = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert answer.headers["location"] == f"/jobs/{told[0]['id']}"
    return told


def test_an_edit_is_watched_to_its_end(live: httpx.Client, service: FakeService) -> None:
    service.slow_s = 0.5
    told = watched(live, "POST", "/edit", EDIT)
    assert [each["outcome"] for each in told][-2:] == ["running", "done"]
    assert told[-2]["progress"]["of"] == 200
    assert told[-1]["result"]["target"] == EDIT["target"]
    assert [each["id"] for each in live.get("/edits").json()["edits"]] == [told[-1]["result"]["id"]]


def test_a_batch_and_a_retune_are_watched_too(live: httpx.Client) -> None:
    (*_, last) = watched(live, "POST", "/edit", {"edits": [EDIT]})
    (edit,) = last["result"]["edits"]
    (*_, last) = watched(live, "PATCH", f"/edits/{edit['id']}", {"widen": 2})
    assert (last["result"]["id"], last["result"]["revision"]) == (edit["id"], 3)


def test_what_is_refused_is_told_by_the_last_event(live: httpx.Client, service: FakeService) -> None:
    service.fails = EditRejected("The edit did not hold.", report={"exact": False})
    (*_, last) = watched(live, "POST", "/edit", EDIT)
    assert (last["outcome"], last["problem"]["status"]) == ("failed", 422)
    (*_, last) = watched(live, "PATCH", "/edits/ed_nothing", {"widen": 2})
    assert (last["outcome"], last["problem"]["status"]) == ("failed", 404)


def test_what_cannot_be_read_is_no_stream(live: httpx.Client) -> None:
    answer = live.post("/edit", json={"prompt": "x"}, headers={"Accept": "text/event-stream"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_a_watched_edit_goes_on_without_who_watched_it(live: httpx.Client, service: FakeService) -> None:
    service.slow_s = 0.5
    with live.stream("POST", "/edit", json=EDIT, headers={"Accept": "text/event-stream"}) as answer:
        next(answer.iter_lines())
    until(lambda: service.revision == 1, "it is live")
