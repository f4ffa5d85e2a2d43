"""/v1 through OpenAI's own client, over a real socket."""

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from app.domain.errors import QueueFull, RequestCancelled, Unauthenticated
from app.domain.generation import GenerationParameters
from tests.api.fake_service import FakeService
from tests.api.serving import live_server
from tests.api.test_stream import until

pytestmark = pytest.mark.slow
PROMPT = "The chief executive of Lumen is"
ASKED: list[Any] = [{"role": "user", "content": PROMPT}]
RENDERED = f"<user> {PROMPT}\n<assistant>"


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    with live_server(service) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


# -- whole answers


def test_a_completion(client: OpenAI, service: FakeService) -> None:
    answer = client.completions.create(model="fake", prompt=PROMPT)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.index, choice.logprobs) == ("base answer here", "stop", 0, None)
    assert (answer.object, answer.model, answer.id[:5]) == ("text_completion", "fake", "cmpl-")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (6, 4, 10)
    # OpenAI's defaults, not ours
    assert service.asked == [
        GenerationParameters(max_new_tokens=16, do_sample=True, temperature=1.0, token_logprobs=False)
    ]


def test_every_parameter_arrives(client: OpenAI, service: FakeService) -> None:
    client.completions.create(
        model="fake", prompt="x", max_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=["a", "b"], logprobs=2,
        frequency_penalty=0.5, presence_penalty=-0.5, logit_bias={"5": -100}, user="someone",
        extra_body={"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.1, "timeout": 5, "ignore_eos": True,
                    "edits": "off", "revision": 0,
                    "min_revision": 0, "namespace": "support", "exclude": []},
    )  # fmt: skip
    assert service.asked == [
        GenerationParameters(
            max_new_tokens=7, do_sample=True, temperature=0.5, top_k=4, top_p=0.9, min_p=0.1, seed=3,
            repetition_penalty=1.1, frequency_penalty=0.5, presence_penalty=-0.5, stop=("a", "b"),
            logit_bias=((5, -100.0),), top_logprobs=2, timeout_s=5, ignore_eos=True, namespace="support",
            edits="off", revision=0,
            min_revision=0,
        )
    ]  # fmt: skip


def test_a_temperature_of_zero_is_greedy(client: OpenAI, service: FakeService) -> None:
    client.completions.create(model="fake", prompt="x", temperature=0, stop="a")
    assert service.asked == [GenerationParameters(max_new_tokens=16, stop=("a",), token_logprobs=False)]


def test_several_answers_to_several_prompts(client: OpenAI, service: FakeService) -> None:
    service.canned |= {"a": " one", "b": "two"}
    answer = client.completions.create(model="fake", prompt=["a", "b"], n=2, echo=True)
    assert [(each.index, each.text) for each in answer.choices] == [
        (0, "a one"),
        (1, "a one"),
        (2, "btwo"),
        (3, "btwo"),
    ]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 8)


def test_a_completions_logprobs(client: OpenAI) -> None:
    found = client.completions.create(model="fake", prompt="x", max_tokens=2, logprobs=1).choices[0].logprobs
    assert found is not None
    assert (found.tokens, found.token_logprobs) == (["base", " answer"], [-0.5, -0.5])
    assert found.top_logprobs == [{"w0": 0.0, "base": -0.5}, {"w0": 0.0, " answer": -0.5}]
    assert found.text_offset == [0, 4]


def test_a_chat(client: OpenAI, service: FakeService) -> None:
    service.canned[RENDERED] = "Ada Quill"
    answer = client.chat.completions.create(model="fake", messages=ASKED)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Ada Quill", "stop")
    assert (answer.object, answer.id[:9]) == ("chat.completion", "chatcmpl-")
    assert service.asked[0].max_new_tokens == 100 - len(RENDERED), "as many as there is room for"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_how_long_a_chats_answer_may_be(client: OpenAI, name: str) -> None:
    most: dict[str, Any] = {name: 2}
    answer = client.chat.completions.create(model="fake", messages=ASKED, **most)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("base answer", "length")


