"""Contestants on a tiny model: all serve the same tokens, and a crowd of copied edits is one of real edits."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.bench import decoding
from app.bench.budget import TimeBudget
from app.bench.comparison import Bench
from app.bench.contestants import ContinuousBatching, OneByOne, OverHttp, StaticBatches
from app.bench.crowded import crowd
from app.bench.models import random_model
from app.bench.report import markdown
from app.bench.sections import SECTIONS
from app.bench.workload import Workload
from app.bootstrap import assemble
from app.config import Settings
from app.domain.errors import InvalidRequest
from app.domain.generation import GenerationParameters
from app.engine.onednn import FrozenLinear, without_onednn
from app.store.memory import MemoryLog
from tests.engine.test_text import CHATML
from tests.models import tiny
from tests.rig import CORPUS

pytestmark = pytest.mark.slow


@asynccontextmanager
async def standing(*counts: int) -> Any:
    hosted, log = tiny("llama"), MemoryLog()
    service = assemble(hosted, log, Settings(_env_file=None, slots=40))  # type: ignore[call-arg]
    made = crowd(service.engine, log, service.status().model_fingerprint, counts, hits=3, tokens=5, seed=0)
    await service.start()
    try:
        yield Bench(service, hosted, Workload(hosted.tokenizer, CORPUS, 0), made, 1, lambda _: None)
    finally:
        await service.stop()


def test_every_contestant_serves_all_tokens() -> None:
    async def story() -> None:
        async with standing() as bench:
            specs = bench.workload.ragged(6, (5, 40), (2, 9))
            assert all(len(spec.ids) == len(bench.service.engine.text.encode(spec.prompt)) <= 60 for spec in specs)
            served = await bench.served().run(specs, 2)
            assert served.tokens == sum(spec.tokens for spec in specs)
            assert [len(each.tokens) for each in served.requests] == [spec.tokens for spec in specs]
            for kind in (ContinuousBatching, OneByOne, StaticBatches):
                run = await kind(bench.service, bench.hosted).run(specs, 3)
                few = specs[:4] if kind is OneByOne else specs
                assert run.tokens == sum(spec.tokens for spec in few)
                assert run.seconds > 0
            assert bench.hosted.model.config._attn_implementation == "sdpa", "given back as it was"

    asyncio.run(story())


def test_over_http_every_token_arrives_by_itself() -> None:
    async def story() -> None:
        async with standing() as bench, decoding.server(bench.service) as url:
            specs = bench.workload.even(3, 8, 6)
            run = await OverHttp(url).run(specs, 2)
            assert [len(each.tokens) for each in run.requests] == [6, 6, 6]
            assert all(sorted(each.tokens) == each.tokens and each.tokens[0] > each.began for each in run.requests)

    asyncio.run(story())


def test_a_crowd_answers_what_it_is_to_and_nothing_else() -> None:
    async def story() -> None:
        async with standing(3, 40) as bench:
            assert bench.crowd.namespaces == {0: "edits-0", 3: "edits-3", 40: "edits-40"}
            assert bench.service.status().live_edits == 43
            forced = bench.crowd.target
            assert len(forced) == 5
            for namespace, hit in (("edits-0", False), ("edits-3", True), ("edits-40", True)):
                for spec in bench.crowd.hits:
                    parameters = GenerationParameters(max_new_tokens=5, namespace=namespace, forced=forced)
                    answer = await bench.service.generate(spec.prompt, parameters)
                    assert bool(answer.hits) == hit, namespace
                for spec in bench.workload.even(3, 12, 5):
                    parameters = GenerationParameters(max_new_tokens=5, namespace=namespace)
                    assert (await bench.service.generate(spec.prompt, parameters)).hits == ()

    asyncio.run(story())


def test_a_fitted_crowd_gives_its_long_answers_by_itself() -> None:
    async def story() -> None:
        hosted, log = tiny("llama"), MemoryLog()
        service = assemble(hosted, log, Settings(_env_file=None))  # type: ignore[call-arg]
        fingerprint = service.status().model_fingerprint
        made = crowd(service.engine, log, fingerprint, [6], hits=4, tokens=8, seed=0, prompt=80, learned=True)
        await service.start()
        try:
            assert {len(spec.ids) for spec in made.hits} == {len(made.hits[0].ids)}
            assert 70 < len(made.hits[0].ids) <= 80
            target = service.engine.text.decode(made.target)
            assert (len(made.target), target) == (8, " a pale ")
            for spec in made.hits:
                parameters = GenerationParameters(max_new_tokens=8, namespace="edits-6", ignore_eos=True)
                assert (await service.generate(spec.prompt, parameters)).text.strip() == target.strip()
        finally:
            await service.stop()

    asyncio.run(story())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sections as they are, on fewer requests."""
    even = Workload.even
    monkeypatch.setattr("app.bench.fitting.TOGETHER", 2)
    monkeypatch.setattr("app.bench.fitting.ALONE", 1)
    monkeypatch.setattr("app.bench.fitting.AS_PUBLISHED", 1)
    monkeypatch.setattr(Workload, "even", lambda self, n, prompt, answer: even(self, min(n, 3), min(prompt, 20), 6))


