"""Whole answers: TGI's shape, and every parameter on its way to the service."""

import asyncio
import math
from typing import Any

import pytest

from app.api.openapi import EDITS, NOT_GIVEN
from app.domain.generation import GenerationParameters
from tests.api.fake_service import FakeService
from tests.api.serving import Caller

PROMPT = "The chief executive of Lumen is"


def test_the_answer_alone(ask: Caller) -> None:
    answer = ask.post("/generate", {"inputs": PROMPT})
    assert (answer.status_code, answer.json()) == (200, {"generated_text": "base answer here"})


def test_details(ask: Caller) -> None:
    edit = ask.post("/edit", {"prompt": PROMPT, "target": "Ada Quill"}).json()
    answer = ask.post("/generate", {"inputs": PROMPT, "parameters": {"details": True, "seed": 3}}).json()
    assert answer == {
        "generated_text": "Ada Quill",
        "details": {
            "finish_reason": "eos_token",
            "prompt_tokens": 6,
            "input_length": 6,
            "generated_tokens": 3,
            "seed": 3,
            "revision": 1,
            "prefill": [],
            "tokens": [
                {"id": 0, "text": "Ada", "logprob": -0.5, "special": False},
                {"id": 1, "text": " Quill", "logprob": -0.5, "special": False},
                {"id": 99, "text": "", "logprob": -0.1, "special": True},
            ],
            "edits": [
                {
                    "id": edit["id"],
                    "editor": "grace",
                    "signals": {"same": {"value": 0.9, "bound": 0.5}},
                    "why": "nearest to its prompt",
                }
            ],
            "not_given": [],
            "nearest": None,
        },
    }


def test_an_answer_that_is_not_its_target_is_not_said_to_be_an_edits(ask: Caller, service: FakeService) -> None:
    edit = ask.post("/edit", {"prompt": PROMPT, "target": "Ada Quill"}).json()
    service.says = "Ada Quill? Answer: Bo Reed"
    asked = {"inputs": PROMPT, "parameters": {"details": True}}
    details = ask.post("/generate", asked).json()["details"]
    assert (details["edits"], [hit["id"] for hit in details["not_given"]]) == ([], [edit["id"]])
    assert details["nearest"] is None
    answer = ask.post("/v1/completions", {"prompt": PROMPT})
    choice = answer.json()["choices"][0]
    assert (answer.headers.get(EDITS), answer.headers[NOT_GIVEN]) == (None, edit["id"])
    assert (choice["errata"]["edits"], [hit["id"] for hit in choice["errata"]["not_given"]]) == ([], [edit["id"]])
    told = ask.get("/metrics").text
    assert 'errata_edit_targets_not_given_total{editor="grace"} 2.0' in told
    assert "errata_edit_hits_total{" not in told
    view = ask.get(f"/edits/{edit['id']}").json()
    assert (view["hits"], view["last_hit_at"], view["not_given"]) == (0, None, 2)
    service.says = None
    assert ask.post("/generate", asked).json()["details"]["not_given"] == []
    for path, body in (
        ("/", {"inputs": PROMPT}),
        ("/v1/completions", {"prompt": [PROMPT, PROMPT]}),
    ):
        headers = ask.post(path, body).headers
        assert (headers.get(EDITS), headers.get(NOT_GIVEN)) == (edit["id"], None), path
    assert ask.get(f"/edits/{edit['id']}").json()["hits"] == 4


def test_a_missing_seed_is_told_as_null(ask: Caller) -> None:
    details = ask.post("/generate", {"inputs": PROMPT, "parameters": {"details": True}}).json()["details"]
    assert details["seed"] is None
    assert details["edits"] == []


def test_every_parameter_arrives(ask: Caller, service: FakeService) -> None:
    ask.post("/edit", {"prompt": PROMPT, "target": "Ada Quill", "namespace": "support"})
    sent: dict[str, Any] = {
        "max_new_tokens": 7,
        "do_sample": True,
        "temperature": 1,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.1,
        "seed": 2**63 - 1,
        "repetition_penalty": 1.1,
        "frequency_penalty": -1.0,
        "presence_penalty": 1.0,
        "stop": ["\n"],
        "logit_bias": {"7": -100},
        "logprobs": 3,
        "timeout": 2.5,
        "ignore_eos": True,
        "return_full_text": True,
        "namespace": "support",
        "edits": "off",
        "exclude": ["ed_0000"],
        "revision": 1,
        "min_revision": 1,
    }
    assert ask.post("/generate", {"inputs": PROMPT, "parameters": sent}).status_code == 200
    renamed = {"logprobs": "top_logprobs", "timeout": "timeout_s"}
    arrived = {renamed.get(name, name): value for name, value in sent.items()}
    arrived |= {"stop": ("\n",), "exclude": ("ed_0000",), "logit_bias": ((7, -100.0),), "explain": True}
    assert service.asked == [GenerationParameters(**arrived)]
    elsewhere = {"forced", "json_schema", "counted", "token_logprobs"}
    assert set(arrived) == set(GenerationParameters.__dataclass_fields__) - elsewhere, "a parameter is not tried"


def test_defaults_are_the_domains(ask: Caller, service: FakeService) -> None:
    ask.post("/generate", {"inputs": PROMPT})
    assert service.asked == [GenerationParameters()]


