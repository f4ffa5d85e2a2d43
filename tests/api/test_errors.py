"""Every error has a status, a problem and the headers; what is the server's own fault is told without its inside."""

import logging
from typing import Any

import pytest

from app.api.errors import PREFIX, TABLE
from app.api.invalid import MOST
from app.domain import errors as domain
from tests.api.fake_service import FakeService
from tests.api.serving import MAX_BODY_BYTES, Caller

EXPECTED = {
    "InvalidRequest": 422,
    "UnknownEdit": 404,
    "UnknownJob": 404,
    "UnknownModel": 404,
    "UnsupportedModel": 422,
    "StateConflict": 409,
    "UnknownNamespace": 404,
    "UnknownProposal": 404,
    "UnknownAnswer": 404,
    "UnknownReport": 404,
    "UnknownWebhook": 404,
    "PreconditionFailed": 412,
    "ScopeConflict": 409,
    "IdempotencyMismatch": 422,
    "EditRejected": 422,
    "Unauthenticated": 401,
    "Forbidden": 403,
    "RateLimited": 429,
    "UnknownKey": 404,
    "RevisionGone": 410,
    "RevisionAhead": 503,
    "QueueFull": 429,
    "RequestCancelled": 503,
    "EngineAway": 503,
    "DeadlineExceeded": 504,
    "LostRace": 503,
    "StoreUnavailable": 503,
    "StoreCorrupt": 500,
    "IncompatibleEdit": 409,
    "ErrataError": 500,
}
BODY = {"inputs": "x"}


def tree(kind: type[domain.ErrataError]) -> set[str]:
    # by module: rooms below may have errors of their own, which take their base's row
    own = {kind.__name__} if kind.__module__ == domain.__name__ else set()
    return own.union(*(tree(each) for each in kind.__subclasses__()))


def test_every_domain_error_is_in_the_table() -> None:
    assert {kind.__name__ for kind in TABLE} == tree(domain.ErrataError) == set(EXPECTED)


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_a_domain_error_is_a_problem(ask: Caller, service: FakeService, kind: type[domain.ErrataError]) -> None:
    service.fails = kind("What is wrong.", conflicts=["ed_1"], status="not this", retry_after_s=2.4)
    answer = ask.post("/generate", BODY)
    status = EXPECTED[kind.__name__]
    body = answer.json()
    assert (answer.status_code, body["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(body) == {"type", "title", "status", "detail", "conflicts"}
    assert body["type"] == PREFIX + TABLE[kind][1]
    assert (body["detail"], body["conflicts"]) == ("What is wrong.", ["ed_1"])
    assert answer.headers.get("retry-after") == ("2" if status in (429, 503) else None)


def test_an_error_of_another_room_takes_its_bases_row(ask: Caller, service: FakeService) -> None:
    class Odd(domain.StoreUnavailable): ...

    service.fails = Odd("Away.")
    answer = ask.post("/generate", BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("path", ["/generate", "/edit", "/switch"])
def test_an_unexpected_error_is_logged_and_not_shown(
    ask: Caller, service: FakeService, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    bodies: dict[str, Any] = {"/generate": BODY, "/edit": {"prompt": "p", "target": "t"}, "/switch": {"on": False}}
    service.fails = RuntimeError("secret")
    with caplog.at_level(logging.ERROR):
        answer = ask.post(path, bodies[path], headers={"X-Request-Id": "r-9"})
    assert (answer.status_code, answer.json()["type"]) == (500, PREFIX + "server-error")
    assert "secret" not in answer.text
    assert "secret" in caplog.text
    assert answer.headers["x-request-id"] == "r-9"
    assert answer.headers["x-errata-revision"] == "0"


def test_no_such_path(ask: Caller) -> None:
    answer = ask.get("/generates")
    assert (answer.status_code, answer.json()["type"]) == (404, PREFIX + "not-found")
    assert "/docs" in answer.json()["detail"]
    assert ask.get("/edits/").status_code == 404


def test_no_such_method(ask: Caller) -> None:
    answer = ask.get("/generate")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["type"] == PREFIX + "method-not-allowed"


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", "application/json", "The body is missing"),
        (b"{", "application/json", "The body is not JSON"),
        (b'{"inputs": "x"}', "text/plain", "Content-Type: application/json"),
        (b"[]", "application/json", "must be a JSON object"),
    ],
)
def test_a_body_that_is_no_object(ask: Caller, content: bytes, kind: str, words: str) -> None:
    answer = ask.post("/generate", content=content, headers={"content-type": kind})
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("content", [b"\xff", b"[" * 90_000])
def test_a_body_that_cannot_be_read(ask: Caller, content: bytes) -> None:
    answer = ask.post("/generate", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_all_that_is_wrong_is_listed(ask: Caller) -> None:
    answer = ask.post("/generate", {"input": "x", "parameters": {"top_k": "5"}}).json()
    assert {(error["in"], error["field"]) for error in answer["errors"]} == {
        ("body", "inputs"), ("body", "input"), ("body", "parameters.top_k"),
    }  # fmt: skip
    assert answer["detail"] == " ".join(error["message"] for error in answer["errors"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"inputs": "x"}),
        ("/edit", {"edits": [{"prompt": "p", "target": "t"}]}),
        ("/v1/completions", {"prompt": "x"}),
    ],
)
@pytest.mark.parametrize(("unknown", "rest"), [(MOST, ""), (MOST + 1, "1 more problem."), (2_000, "1980 more problem")])
def test_of_many_problems_the_first_are_told_and_the_rest_counted(
    ask: Caller, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any], unknown: int, rest: str
) -> None:
    advised: list[str] = []
    monkeypatch.setattr("app.api.invalid.meant", lambda name, *_: advised.append(name))
    answer = ask.post(path, {**body, **{f"k{n}": n for n in range(unknown)}})
    told = answer.json()["error"]["message"] if path.startswith("/v1") else answer.json()["detail"]
    assert (answer.status_code, len(advised)) == (400 if path.startswith("/v1") else 422, MOST)
    assert told.count("is not known here") == MOST
    assert rest in told if rest else "more problem" not in told


