"""The way in: `/`, the API's own pages, HEAD, other origins' pages, compressed bodies, wrong turns."""

import gzip
import json
import re
from typing import Any

import httpx
import pytest

from tests.api.fake_service import FakeService
from tests.api.serving import MAX_BODY_BYTES, Caller

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_browser_is_led_to_a_page_and_a_program_is_greeted(ask: Caller) -> None:
    led = ask.get("/", headers=BROWSER)
    assert led.status_code == 307
    assert ask.get(f"/{led.headers['location']}").headers["content-type"].startswith("text/html")
    greeting = ask.get("/", headers={"Accept": "application/json"}).json()
    assert (greeting["name"], greeting["model"]) == ("errata", "fake")
    assert ask.get(greeting["openapi"]).status_code == ask.get(greeting["docs"]).status_code == 200


def test_the_page_of_the_api_needs_nothing_from_elsewhere(ask: Caller) -> None:
    page = ask.get("/docs").text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(addresses) == 3
    for address in [*addresses, *re.findall(r"url: '([^']+)'", page)]:
        assert not address.startswith(("http", "//", "/")), address
        assert ask.get(f"/{address}").status_code == 200, address
    assert len(ask.get("/docs/swagger-ui-bundle.js").content) > 1_000_000
    assert "SwaggerUI" in ask.get("/docs/swagger-ui-bundle.js").text


def test_nothing_but_the_pages_files_is_shown(ask: Caller) -> None:
    for path in ("/docs/", "/docs/nothing.js", "/docs/../errors.py", "/docs/%2e%2e/errors.py"):
        assert ask.get(path).status_code == 404, path


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/edits", "/log", "/v1/models", "/docs"])
def test_head_is_get_without_a_body(live: httpx.Client, path: str) -> None:
    head, got = live.head(path), live.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert {"x-request-id", "x-errata-revision"} <= set(head.headers)
    assert live.get(path).status_code == 200, "the connection still serves"


def test_head_of_a_stream_ends(live: httpx.Client, service: FakeService) -> None:
    service.slow_s = 600
    job = live.post("/edit", json={"prompt": "p", "target": "t"}, headers={"Prefer": "respond-async"}).json()
    assert live.head(f"/jobs/{job['id']}/events").status_code == 200
    live.delete(f"/jobs/{job['id']}")


def test_head_finds_no_more_than_get(ask: Caller) -> None:
    assert (ask("HEAD", "/edits/ed_0").status_code, ask("HEAD", "/edit").status_code) == (404, 405)


# -- pages of other origins


PREFLIGHT = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}