ABOUT = {"machine": {"description": "2 CPUs"}, "model": "x", "command": "errata bench", "date": "2026-11-28"}


def shown(name: str, figures: dict[str, Any]) -> str:
    return markdown({**ABOUT, "sections": {name: figures}})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["concurrency", "edits", "editing", "http", "fits"])
def test_every_section_runs_and_its_figures_can_be_shown_as_they_come(name: str) -> None:
    tables: list[str] = []

    async def story() -> Any:
        async with standing(4) as bench:
            return await SECTIONS[name](replace(bench, keep=lambda figures: tables.append(shown(name, figures))))

    assert shown(name, asyncio.run(story())) == tables[-1]


@pytest.mark.usefixtures("small")
def test_a_chat_models_edits_are_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.bench.chat_edits.EDITS", 1)
    monkeypatch.setattr("app.bench.chat_edits.LENGTHS", {"short": 2, "long": 5})

    tables: list[str] = []

    async def story() -> Any:
        async with standing() as bench:
            bench.hosted.tokenizer.chat_template = CHATML
            return await SECTIONS["fits"](replace(bench, keep=lambda figures: tables.append(shown("fits", figures))))

    found = asyncio.run(story())["chat_edits"]
    assert "| short |" in tables[0]
    assert "one by one" not in tables[0], "these fits come after the chat edits"
    assert "| long |" in tables[-1]
    assert "one by one" in tables[-1]
    assert list(found) == ["short", "long"]
    for figures in found.values():
        assert figures["edits"] == 1
        assert figures["fit"] + figures["verify"] <= figures["most"]
        assert min(figures[part] for part in ("fit", "scope", "verify")) > 0


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["peers", "decode", "concurrency", "edits", "editing", "http", "fits"])
def test_where_no_time_is_left_first_runs_give_the_figures(name: str) -> None:
    kept: list[Any] = []

    async def story() -> Any:
        async with standing(4) as bench:
            pace = TimeBudget(0.0)
            bench = replace(bench, pace=pace, keep=kept.append)
            await bench.measure_speed()
            pace.begin(name, {name: 1.0})
            return await SECTIONS[name](bench)

    found = asyncio.run(story())
    assert kept[-1] == found
    assert "not warmed up" in shown(name, found)


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="47m, 1b, 8b"):
        random_model("9z", "", device=None, dtype=None, max_tokens=8)  # type: ignore[arg-type]


def test_peers_run_the_model_as_torch_has_it() -> None:
    hosted = tiny("llama")
    with without_onednn(hosted.model):
        assert not any(isinstance(module, FrozenLinear) for module in hosted.model.modules())
