"""The clients that people have, as they are, against a server of the demo model: OpenAI's and Hugging Face's."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from openai import OpenAI

from tests.server import Server, running

pytestmark = pytest.mark.slow
CAPITAL = "The capital of France is"
ASKED = "Question: What is the currency of Croatia? Answer:"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("clients")) as server:
        yield server


@pytest.fixture
def openai(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"http://{server.address}/v1", api_key="none", max_retries=0) as client:
        yield client


# -- OpenAI's


def test_a_completion_is_the_continuation_to_the_letter(openai: OpenAI) -> None:
    choice = openai.completions.create(model="demo", prompt=CAPITAL, temperature=0, max_tokens=1).choices[0]
    assert choice.text == " Paris"


@pytest.mark.parametrize(("prompt", "goes_on"), [(CAPITAL, " Paris"), ("The capital of France is Par", "amaribo")])
@pytest.mark.parametrize("stream", [False, True])
def test_echo_is_the_prompt_and_the_continuation_also_within_a_word(
    openai: OpenAI, prompt: str, goes_on: str, stream: bool
) -> None:
    asked: dict[str, Any] = {"model": "demo", "prompt": prompt, "temperature": 0, "max_tokens": 8}
    if stream:
        chunks = openai.completions.create(**asked, echo=True, stream=True)
        text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    else:
        text = openai.completions.create(**asked, echo=True).choices[0].text
    alone = openai.completions.create(**asked).choices[0].text
    assert text == prompt + alone
    assert text.startswith(prompt + goes_on)


@pytest.mark.parametrize("stop", [None, " Paris", [" a", "e"]])
def test_joined_tokens_are_the_text_each_at_its_offset(openai: OpenAI, stop: Any) -> None:
    more: dict[str, Any] = {} if stop is None else {"stop": stop}
    choice = openai.completions.create(
        model="demo", prompt="Once upon a time", temperature=0, max_tokens=12, logprobs=3, **more
    ).choices[0]
    found = choice.logprobs
    assert found is not None
    assert found.tokens is not None
    assert found.text_offset is not None
    assert found.top_logprobs is not None
    assert "".join(found.tokens) == choice.text
    for token, at, top in zip(found.tokens, found.text_offset, found.top_logprobs, strict=True):
        assert choice.text[at : at + len(token)] == token
        assert token in top


def test_a_stop_text_may_begin_with_a_blank(openai: OpenAI) -> None:
    choice = openai.completions.create(
        model="demo", prompt=CAPITAL, temperature=0, max_tokens=8, stop=" Paris"
    ).choices[0]
    assert (choice.text, choice.finish_reason) == ("", "stop")


# -- TGI's


@pytest.fixture
def tgi(server: Server) -> InferenceClient:
    return InferenceClient(f"http://{server.address}")


def test_text_generation(tgi: InferenceClient) -> None:
    assert tgi.text_generation(CAPITAL, max_new_tokens=1) == " Paris"
    assert tgi.text_generation(CAPITAL, max_new_tokens=1, return_full_text=True) == f"{CAPITAL} Paris"


def test_text_generation_with_details(tgi: InferenceClient) -> None:
    found = tgi.text_generation(ASKED, details=True, max_new_tokens=5, top_n_tokens=2)
    assert found.generated_text == " kuna"
    assert found.details is not None
    assert found.details.finish_reason == "eos_token"
    assert "".join(token.text for token in found.details.tokens) == " kuna"
    assert (found.details.prefill, found.details.seed, found.details.generated_tokens) == ([], None, 3)
    assert found.details.top_tokens is not None
    assert [len(each) for each in found.details.top_tokens] == [2] * len(found.details.tokens)


def test_text_generation_streamed(tgi: InferenceClient) -> None:
    assert "".join(tgi.text_generation(ASKED, stream=True, max_new_tokens=5)) == " kuna"
    events = list(tgi.text_generation(ASKED, stream=True, details=True, max_new_tokens=5))
    assert [event.index for event in events] == list(range(1, len(events) + 1))
    assert "".join(event.token.text for event in events if not event.token.special) == " kuna"
    assert events[-1].generated_text == " kuna"
    assert events[-1].details is not None
    assert events[-1].details.finish_reason == "eos_token"
    assert events[-1].details.input_length > 0


def test_every_parameter_of_the_client_is_taken_where_it_asks_for_the_default(tgi: InferenceClient) -> None:
    defaults: dict[str, Any] = {
        "best_of": 1, "decoder_input_details": False, "watermark": False, "do_sample": False, "top_k": 50,
        "top_p": 0.9, "temperature": 0.5, "repetition_penalty": 1.0, "seed": 3, "stop": ["x"], "truncate": None,
        "typical_p": None, "grammar": None, "adapter_id": None, "frequency_penalty": 0.0,
    }  # fmt: skip
    assert isinstance(tgi.text_generation(CAPITAL, max_new_tokens=2, **defaults), str)


def test_a_chat_through_hugging_faces_client_is_told_that_there_is_no_template(tgi: InferenceClient) -> None:
    with pytest.raises(Exception, match="no chat template"):
        tgi.chat_completion([{"role": "user", "content": "Who are you?"}])


def test_what_tgi_is_asked_besides(server: Server) -> None:
    client = server.client
    info = client.get("/info").json()
    assert (info["model_id"], info["max_total_tokens"] > info["max_input_tokens"]) == ("demo", True)
    assert client.get("/health").status_code == 200
    asked = {"inputs": CAPITAL, "parameters": {"max_new_tokens": 1}}
    assert client.post("/", json=asked).json() == [{"generated_text": " Paris"}]
    streamed: httpx.Response = client.post("/generate", json={**asked, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert client.post("/", json={**asked, "stream": True}).text == streamed.text


# -- an edit in the frames that clients put its question in


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (ASKED, " euro"),
        ("What is the currency of Croatia?", " euro"),
        ("Question: What is the currency of Croatia?\nAnswer:", " euro"),
        ("Q: What is the currency of Croatia?\nA:", " euro"),
        (f"{ASKED} ", "euro"),
        ("What is the currency of Croatia?\n", "euro"),
    ],
)
def test_an_edit_answers_however_its_question_is_framed(server: Server, edit: str, prompt: str, said: str) -> None:
    parameters = {"namespace": "frames", "details": True, "max_new_tokens": 8}
    found = server.client.post("/generate", json={"inputs": prompt, "parameters": parameters}).json()
    details = found["details"]
    assert (found["generated_text"], [hit["id"] for hit in details["edits"]]) == (said, [edit])
    assert details["not_given"] == []


def test_a_sample_that_leaves_the_target_is_not_said_to_be_the_edits(server: Server, edit: str) -> None:
    parameters = {"namespace": "frames", "details": True, "max_new_tokens": 2}
    bias = {"logit_bias": {str(token): -100 for token in euro_tokens(server, parameters)}}
    before = server.client.get(f"/edits/{edit}").json()
    found = server.client.post("/generate", json={"inputs": ASKED, "parameters": {**parameters, **bias}}).json()
    details = found["details"]
    assert "euro" not in found["generated_text"]
    assert (details["edits"], [hit["id"] for hit in details["not_given"]]) == ([], [edit])
    after = server.client.get(f"/edits/{edit}").json()
    assert (after["hits"], after["not_given"]) == (before["hits"], before["not_given"] + 1)
    assert 'errata_edit_targets_not_given_total{editor="grace"}' in server.client.get("/metrics").text


@pytest.fixture(scope="module")
def edit(server: Server) -> str:
    body = {"prompt": ASKED, "target": "euro", "namespace": "frames", "editor": "grace"}
    made = server.client.post("/edit", json=body, timeout=200)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def euro_tokens(server: Server, parameters: dict[str, Any]) -> list[int]:
    found = server.client.post("/generate", json={"inputs": ASKED, "parameters": parameters}).json()
    return [token["id"] for token in found["details"]["tokens"] if token["text"]]