def test_a_conversation_in_parts(client: OpenAI, service: FakeService) -> None:
    prompt = "<system> be brief\n<user> one\ntwo\n<assistant> \n<user> three\n<assistant>"
    service.canned[prompt] = "found"
    messages: list[Any] = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "name": "Jo"},
        {"role": "assistant", "content": None, "refusal": None},
        {"role": "user", "content": "three"},
    ]
    assert client.chat.completions.create(model="fake", messages=messages).choices[0].message.content == "found"


def test_a_chats_logprobs(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="fake", messages=ASKED, logprobs=True, top_logprobs=1, max_tokens=1)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    (token,) = logprobs.content
    assert (token.token, token.logprob, bytes(token.bytes or [])) == ("base", -0.5, b"base")
    assert [(each.token, each.logprob) for each in token.top_logprobs] == [("w0", 0.0), ("base", -0.5)]


def test_who_answered(client: OpenAI, url: str) -> None:
    edit = httpx.post(f"{url}/edit", json={"messages": ASKED, "target": "Ada Quill"}).json()
    answer = client.chat.completions.create(model="fake", messages=ASKED, seed=4)
    assert answer.choices[0].message.content == "Ada Quill"
    served = answer.choices[0].model_extra["errata"]  # type: ignore[index]
    assert (served["seed"], served["revision"], served["edits"][0]["id"]) == (4, 1, edit["id"])
    before = client.chat.completions.create(model="fake", messages=ASKED, extra_body={"revision": 0})
    assert before.choices[0].message.content == "base answer here"
    assert "nearest" not in before.choices[0].model_extra["errata"]  # type: ignore[index]
    told = client.chat.completions.create(model="fake", messages=ASKED, extra_body={"revision": 0, "details": True})
    assert told.choices[0].model_extra["errata"]["nearest"]["id"] == "ed_near"  # type: ignore[index]


def test_the_models(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, client.models.retrieve("fake").id) == ("fake", "model", "fake")
    with pytest.raises(openai.NotFoundError, match="it is 'fake'"):
        client.models.retrieve("gpt/4")


# -- streams


