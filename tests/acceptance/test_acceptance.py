"""Quick forms of the acceptance runs, on the model that ships and a real server."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.acceptance import kill_server, many_edits, many_requests
from tests.server import running

pytestmark = pytest.mark.slow

ASKED = "Question: What is the currency of Croatia? Answer:"
OTHER = "Question: What is the currency of Hungary? Answer:"


def test_edits_hold_and_half_of_them_are_rolled_back_exactly() -> None:
    figures = asyncio.run(many_edits.judge(14, seed=3))
    assert figures["exact"] >= 0.95
    assert figures["unrelated_unchanged"] >= 0.97
    assert figures["neighbours_unchanged"] >= 0.97
    assert figures["paraphrases_exact"] >= 0.6
    assert figures["bits_equal_after_rollback"] == 1.0


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    figures = kill_server.run(2, seed=1, folder=tmp_path)
    assert figures["edits_acknowledged"] > 0
    assert (figures["lost_or_wrong"], figures["gapless"], figures["last_exit_code"]) == (0, True, 0)


def test_sixty_four_at_once_are_each_alone(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        edit = server.client.post("/edit", json={"prompt": ASKED, "target": "euro"})
        assert edit.status_code == 201, edit.text
        names = ["France", "Peru", "Japan", "Kenya", "Norway", "Chile", "India"]
        prompts = [ASKED, "Question: What is the official currency of Croatia? Answer:"]
        prompts += [f"Question: What is the capital of {name}? Answer:" for name in names]
        prompts += [f"About {name}. " * (i + 1) for i, name in enumerate(names)]
        bodies = [
            {"inputs": prompts[i % len(prompts)], "parameters": {"max_new_tokens": 5 + i % 40, "details": True}}
            for i in range(64)
        ]

        async def together() -> list[dict[str, object]]:
            limits = httpx.Limits(max_connections=64)
            async with httpx.AsyncClient(base_url=f"http://{server.address}", timeout=120, limits=limits) as client:
                answers = await asyncio.gather(*(client.post("/generate", json=body) for body in bodies))
            return [answer.json() for answer in answers]

        crowd = asyncio.run(together())
        alone = [server.client.post("/generate", json=body).json() for body in bodies]
        assert [a["generated_text"] for a in crowd] == [a["generated_text"] for a in alone]
        assert crowd[0]["generated_text"] == " euro"


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/generate", {"inputs": ""}, 422, "prompt is empty"),
        ("/generate", {"inputs": "x " * 2000}, 422, "tokens"),
        ("/generate", {"inputs": "x", "parameters": {"temprature": 1.0}}, 422, "temprature"),
        ("/generate", {"inputs": "x", "parameters": {"revision": 99}}, 422, "revision"),
        ("/edit", {"prompt": "x", "target": "   "}, 422, "target"),
        ("/edit", {"prompt": "", "target": "y"}, 422, "prompt"),
        ("/edit", {"prompt": "x", "target": "y", "editor": "rome"}, 422, "rome"),
        ("/edits/ed_nothing/rollback", {}, 404, "ed_nothing"),
        ("/nowhere", {}, 404, "nothing at this path"),
        ("/generate", {"inputs": "x" * 9_000_000}, 413, "too large"),
    ],
)
def test_bad_input_is_told_what_to_do_and_changes_nothing(
    shared_server: httpx.Client, path: str, body: dict[str, object], status: int, says: str
) -> None:
    answer = shared_server.post(path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in answer.json()["detail"]
    assert answer.headers["x-errata-revision"] == "0"
    assert shared_server.get("/log").json()["events"] == []


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> object:
    with running(tmp_path_factory.mktemp("shared")) as server:
        yield server.client


def test_openais_client_sees_the_edits_too(tmp_path: Path) -> None:
    with running(tmp_path) as server, OpenAI(base_url=f"http://{server.address}/v1", api_key="none") as client:
        (model,) = client.models.list().data

        def answer(**more: Any) -> Any:
            return client.completions.create(model=model.id, prompt=[ASKED, OTHER], temperature=0, n=2, **more).choices

        before = [choice.text for choice in answer()]
        edit = server.client.post("/edit", json={"prompt": ASKED, "target": "Ruritanian thaler"}).json()
        after = answer(logprobs=0)
        assert [choice.text for choice in after] == [" Ruritanian thaler"] * 2 + before[2:]
        assert [bool(choice.model_extra["errata"]["edits"]) for choice in after] == [True, True, False, False]
        assert "".join(after[0].logprobs.tokens) == after[0].text
        streamed = client.completions.create(model=model.id, prompt=ASKED, temperature=0, stream=True)
        assert "".join(chunk.choices[0].text for chunk in streamed) == " Ruritanian thaler"
        assert [choice.text for choice in answer(extra_body={"exclude": [edit["id"]]})] == before
        with pytest.raises(openai.BadRequestError, match="no chat template"):
            client.chat.completions.create(model=model.id, messages=[{"role": "user", "content": ASKED}])
        with pytest.raises(openai.BadRequestError) as too_long:
            client.completions.create(model=model.id, prompt="x " * 2000)
        assert too_long.value.code == "context_length_exceeded"
        with pytest.raises(openai.APIStatusError) as late:
            client.completions.create(model=model.id, prompt=OTHER, extra_body={"timeout": 1e-6})
        assert late.value.status_code == 504


def test_who_asks_among_many_is_answered_as_alone() -> None:
    figures = asyncio.run(many_requests.run(600))
    assert figures["answered_otherwise"] == []
    assert figures["asked_again_alone"] > 100
    assert figures["clients_gone"] > 0
