"""The app's life, its health and metrics, and its own description."""

import asyncio
from typing import Any

import httpx
import pytest

from app.api.app import create_app
from app.domain.errors import StoreUnavailable
from app.version import version
from tests.api.fake_service import REJECTED, FakeService
from tests.api.serving import Caller, live_server


def test_the_app_starts_and_stops_its_service(service: FakeService) -> None:
    with live_server(service) as url:
        assert (service.started, service.stopped) == (1, 0)
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
    assert (service.started, service.stopped) == (1, 1)


def test_a_service_that_cannot_start_stops_the_app(service: FakeService) -> None:
    def away() -> None:
        raise StoreUnavailable("The log cannot be read.")

    service.at_start = away
    app = create_app(service)  # type: ignore[arg-type]

    async def live() -> None:
        async with app.router.lifespan_context(app):
            raise AssertionError("it started")

    with pytest.raises(StoreUnavailable):
        asyncio.run(live())


def test_ready(ask: Caller) -> None:
    answer = ask.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "version": version(),
            "ready": True, "why_not": None, "model": "fake", "model_fingerprint": "f00d/mlp", "site": "mlp",
            "device": "cpu", "dtype": "float32", "store": "memory://", "durable": False, "revision": 0,
            "hash": "0" * 64, "live_edits": 0, "pending_proposals": 0, "switched_on": True, "switched_off": [],
            "reported_answers": 0, "log_lag": 3, "log_silence_s": 0.5, "running": 1, "waiting": 2,
            "judge": {
                "judge": "off", "state": "off", "why_not": None, "pass_mark": 0.0, "same": None, "other": None,
                "pairs": 0, "asked": 0, "changed": 0, "failed": 0,
            },
            "extra": {"parameters": 42, "slots": 4},
        },
    )  # fmt: skip