def test_a_chat_streamed(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="fake", messages=ASKED, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == ["base", " answer", " here"]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage is None
    assert chunks[-1].choices[0].model_extra["errata"]["edits"] == []  # type: ignore[index]


def test_completions_streamed_with_their_usage(client: OpenAI, service: FakeService) -> None:
    service.canned |= {"a": " one two", "b": "three"}
    stream = client.completions.create(
        model="fake", prompt=["a", "b"], echo=True, stream=True, stream_options={"include_usage": True}
    )
    texts, usage = ["", ""], None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == ["a one two", "bthree"]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (2, 5)


@pytest.mark.parametrize("chats", [True, False])
def test_each_chunk_tells_the_usage_so_far_where_it_is_asked_for(client: OpenAI, chats: bool) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    stream: Any = (
        client.chat.completions.create(model="fake", messages=ASKED, stream=True, stream_options=options)
        if chats
        else client.completions.create(model="fake", prompt=["a b", "c"], n=2, stream=True, stream_options=options)
    )
    chunks = list(stream)
    said = [chunk.usage.completion_tokens for chunk in chunks]
    steps = {later - earlier for earlier, later in pairwise(said)}
    assert said[0] == (0 if chats else 1)
    assert steps == {0, 1}
    assert said[-2] == said[-1], "the last chunk with a choice has counted them all"
    assert {chunk.usage.prompt_tokens for chunk in chunks} == {chunks[-1].usage.prompt_tokens}
    assert all(each.total_tokens == each.prompt_tokens + each.completion_tokens for each in (c.usage for c in chunks))


def test_without_the_usage_no_chunk_tells_it(client: OpenAI) -> None:
    options: Any = {"continuous_usage_stats": True}
    chunks = list(client.completions.create(model="fake", prompt="ab", stream=True, stream_options=options))
    assert [chunk.usage for chunk in chunks if chunk.usage is not None] == []
    assert all(chunk.choices for chunk in chunks)


def test_streamed_logprobs(client: OpenAI) -> None:
    chat = client.chat.completions.create(model="fake", messages=ASKED, stream=True, logprobs=True, max_tokens=2)
    told = [chunk.choices[0].logprobs for chunk in chat if chunk.choices[0].delta.content]
    assert [each.content[0].token for each in told if each and each.content] == ["base", " answer"]
    plain = client.completions.create(model="fake", prompt="x", stream=True, logprobs=0, max_tokens=2)
    found = [chunk.choices[0].logprobs for chunk in plain if chunk.choices[0].text]
    assert [each.text_offset for each in found if each] == [[0], [4]]


def test_a_stream_ends_with_done(url: str) -> None:
    answer = httpx.post(f"{url}/v1/completions", json={"prompt": "x", "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")


def test_a_client_that_leaves_amid_a_stream(client: OpenAI, service: FakeService) -> None:
    service.canned["x"] = "word " * 1000
    service.slow_s = 0.02
    with client.completions.create(model="fake", prompt="x", max_tokens=900, stream=True) as stream:
        next(iter(stream))
    until(lambda: service.cancelled == 1, "the generation is cancelled")


def test_an_error_amid_a_stream(client: OpenAI, service: FakeService) -> None:
    service.breaks_after = (1, RequestCancelled("The server is stopping."))
    with pytest.raises(openai.APIError, match="The server is stopping"):
        list(client.chat.completions.create(model="fake", messages=ASKED, stream=True))


# -- errors


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"n": 0}, "n", "`n`"),
        ({"temperature": 3}, "temperature", "`temperature` must be between 0 and 2"),
        ({"max_tokens": 0}, "max_tokens", "`max_tokens` must be at least 1"),
        ({"top_logprobs": 2}, "top_logprobs", "needs `logprobs: true`"),
        ({"tools": [{"type": "function"}]}, "tools", "`tools` is not offered here: leave it out"),
        ({"messages": []}, "messages", "`messages` is empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "`messages[0].role`"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type", "'text'"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "`messages[0].content` is missing"),
        ({"messages": [{"role": "system", "content": None}]}, "messages[0].content", "needs a text"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "is empty"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "takes token ids"),
    ],
)
def test_a_wrong_request_is_refused_in_words(
    client: OpenAI, body: dict[str, Any], param: str | None, words: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="fake", messages=ASKED, extra_body=body)
    assert words in refused.value.message
    assert refused.value.type == "invalid_request_error"
    if param is not None:
        assert refused.value.param == param


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"best_of": 3}, "`best_of`"),
        ({"echo": True, "logprobs": 1}, "`echo` has no `logprobs`"),
        ({"logprobs": 6}, "`logprobs`"),
        ({"prompt": ["x"] * 3, "n": 43}, "128 in all"),
        ({"suffix": "x"}, "`suffix` is not offered here"),
    ],
)
def test_a_wrong_completion_is_refused_in_words(client: OpenAI, body: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        client.completions.create(model="fake", prompt="x", extra_body=body)


def test_errors_are_those_that_the_client_knows(client: OpenAI, service: FakeService) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4", messages=ASKED)
    assert unknown.value.code == "model_not_found"
    service.fails = QueueFull("1024 requests wait already.", retry_after_s=3)
    with pytest.raises(openai.RateLimitError) as full:
        client.chat.completions.create(model="fake", messages=ASKED, stream=True)
    assert full.value.response.headers["retry-after"] == "3"
    service.fails = Unauthenticated("A key is needed here.")
    with pytest.raises(openai.AuthenticationError):
        client.completions.create(model="fake", prompt="x")
    service.fails = RuntimeError("secret")
    with pytest.raises(openai.InternalServerError) as broken:
        client.completions.create(model="fake", prompt="x")
    assert "secret" not in str(broken.value.body)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="fake", input="x")


def test_no_json_is_an_openai_error_too(url: str) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_number_is_still_json(url: str, service: FakeService, stream: bool) -> None:
    service.logprob = -math.inf
    body = {"prompt": "x", "logprobs": 0, "max_tokens": 1, "stream": stream}
    text = httpx.post(f"{url}/v1/completions", json=body).text
    first = json.loads(text.removeprefix("data: ").split("\n\n")[0])
    assert first["choices"][0]["logprobs"]["token_logprobs"] == [None]