def test_of_many_problems_of_one_edit_in_a_batch_the_rest_is_counted_too(ask: Caller) -> None:
    wrong = {"prompt": "p", "target": "t", **{f"k{n}": n for n in range(50)}}
    answer = ask.post("/edit", {"edits": [{"prompt": "q", "target": "t"}, wrong], "atomic": False}).json()
    problem = answer["failures"][0]["problem"]
    assert len(problem["errors"]) == MOST
    assert problem["detail"].endswith("And there are 30 more problems.")


def test_an_error_names_the_field_and_not_what_it_held(ask: Caller) -> None:
    answer = ask.post("/generate", {"inputs": ["secret"], "é<script>": 1})
    assert answer.status_code == 422
    assert "`é<script>` is not known" in answer.json()["detail"]
    assert answer.content.isascii()
    assert "secret" not in answer.text


@pytest.mark.parametrize("content", ['{"inputs": "\\ud800"}', '{"inputs": "x", "\\ud800": 1}'])
def test_half_of_a_surrogate_pair_is_refused(ask: Caller, content: str) -> None:
    answer = ask.post("/generate", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "surrogate" in answer.json()["detail"]


# -- headers


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/healthz"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nowhere"), ("POST", "/generate")],
)
def test_every_answer_has_its_headers(ask: Caller, method: str, path: str) -> None:
    ask.post("/edit", {"prompt": "p", "target": "t"})
    answer = ask(method, path)
    assert answer.headers["x-errata-revision"] == "1"
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2:3", True), ("a b", False), ("x" * 129, False), ("é", False)])
def test_a_request_id_is_kept_if_it_is_sane(ask: Caller, given: str, kept: bool) -> None:
    answer = ask.get("/healthz", headers={"X-Request-Id": given.encode()})
    assert (answer.headers["x-request-id"] == given) is kept


# -- the body's size


def test_a_body_that_says_it_is_too_large(ask: Caller, service: FakeService) -> None:
    answer = ask.post("/generate", {"inputs": "x" * MAX_BODY_BYTES})
    assert (answer.status_code, answer.json()["type"]) == (413, PREFIX + "content-too-large")
    assert str(MAX_BODY_BYTES) in answer.json()["detail"]
    assert answer.headers["x-errata-revision"] == "0"
    assert service.asked == []


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/edit", "/rollback"])
def test_a_chunked_body_that_grows_too_large(ask: Caller, path: str) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * (MAX_BODY_BYTES // 10)

    answer = ask.post(path, content=chunks(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (413, PREFIX + "content-too-large")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "x-request-id" in answer.headers


def test_a_body_of_just_the_limit(ask: Caller) -> None:
    body = b'{"inputs": "x"}'
    content = body + b" " * (MAX_BODY_BYTES - len(body))
    assert ask.post("/generate", content=content, headers={"content-type": "application/json"}).status_code == 200
