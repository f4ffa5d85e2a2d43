"""The README's story on a real chat model happens as it is written, and clients see the model by a short name."""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from huggingface_hub import InferenceClient

from app.bootstrap import load
from app.config import Settings
from tests.server import Server, running

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("chat")
    with running(folder, "--model", "smollm2") as server:
        yield server


def story() -> str:
    (found,) = re.findall(r"```pycon\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return str(found)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the story leaves its connections open, as one types it
def test_the_story_is_true(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    told: list[str] = []
    test = doctest.DocTestParser().get_doctest(
        story().replace("localhost:8000", server.address), {}, "README.md", "README.md", 0
    )
    try:
        result = doctest.DocTestRunner(verbose=False).run(test, out=told.append, clear_globs=False)
    finally:
        for each in list(test.globs.values()):  # the block's clients: a connection left open fails a later test
            if not isinstance(each, type) and callable(close := getattr(each, "close", None)):
                close()
    assert result.attempted > 10
    assert not result.failed, "".join(told)


def test_clients_see_a_name_and_no_path(server: Server, smollm2: Path) -> None:
    listed = server.client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["smollm2"]
    assert server.client.get("/v1/models/smollm2").status_code == 200
    for path in ("/readyz", "/v1/models", "/metrics"):
        said = server.client.get(path).text
        assert "site-packages" not in said
        assert smollm2.name not in said
    asked = {"prompt": "Hello", "max_tokens": 1}
    assert server.client.post("/v1/completions", json=asked).json()["model"] == "smollm2"


def test_another_name_is_refused_with_the_one_that_is_served(server: Server) -> None:
    client = openai.OpenAI(base_url=f"http://{server.address}/v1", api_key="none", http_client=server.client)
    with pytest.raises(openai.NotFoundError, match="'gpt-4' is not served here: it is 'smollm2'"):
        client.completions.create(model="gpt-4", prompt="x")


def test_hugging_faces_client_chats_as_it_is(server: Server) -> None:
    client = InferenceClient(f"http://{server.address}")
    asked = [{"role": "user", "content": "What is the capital of Indonesia?"}]
    whole = client.chat_completion(asked, max_tokens=12, temperature=0)
    assert whole.choices[0].message.content == "The capital of Indonesia is Jakarta."
    streamed = client.chat_completion(asked, max_tokens=12, temperature=0, stream=True)
    told = [chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices]
    assert "".join(told) == whole.choices[0].message.content


def test_a_chats_last_message_is_gone_on_with(server: Server) -> None:
    turns = [
        {"role": "user", "content": "What is the capital of Indonesia?"},
        {"role": "assistant", "content": "The capital of Indonesia is"},
    ]
    body = {"messages": turns, "max_tokens": 8, "temperature": 0, "continue_final_message": True}
    answer = server.client.post("/v1/chat/completions", json={**body, "add_generation_prompt": False}).json()
    assert answer["choices"][0]["message"]["content"] == " Jakarta."


@pytest.mark.parametrize(("given", "seen"), [(None, "demo"), ("support-bot", "support-bot")])
def test_the_name_is_a_setting_and_no_part_of_the_fingerprint(given: str | None, seen: str) -> None:
    hosted = load(Settings(model="demo", served_model_name=given, device="cpu"))
    assert hosted.name == seen
    assert hosted.fingerprint == load(Settings(model="demo", device="cpu")).fingerprint


def test_the_chat_model_is_unpacked_whole(smollm2: Path) -> None:
    hosted = load(Settings(model="smollm2", device="cpu"))
    assert (hosted.name, hosted.parameters, hosted.vocabulary) == ("smollm2", 134_515_008, 49_152)
    assert hosted.tokenizer.convert_ids_to_tokens(sorted(hosted.eos_ids)) == ["<|im_end|>"]
    asked = hosted.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert "<|im_start|>user\nHi<|im_end|>" in asked
    assert smollm2.is_dir()