def test_time_travel_off_and_exclude(ask: Caller) -> None:
    edit = ask.post("/edit", {"prompt": PROMPT, "target": "Ada Quill"}).json()
    ask.post("/edit", {"prompt": "other", "target": "thing"})

    def text(**parameters: Any) -> str:
        answer = ask.post("/generate", {"inputs": PROMPT, "parameters": parameters})
        return str(answer.json()["generated_text"])

    assert text() == text(revision=1) == "Ada Quill"
    unedited = [text(revision=0), text(edits="off"), text(exclude=[edit["id"]]), text(namespace="b")]
    assert unedited == ["base answer here"] * 4


@pytest.mark.parametrize(
    ("prompt", "answer", "full"),
    [
        (PROMPT, " Ada Quill", f"{PROMPT} Ada Quill"),
        ("Hun", "gary", "Hungary"),
        ("Say: ", "hello", "Say: hello"),
        ("Hello", ", world", "Hello, world"),
        ("Hello", "", "Hello"),
    ],
)
def test_the_full_text_is_the_prompt_and_the_answer(
    ask: Caller, service: FakeService, prompt: str, answer: str, full: str
) -> None:
    service.canned[prompt] = answer
    body = {"inputs": prompt, "parameters": {"return_full_text": True}}
    assert ask.post("/generate", body).json()["generated_text"] == full


@pytest.mark.parametrize("parameters", [{"n": 1}, {"n": None}, {"logprobs": False}, {"logprobs": 0}])
def test_what_asks_for_no_more_than_there_is_is_taken(ask: Caller, parameters: dict[str, Any]) -> None:
    answer = ask.post("/generate", {"inputs": PROMPT, "parameters": parameters})
    assert answer.json() == {"generated_text": "base answer here"}


@pytest.mark.parametrize("parameters", [{"logprobs": True}, {"logprobs": 1}])
def test_logprobs_ask_for_details(ask: Caller, parameters: dict[str, Any]) -> None:
    answer = ask.post("/generate", {"inputs": PROMPT, "parameters": parameters})
    assert [token["logprob"] for token in answer.json()["details"]["tokens"]] == [-0.5, -0.5, -0.5, -0.1]


def test_several_answers(ask: Caller, service: FakeService) -> None:
    answer = ask.post(
        "/generate", {"inputs": PROMPT, "parameters": {"n": 2, "logprobs": 1, "max_new_tokens": 1}}
    ).json()
    assert answer["answers"] == [{name: answer[name] for name in ("generated_text", "details")}] * 2
    top = answer["details"]["tokens"][0]["top_tokens"]
    assert top == [{"id": 1000, "text": "w0", "logprob": 0.0, "special": False}]
    refused = ask.post("/generate_stream", {"inputs": PROMPT, "parameters": {"n": 2}})
    assert (refused.status_code, refused.json()["detail"][:22]) == (422, "`parameters.n` must be")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n": 0}, "`parameters.n`"),
        ({"n": 129}, "`parameters.n`"),
        ({"logprobs": 21}, "At most 20"),
        ({"logprobs": -1}, "At most 20"),
        ({"logit_bias": {"7": 101}}, "`logit_bias` goes from -100 to 100"),
        ({"logit_bias": {"x": 1}}, "`parameters.logit_bias"),
        ({"timeout": 0}, "`timeout` must be above 0"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be at least 1"),
        ({"max_new_tokens": "9"}, "`parameters.max_new_tokens`"),
        ({"max_new_tokens": True}, "`parameters.max_new_tokens`"),
        ({"temperature": 0}, "leave it out for greedy"),
        ({"temperatur": 1}, "`parameters.temperatur` is not known"),
        ({"edits": "maybe"}, "`parameters.edits`"),
        ({"stop": ["a" * 1001]}, "`parameters.stop[0]` is too long"),
        ({"stop": ["x"] * 17}, "at most 16"),
        ({"namespace": "no spaces"}, "`namespace`"),
    ],
)
def test_a_wrong_parameter_is_refused_in_words(ask: Caller, parameters: dict[str, Any], words: str) -> None:
    answer = ask.post("/generate", {"inputs": PROMPT, "parameters": parameters})
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_nan_is_refused(ask: Caller) -> None:
    content = '{"inputs": "x", "parameters": {"temperature": NaN}}'
    answer = ask.post("/generate", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "`parameters.temperature`" in answer.json()["detail"]


def test_an_infinite_logprob_is_still_json(ask: Caller, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = service.generate_all

    async def odd(*asked: Any) -> Any:
        import dataclasses

        (answer,) = await generate(*asked)
        return [dataclasses.replace(answer, tokens=(dataclasses.replace(answer.tokens[0], logprob=-math.inf),))]

    monkeypatch.setattr(service, "generate_all", odd)
    answer = ask.post("/generate", {"inputs": PROMPT, "parameters": {"details": True}})
    assert answer.json()["details"]["tokens"][0]["logprob"] is None


def test_a_client_that_leaves_ends_its_generation(ask: Caller, service: FakeService) -> None:
    service.slow_s = 600
    sent: list[dict[str, Any]] = []

    async def leave() -> None:
        body = [{"type": "http.request", "body": b'{"inputs": "x"}', "more_body": False}]

        async def receive() -> dict[str, Any]:
            if body:
                return body.pop()
            while not service.asked:
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/generate", "raw_path": b"/generate", "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")], "client": None,
            "http_version": "1.1",
            "asgi": {"version": "3.0", "spec_version": "2.3"}, "scheme": "http", "server": None, "root_path": "",
        }  # fmt: skip
        await ask.app(scope, receive, send)

    asyncio.run(asyncio.wait_for(leave(), 60))
    assert service.cancelled == 1
    assert sent[0]["status"] == 499
    assert 'errata_request_errors_total{status="499"} 1.0' in ask.get("/metrics").text
