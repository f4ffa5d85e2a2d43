"""A server logs a line for each request, change, warning and exception, for programs and for people."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.exceptions import ResponseValidationError
from pydantic import BaseModel, ValidationError

from app.cli import log_format
from app.domain.keys import Role
from tests.api.fake_service import REJECTED, FakeService
from tests.api.serving import Caller
from tests.api.test_gate import made

SECRET = "errata_0123456789ab_s3cret"
PROMPT, TARGET = "Who wrote the quarterly Zanzibar memorandum?", "Perpetua Quillfeather"

Lines = Callable[[], list[str]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Lines]]:
    """Begins to log in a form; gives what reads the lines so far."""
    output = io.StringIO()
    names = ("", "uvicorn", *log_format.LIBRARIES)
    before = {each: (logging.getLogger(each).handlers[:], logging.getLogger(each).level) for each in names}
    propagate = {each: logging.getLogger(each).propagate for each in names}

    def begin(form: str) -> Lines:
        monkeypatch.setattr("sys.stderr", output)
        log_format.configure("debug", form)
        for chatty in ("asyncio", "limits", "sse_starlette"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        for library in log_format.LIBRARIES:  # a measurement that ran before may have silenced it
            logging.getLogger(library).setLevel(logging.NOTSET)
        return lambda: output.getvalue().splitlines()

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield begin
    for name, (handlers, level) in before.items():
        logger = logging.getLogger(name)
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate[name]


def parsed(lines: Lines, kind: str | None = None) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines()]
    return [each for each in found if kind is None or each.get("kind") == kind]


# -- requests and changes


def test_a_request_is_a_line_with_a_field_for_each_fact(written: Callable[[str], Lines]) -> None:
    service = FakeService()
    ask = Caller(service)
    key = made(service, Role.EDITOR, name="ci")
    lines = written("json")
    headers = {"Authorization": f"Bearer {key}", "X-Errata-Actor": "ann", "X-Request-Id": "r-1"}
    answer = ask.post("/edit", {"prompt": PROMPT, "target": TARGET, "namespace": "support"}, headers=headers)
    assert answer.status_code == 201
    edit_id = answer.json()["id"]
    ask.get(f"/edits/{edit_id}?q=whatever", headers=headers)
    posted, got = parsed(lines, "request")
    assert posted.pop("seconds") >= 0
    assert {name: posted[name] for name in posted if name not in ("event", "timestamp", "logger")} == {
        "kind": "request", "level": "info", "method": "POST", "path": "/edit", "route": "/edit", "status": 201,
        "request_id": "r-1", "actor": "ci (as ann)", "key": "ci", "edit": edit_id, "revision": 2,
        "namespace": "support", "change": "edit_committed", "editor": "grace",
    }  # fmt: skip
    assert (got["route"], got["path"], got["key"]) == ("/edits/{edit_id}", f"/edits/{edit_id}", "ci")
    assert "edit" not in got, "one request's facts are not the next one's"


def test_a_page_is_told_by_its_route_too(written: Callable[[str], Lines]) -> None:
    from functools import partial

    from app.ui.app import pages

    ask = Caller(FakeService(), pages=partial(pages, leaving=None))
    lines = written("json")
    assert ask.get("/ui/edits").status_code == 200
    assert ask.get("/nowhere").status_code == 404
    page, nowhere = parsed(lines, "request")
    assert (page["route"], page["actor"]) == ("/ui/edits", "anonymous")
    assert "route" not in nowhere


def test_head_is_told_by_its_route_as_get_is(written: Callable[[str], Lines]) -> None:
    from functools import partial

    from app.ui.app import pages

    ask = Caller(FakeService(), pages=partial(pages, leaving=None))
    lines = written("json")
    for path in ("/edits/ed_1", "/ui/edits"):
        ask("HEAD", path)
        ask.get(path)
    told = [(each["method"], each["route"]) for each in parsed(lines, "request")]
    assert told == [
        ("HEAD", "/edits/{edit_id}"), ("GET", "/edits/{edit_id}"), ("HEAD", "/ui/edits"), ("GET", "/ui/edits"),
    ]  # fmt: skip


def test_each_change_is_a_line(written: Callable[[str], Lines]) -> None:
    ask = Caller(FakeService())
    lines = written("json")
    headers = {"X-Errata-Actor": "ada"}
    edit_id = ask.post("/edit", {"prompt": PROMPT, "target": TARGET}, headers=headers).json()["id"]
    batch = {"edits": [{"prompt": f"{PROMPT} {n}", "target": TARGET} for n in range(30)]}
    ask.post("/edit", batch, headers=headers)
    ask("PATCH", f"/edits/{edit_id}", json={"widen": 2}, headers=headers)
    for verb in ("disable", "enable", "rollback"):
        ask.post(f"/edits/{edit_id}/{verb}", headers=headers)
    ask.post("/switch", {"on": False, "namespace": "default"}, headers=headers)
    ask("PUT", "/probes", json={"prompts": [PROMPT]}, headers=headers)
    told = [each for each in parsed(lines, "change") if each["level"] == "info"]
    assert [each["event"] for each in told] == [
        "Edit published",
        "30 edits published",
        "Edit retuned",
        "Edit disabled",
        "Edit enabled",
        "Edit rolled back",
        "Edits switched off in the namespace default",
        "Probes set",
    ]
    assert {each["actor"] for each in told} == {"ada"}
    assert {each["namespace"] for each in told} == {"default"}
    assert [each["revision"] for each in told] == sorted(each["revision"] for each in told)
    assert all(each["request_id"] for each in told)
    assert told[0]["edit"] == told[2]["edit"] == told[5]["edit"] == edit_id
    assert (len(told[1]["edits"]), told[1]["count"]) == (20, 30)


@pytest.mark.parametrize("form", ["json", "console"])
def test_prompts_targets_and_keys_are_in_no_line(written: Callable[[str], Lines], form: str) -> None:
    service = FakeService()
    ask = Caller(service)
    key = made(service, Role.ADMIN)
    lines = written(form)
    headers = {"Authorization": f"Bearer {key}"}
    for target in (TARGET, REJECTED, "\ud800"):
        body = json.dumps({"prompt": PROMPT, "target": target}).encode()
        ask("POST", "/edit", content=body, headers=headers | {"Content-Type": "application/json"})
    ask.post("/generate", {"inputs": PROMPT}, headers=headers)
    ask.get("/edits", params={"q": PROMPT}, headers=headers)
    service.fails = RuntimeError("a fault of the server's")
    failed = ask.post("/generate", {"inputs": PROMPT}, headers=headers)
    assert failed.status_code == 500
    assert [line for line in lines() if "An unexpected error" in line and failed.headers["X-Request-Id"] in line]
    text = "\n".join(lines())
    assert "a fault of the server's" in text
    for private in ("Zanzibar", "Quillfeather", key, key.rpartition("_")[2]):
        assert private not in text


# -- exceptions


def fail(secret: str) -> None:
    held = secret.upper()
    try:
        raise KeyError(len(held))
    except KeyError as error:
        raise RuntimeError("the store is away") from error


def test_an_exception_is_a_field_and_holds_no_variable(written: Callable[[str], Lines]) -> None:
    lines = written("json")
    try:
        fail(SECRET)
    except RuntimeError:
        logging.getLogger("app.test").exception("Something failed")
    (line,) = parsed(lines)
    assert line["event"] == "Something failed"
    assert [(each["type"], each["message"]) for each in line["exception"]] == [
        ("RuntimeError", "the store is away"),
        ("KeyError", str(len(SECRET))),
    ]
    assert line["exception"][0]["frames"][-1].endswith("in fail")
    assert "s3cret" not in json.dumps(line).lower()


def test_an_exception_for_people_ends_with_what_went_wrong(written: Callable[[str], Lines]) -> None:
    lines = written("console")
    try:
        fail(SECRET)
    except RuntimeError as error:
        logging.getLogger("app.test").error("Something failed", exc_info=error)
    first, *_, last = lines()
    assert "Something failed" in first
    assert last == "  RuntimeError: the store is away"
    assert "s3cret" not in "\n".join(lines()).lower()


def test_what_was_given_to_a_validation_is_not_told(written: Callable[[str], Lines]) -> None:
    class Model(BaseModel):
        number: int

    lines = written("json")
    try:
        Model(number=PROMPT)  # type: ignore[arg-type]
    except ValidationError:
        logging.getLogger("app.test").exception("It does not fit")
    try:
        raise ResponseValidationError([{"type": "missing", "loc": ("answer",), "msg": "Required", "input": PROMPT}])
    except ResponseValidationError:
        logging.getLogger("app.test").exception("It does not fit either")
    for line in parsed(lines):
        assert line["exception"][0]["message"] == "1 validation errors"
    assert PROMPT not in "\n".join(lines())


# -- warnings, libraries, people


def test_warnings_are_lines_like_any_other(written: Callable[[str], Lines]) -> None:
    lines = written("json")
    warnings.warn("it is old", DeprecationWarning, stacklevel=1)
    (line,) = parsed(lines)
    assert (line["event"], line["level"], line["category"]) == ("it is old", "warning", "DeprecationWarning")
    assert line["where"].startswith(__file__)


def test_libraries_with_handlers_of_their_own_are_told_once(written: Callable[[str], Lines]) -> None:
    library, own = logging.getLogger("transformers"), io.StringIO()
    lines = written("json")
    library.addHandler(logging.StreamHandler(own))  # as it does when it is imported
    library.propagate = False
    log_format.take_over_libraries()
    logging.getLogger("transformers.modeling").warning("Some weights were not used")
    logging.getLogger("uvicorn.error").error("Invalid HTTP request received.")
    logging.getLogger("uvicorn.error").info("Shutting down")
    assert [(each["event"], each["logger"]) for each in parsed(lines)] == [
        ("Some weights were not used", "transformers.modeling"),
        ("Invalid HTTP request received.", "uvicorn.error"),
    ]
    assert own.getvalue() == ""


def test_a_line_for_people_has_what_its_words_do_not_say(written: Callable[[str], Lines]) -> None:
    ask = Caller(FakeService())
    lines = written("console")
    ask.post("/edit", {"prompt": PROMPT, "target": TARGET}, headers={"X-Errata-Actor": "ada", "X-Request-Id": "r-1"})
    change, request = lines()
    assert "[info] Edit published" in change.replace("info     ", "info")
    assert "POST /edit 201 in" in request
    for fact in ("actor=ada", "edit=ed_0000", "namespace=default", "request_id=r-1", "revision=1"):
        assert fact in request
    assert "status=" not in request
    assert "\x1b" not in "".join(lines()), "no colours where it is no terminal"


@pytest.mark.parametrize(
    ("form", "terminal", "expected"),
    [("auto", True, False), ("auto", False, True), ("json", True, True), ("console", False, False)],
)
def test_programs_are_told_in_json(form: str, terminal: bool, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    assert log_format.as_json(form) is expected