def test_pages_of_other_origins_are_refused_unless_a_setting_lets_them_in(service: FakeService) -> None:
    closed, opened = Caller(service), Caller(service, cors_origins=["https://app.example"])
    assert "access-control-allow-origin" not in closed("OPTIONS", "/generate", headers=PREFLIGHT).headers
    preflight = opened("OPTIONS", "/generate", headers=PREFLIGHT)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    other = opened("OPTIONS", "/generate", headers=PREFLIGHT | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    answer = opened.post("/generate", {"inputs": "x"}, headers={"Origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"X-Errata-Revision", "X-Errata-Edits", "ETag"} <= set(exposed), "a page needs the ETag to send If-Match"


def test_a_page_is_shown_errors_too(service: FakeService) -> None:
    opened = Caller(service, cors_origins=["https://app.example"])
    origin = {"Origin": "https://app.example"}
    for answer in (
        opened.post("/generate", {"inputs": "x" * MAX_BODY_BYTES}, headers=origin),
        opened.get("/nowhere", headers=origin),
        opened.post("/generate", {"inputs": 1}, headers=origin),
    ):
        assert answer.status_code >= 400
        assert answer.headers["access-control-allow-origin"] == "https://app.example"


# -- compressed bodies


@pytest.mark.parametrize(("path", "form"), [("/generate", "detail"), ("/v1/completions", "error")])
def test_a_compressed_body_is_refused_by_name(ask: Caller, path: str, form: str) -> None:
    body = gzip.compress(json.dumps({"inputs": "x", "prompt": "x"}).encode())
    answer = ask.post(path, content=body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
    assert answer.status_code == 415
    assert "'gzip' are not taken" in str(answer.json()[form])
    assert ask.post("/generate", {"inputs": "x"}, headers={"Content-Encoding": "identity"}).status_code == 200


# -- wrong turns


WRONG_TURNS = [
    ("DELETE", "/edits/ed_0", 405, "POST /edits/{id}/rollback"),
    ("POST", "/edits", 405, "POST /edit."),
    ("GET", "/edit", 405, "GET /edits"),
    ("DELETE", "/edits", 405, "POST /rollback"),
    ("PUT", "/edits/ed_0", 405, "PATCH /edits/{id}"),
    ("POST", "/edits/ed_0/revert", 404, "POST /edits/{id}/rollback"),
    ("POST", "/edits/", 404, "POST /edit."),
    ("GET", "/generate", 405, "by POST"),
    ("POST", "/chat/completions", 404, "/v1/chat/completions"),
    ("POST", "/generate_steam", 404, "Did you mean /generate_stream?"),
    ("GET", "/heathz", 404, "Did you mean /healthz?"),
]


def test_a_wrong_turn_names_the_right_one(ask: Caller) -> None:
    for method, path, status, told in WRONG_TURNS:
        answer = ask(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path
        assert told in answer.json()["detail"], path


def test_no_way_is_made_up(ask: Caller) -> None:
    assert ask.get("/nowhere").json()["detail"] == "There is nothing at this path: /docs lists every route."


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/generate", {"inputs": "x", "parameters": {"max_new_token": 3}}, "did you mean `max_new_tokens`?"),
        (
            "/generate",
            {"inputs": "x", "max_new_tokens": 3},
            "`max_new_tokens` is not known here: it belongs inside `par",
        ),
        ("/generate", {"input": "x"}, "did you mean `inputs`?"),
        ("/edit", {"prompt": "p", "targt": "t"}, "did you mean `target`?"),
        (
            "/edit",
            {"edits": [{"prompt": "p", "target": "t", "counterexamples": []}]},
            "did you mean `counter_examples`?",
        ),
        ("/edit", {"edits": [], "atomik": True}, "did you mean `atomic`?"),
        ("/v1/chat/completions", {"messages": [], "temprature": 1}, "did you mean `temperature`?"),
        (
            "/v1/completions",
            {"prompt": "x", "stream_options": {"include_usages": True}},
            "did you mean `include_usage`?",
        ),
        ("/switch", {"onn": True}, "did you mean `on`?"),
        ("/generate", {"inputs": "x", "zzz": 1}, "remove it, or look for its spelling in /docs."),
    ],
)
def test_a_misspelt_field_is_told_its_spelling(ask: Caller, path: str, body: dict[str, Any], told: str) -> None:
    answer = ask.post(path, body).json()
    assert told in (answer["error"]["message"] if path.startswith("/v1") else answer["detail"])


# -- the words of the validator stay inside


INNER = re.compile(
    r"list\[|constrained|TextPart|Message|\bstr\b|\bint\b|\bbool\b|function|tagged|union|instance of|valid dict"
)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        ("/v1/chat/completions", {"messages": ["x"]}, "messages[0]"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stop": {"a": 1}}, "stop"),
        ("/v1/completions", {"prompt": {"a": 1}}, "prompt"),
        ("/v1/completions", {"prompt": ["x", 5]}, "prompt[1]"),
        ("/v1/completions", {"prompt": "x", "stream_options": 5}, "stream_options"),
        ("/generate", {"inputs": "x", "parameters": 5}, "parameters"),
        ("/generate", {"inputs": "x", "parameters": {"logprobs": {"a": 1}}}, "parameters.logprobs"),
        ("/generate", {"inputs": "x", "parameters": {"logit_bias": {"a": 1}}}, "parameters.logit_bias.a"),
        ("/edit", {"prompt": 5, "target": "t"}, "prompt"),
        ("/edit", {"edits": ["x"]}, "edits[0]"),
        ("/edit", {"messages": [5], "target": "t"}, "messages[0]"),
    ],
)
def test_a_wrong_body_is_told_in_the_clients_words(ask: Caller, path: str, body: dict[str, Any], field: str) -> None:
    answer = ask.post(path, body).json()
    if path.startswith("/v1"):
        assert answer["error"]["param"] == field
        words = answer["error"]["message"]
    else:
        assert next(each["field"] for each in answer["errors"]) == field
        words = answer["detail"]
    assert f"`{field}`" in words
    assert not INNER.search(words), words