def test_not_ready_is_still_healthy(ask: Caller, service: FakeService) -> None:
    service.why_not = "stopping"
    answer = ask.get("/readyz")
    assert (answer.status_code, answer.json()["why_not"], answer.headers["retry-after"]) == (503, "stopping", "1")
    assert ask.get("/healthz").status_code == 200
    refused = ask.post("/generate", {"inputs": "x"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


def metrics(ask: Caller) -> dict[str, float]:
    answer = ask.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics(ask: Caller) -> None:
    ask.post("/generate", {"inputs": "two words"})
    ask.post("/edit", {"prompt": "a b c", "target": "t"}, headers={"Idempotency-Key": "k"})
    ask.post("/edit", {"prompt": "a b c", "target": "t"}, headers={"Idempotency-Key": "k"})
    ask.post("/edit", {"prompt": "p", "target": "t", "dry_run": True})
    ask.post("/edit", {"prompt": "p", "target": REJECTED})
    ask.post("/edit", {"edits": [{"prompt": "p", "target": "t"}, {"prompt": "q", "target": "t"}]})
    ask.post("/generate_stream", {"inputs": "a b c", "parameters": {"max_new_tokens": 1}})
    ask.get("/nowhere")
    got = metrics(ask)
    expected = {
        "errata_num_requests_running": 1,
        "errata_num_requests_waiting": 2,
        "errata_edits_live": 3,
        "errata_revision": 4,
        "errata_proposals_pending": 0,
        "errata_reported_answers": 0,
        "errata_ready": 1,
        "errata_log_lag_events": 3,
        "errata_log_silence_seconds": 0.5,
        "errata_prompt_tokens_total": 5,
        "errata_generation_tokens_total": 5,
        'errata_request_success_total{finish_reason="eos_token"}': 1,
        'errata_request_success_total{finish_reason="length"}': 1,
        "errata_e2e_request_latency_seconds_count": 2,
        "errata_time_to_first_token_seconds_count": 1,
        'errata_edit_seconds_count{phase="fit"}': 3,
        'errata_edits_total{outcome="committed"}': 3,
        'errata_edits_total{outcome="existing"}': 1,
        'errata_edits_total{outcome="preview"}': 1,
        'errata_edits_total{outcome="rejected"}': 1,
        'errata_edit_hits_total{editor="grace"}': 1,
        'errata_request_errors_total{status="404"}': 1,
        'errata_request_errors_total{status="422"}': 1,
    }
    assert {name: got.get(name) for name in expected} == expected


def test_two_apps_count_apart(ask: Caller) -> None:
    other = Caller(FakeService())
    ask.post("/generate", {"inputs": "x"})
    assert metrics(ask)["errata_prompt_tokens_total"] == 1
    assert metrics(other)["errata_prompt_tokens_total"] == 0


# -- the description

ROUTES = {
    ("post", "/generate"), ("post", "/generate_stream"), ("post", "/edit"), ("get", "/edits"),
    ("get", "/edits/{edit_id}"), ("post", "/edits/{edit_id}/rollback"), ("post", "/edits/{edit_id}/disable"),
    ("post", "/edits/{edit_id}/enable"), ("post", "/rollback"), ("post", "/switch"), ("get", "/log"),
    ("get", "/editors"), ("get", "/healthz"), ("get", "/readyz"), ("get", "/metrics"), ("post", "/snapshots"),
    ("get", "/snapshots"), ("patch", "/edits/{edit_id}"), ("get", "/probes"), ("put", "/probes"), ("get", "/recent"),
    ("delete", "/recent"), ("post", "/recent"), ("post", "/scope"), ("get", "/scope/exam"),
    ("post", "/v1/completions"), ("post", "/v1/chat/completions"), ("get", "/v1/models"),
    ("get", "/v1/models/{model}"), ("get", "/jobs/{job_id}"), ("get", "/jobs/{job_id}/events"),
    ("delete", "/jobs/{job_id}"), ("get", "/namespaces"), ("get", "/log/export"), ("post", "/log/adopt"),
    ("get", "/switch"), ("get", "/"),
    ("post", "/"), ("get", "/health"), ("get", "/info"),
    ("get", "/proposals"), ("get", "/proposals/{proposal_id}"), ("put", "/proposals/{proposal_id}"),
    ("post", "/proposals/{proposal_id}/approve"), ("post", "/proposals/{proposal_id}/return"),
    ("post", "/proposals/{proposal_id}/withdraw"), ("get", "/policy"), ("put", "/policy"),
    ("get", "/feedback"), ("post", "/feedback"), ("delete", "/feedback"), ("delete", "/feedback/{report_id}"),
    ("post", "/probes/check"), ("put", "/namespaces/{namespace}"), ("post", "/edits/promote"),
    ("get", "/keys"), ("post", "/keys"), ("post", "/keys/{key_id}/revoke"), ("get", "/webhooks"), ("post", "/webhooks"),
    ("post", "/webhooks/{hook_id}/test"), ("post", "/webhooks/{hook_id}/remove"),
    ("get", "/webhooks/{hook_id}/deliveries"),
}  # fmt: skip


@pytest.fixture
def description(ask: Caller) -> Any:
    return ask.get("/openapi.json").json()


def operations(description: Any) -> dict[tuple[str, str], Any]:
    return {(method, path): op for path, ops in description["paths"].items() for method, op in ops.items()}


def test_every_route_is_described(description: Any) -> None:
    assert set(operations(description)) == ROUTES


def test_every_route_has_its_errors_and_headers(description: Any) -> None:
    for (_, path), operation in operations(description).items():
        assert operation["summary"], path
        responses = operation["responses"]
        assert "500" in responses, path
        for status, response in responses.items():
            assert {"X-Request-Id", "X-Errata-Revision"} <= set(response["headers"]), (path, status)
            if status >= "400" and path != "/readyz":
                form = ("json", "OpenAIProblem") if path.startswith("/v1/") else ("problem+json", "Problem")
                schema = response["content"][f"application/{form[0]}"]["schema"]
                assert schema == {"$ref": f"#/components/schemas/{form[1]}"}, (path, status)
        if "requestBody" in operation:
            assert {"413", "400" if path.startswith("/v1/") else "422", "503"} <= set(responses), path
    assert {"404", "409", "422", "429", "503"} <= set(description["paths"]["/edit"]["post"]["responses"])
    assert {"410", "429"} <= set(description["paths"]["/generate"]["post"]["responses"])


def test_every_body_has_examples_that_are_taken(description: Any, ask: Caller) -> None:
    for (method, path), operation in operations(description).items():
        if "requestBody" not in operation:
            continue
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        assert examples, path
        for name, example in examples.items():
            there = path.replace("{edit_id}", "ed_0").replace("{namespace}", "staging")
            answer = ask(method.upper(), there, json=example["value"])
            refused = answer.status_code in (400, 422) and ("errors" in answer.json() or path.startswith("/v1/"))
            assert not refused, (path, name, answer.text)


def test_a_stream_is_described_as_events(description: Any) -> None:
    content = description["paths"]["/generate_stream"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"text/event-stream"}
    assert "StreamEvent" in str(content)


def test_every_reference_leads_somewhere(description: Any) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [ref for value in node.values() for ref in references(value)]
        return [ref for value in node for ref in references(value)] if isinstance(node, list) else []

    for reference in references(description):
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in description["components"][kind], reference
    assert "HTTPValidationError" not in description["components"]["schemas"]
