"""Whatever asks for the default is taken, from whichever client; what is not offered is refused by its name."""

from typing import Any

import pytest

from app.api.schemas.defaults import RequestDefaults
from app.api.schemas.generate import GenerateBody, Parameters
from app.api.schemas.openai import ChatBody, CompletionBody, StreamOptions
from app.domain.generation import GenerationParameters
from tests.api.fake_service import FakeService
from tests.api.serving import Caller

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "temperature": 0, "max_tokens": 4}
COMPLETION: dict[str, Any] = {"prompt": "x", "temperature": 0}
OF_CHATS: list[dict[str, Any]] = [
    {"response_format": {"type": "text"}},
    {"tools": []},
    {"tools": None, "tool_choice": "none"},
    {"parallel_tool_calls": False},
    {"functions": [], "function_call": "none"},
    {"modalities": ["text"], "audio": None},
    {"top_logprobs": 0},
    {"seed": -(2**63)},
    {"seed": 2**63 - 1, "top_k": -1},
    {"top_k": 0},
    {"top_p": 0},
    {"top_p": 1, "n": 1},
    {"logit_bias": {}, "stop": []},
    {"stream_options": {"include_usage": None}},
    {"model": "tgi"},
    {"model": "dummy"},
]
OF_TGI: list[dict[str, Any]] = [
    {"best_of": 1},
    {"watermark": False},
    {"decoder_input_details": False},
    {"typical_p": 1.0},
    {"top_n_tokens": 0},
    {"seed": -1, "top_k": 0},
    {"top_p": 0, "top_k": -1},
]


@pytest.mark.parametrize("more", OF_CHATS)
def test_a_chat_that_asks_for_defaults_is_taken(ask: Caller, more: dict[str, Any]) -> None:
    answer = ask.post("/v1/chat/completions", {**CHAT, **more})
    assert (answer.status_code, answer.json().get("choices", [{}])[0].get("finish_reason")) == (200, "stop"), (
        answer.text
    )


@pytest.mark.parametrize("more", OF_TGI)
def test_what_asks_tgi_for_defaults_is_taken(ask: Caller, more: dict[str, Any]) -> None:
    answer = ask.post("/generate", {"inputs": "x", "parameters": more})
    assert (answer.status_code, answer.json().get("generated_text")) == (200, "base answer here"), answer.text


def nulls(body: type[RequestDefaults]) -> dict[str, None]:
    return {name: None for name, field in body.model_fields.items() if not field.is_required()}


def test_null_stands_for_the_default_in_every_field(ask: Caller, service: FakeService) -> None:
    """The clients' own types allow these values, and none of them may change the question."""
    for path, body, kind in (
        ("/v1/completions", {"prompt": "x"}, CompletionBody),
        ("/v1/chat/completions", {"messages": CHAT["messages"]}, ChatBody),
        ("/v1/completions", {"prompt": "x", "stream": True, "stream_options": nulls(StreamOptions)}, CompletionBody),
        ("/generate", {"inputs": "x"}, GenerateBody),
        ("/generate", {"inputs": "x", "parameters": nulls(Parameters)}, GenerateBody),
    ):
        service.asked.clear()
        plain = {name: value for name, value in body.items() if name not in ("stream_options", "parameters")}
        for sent in (plain, {**nulls(kind), **body}):
            assert ask.post(path, sent).status_code == 200, (path, ask.post(path, sent).text)
        assert len(set(service.asked)) == 1, "the same is asked"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/chat/completions", {**CHAT, "tools": [{"type": "function"}]}, "`tools` is not offered here"),
        ("/v1/chat/completions", {**CHAT, "tool_choice": "required"}, "`tool_choice` is not offered here"),
        ("/v1/chat/completions", {**CHAT, "modalities": ["audio"]}, "`modalities` is not offered here"),
        ("/v1/chat/completions", {**CHAT, "seed": 2**63}, "`seed` must be an integer of 64 signed bits"),
        ("/v1/chat/completions", {**CHAT, "top_k": -2}, "`top_k` must be at least 1"),
        ("/v1/chat/completions", {**CHAT, "top_p": 1.5}, "`top_p` must be from 0 to 1"),
        ("/v1/completions", {**COMPLETION, "suffix": "y"}, "`suffix` is not offered here"),
        ("/generate", {"inputs": "x", "parameters": {"best_of": 2}}, "`parameters.best_of` is not offered here"),
        ("/generate", {"inputs": "x", "parameters": {"best_of": True}}, "`parameters.best_of` is not offered here"),
        ("/generate", {"inputs": "x", "parameters": {"watermark": True}}, "`parameters.watermark` is not offered"),
        ("/generate", {"inputs": "x", "parameters": {"decoder_input_details": True}}, "is not offered here"),
        ("/generate", {"inputs": "x", "parameters": {"truncate": 5}}, "`parameters.truncate` is not offered here"),
        ("/generate", {"inputs": None}, "`inputs`"),
        ("/generate", {"inputs": "x", "parameter": None}, "`parameter` is not known here"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(ask: Caller, path: str, body: dict[str, Any], words: str) -> None:
    answer = ask.post(path, body)
    assert answer.status_code in (400, 422)
    assert words in answer.text


def test_the_description_says_where_null_is_taken() -> None:
    found = GenerateBody.model_json_schema()
    parameters = found["$defs"]["Parameters"]["properties"]
    for name, each in parameters.items():
        assert {"type": "null"} in each.get("anyOf", ()) or None in each.get("enum", ()), name
    assert "anyOf" not in found["properties"]["inputs"]


def test_top_k_of_all_tokens_samples_as_none_does() -> None:
    import torch

    from app.engine.sampler import Sampler

    logits = torch.arange(20) / 10

    def drawn(top_k: int | None) -> list[int]:
        sampler = Sampler(GenerationParameters(temperature=1.0, top_k=top_k, seed=0))
        return [sampler.choose(logits, [0], []) for _ in range(200)]

    assert min(drawn(None)) < 5, "of all tokens"
    assert drawn(0) == drawn(-1) == drawn(None)
    assert set(drawn(5)) == set(range(15, 20))


# -- the last message gone on with

LAST = [{"role": "user", "content": "Who leads Lumen?"}, {"role": "assistant", "content": "Ada"}]


@pytest.mark.parametrize("how", [{"continue_final_message": True}, {"add_generation_prompt": False}])
def test_the_assistants_last_message_is_gone_on_with(ask: Caller, service: FakeService, how: dict[str, bool]) -> None:
    service.canned["<user> Who leads Lumen?\n<assistant> Ada"] = " Quill"
    answer = ask.post("/v1/chat/completions", {"messages": LAST, "temperature": 0, **how})
    assert answer.json()["choices"][0]["message"]["content"] == " Quill"


def test_only_the_assistants_message_is_gone_on_with(ask: Caller) -> None:
    answer = ask.post("/v1/chat/completions", {"messages": LAST[:1], "continue_final_message": True})
    assert (answer.status_code, "`continue_final_message`" in answer.text) == (400, True)


# -- TGI's other routes


def test_a_stream_is_asked_for_in_the_body_too(ask: Caller) -> None:
    body = {"inputs": "x", "parameters": {"max_new_tokens": 2}}
    streamed = ask.post("/generate_stream", body)
    for path in ("/generate", "/"):
        answer = ask.post(path, {**body, "stream": True})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text == streamed.text
    refused = ask.post("/generate", {"inputs": "x", "parameters": {"n": 2}, "stream": True})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")


def test_tgis_own_address_answers_with_a_list(ask: Caller) -> None:
    assert ask.post("/", {"inputs": "x"}).json() == [{"generated_text": "base answer here"}]
    details = ask.post("/", {"inputs": "x", "parameters": {"details": True}}).json()[0]["details"]
    assert (details["finish_reason"], details["input_length"]) == ("eos_token", 1)


def test_top_tokens_stand_beside_the_tokens(ask: Caller) -> None:
    body = {"inputs": "x", "parameters": {"top_n_tokens": 2, "details": True, "max_new_tokens": 2}}
    found = ask.post("/generate", body).json()["details"]
    assert [[each["text"] for each in place] for place in found["top_tokens"]] == [["w0", "w1"]] * 2


def test_health_and_info(ask: Caller, service: FakeService) -> None:
    assert (ask.get("/health").status_code, ask.get("/health").content) == (200, b"")
    info = ask.get("/info").json()
    assert (info["model_id"], info["max_total_tokens"], info["max_input_tokens"]) == ("fake", 100, 99)
    service.why_not = "starting"
    assert ask.get("/health").status_code == 503


@pytest.mark.parametrize("name", ["tgi", "dummy"])
def test_the_names_of_an_unnamed_model_are_not_listed_as_models(ask: Caller, name: str) -> None:
    found = ask.get(f"/v1/models/{name}")
    assert (found.status_code, found.json()["error"]["code"]) == (404, "model_not_found")
