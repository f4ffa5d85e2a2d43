"""The hosted model as a judge: asked unedited, through the serving path, and examined like any other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from app.bootstrap import assemble
from app.config import Settings
from app.domain.generation import Generation, GenerationParameters
from app.engine.client import EngineClient
from app.engine.model import HostedModel
from app.engine.owner import EngineOwner
from app.scope.doubt import Doubt
from app.scope.exam import load_exam
from app.service.examined_judge import ExaminedJudge
from app.service.generation_path import generation_of
from app.service.hosted_judge import ASKED, NO, TASK, YES, HostedJudge
from app.service.service import Service
from app.store.memory import MemoryLog
from tests.judges import hosted
from tests.service.conftest import edit
from tests.service.judges_at_work import uncertain

pytestmark = pytest.mark.slow
EXAM = load_exam()[:16]
MODEL = "stand-in"
DOUBT = Doubt("By whom was Lumen set up?", ("Who founded Lumen?", "Lumen's founder is"), ("Who left Lumen?",))


@asynccontextmanager
async def serving(model: HostedModel) -> AsyncIterator[tuple[Service, HostedJudge]]:
    settings = Settings(_env_file=None, slots=8, cache_dir=None)  # type: ignore[call-arg]
    owners: list[EngineOwner] = []

    def kept(*parts: Any) -> EngineOwner:
        owners.append(EngineOwner(*parts))
        return owners[-1]

    with patch("app.bootstrap.EngineOwner", kept):
        service = assemble(model, MemoryLog(), settings)
    await service.start()
    try:
        yield service, HostedJudge(EngineClient(owners[0]), MODEL)
    finally:
        await service.stop()


async def shown(judge: HostedJudge, doubt: Doubt) -> str:
    """The prompt by which the judge asks the model about a doubt."""
    prompts: list[str] = []

    async def seen(engine: EngineClient, prompt: str, *how: Any) -> Generation:
        prompts.append(prompt)
        return await generation_of(engine, prompt, *how)

    with patch("app.service.hosted_judge.generation_of", seen):
        await judge.logit(doubt)
    assert len(set(prompts)) == 1
    return prompts[0]


def reference(model: HostedModel, prompt: str, answer: str) -> float:
    """The bare model's logits, without cache, batch or hooks."""
    before, whole = (model.tokenizer(text).input_ids for text in (prompt, prompt + answer))
    with torch.inference_mode():
        logits = model.model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return sum(float(logits[at - 1, whole[at]]) for at in range(len(before), len(whole)))


def test_it_says_by_how_much_the_model_holds_yes_likelier_than_no() -> None:
    async def story() -> None:
        model = hosted()
        async with serving(model) as (service, judge):
            prompt = await shown(judge, DOUBT)
            begun = service.engine.counters.generated_tokens
            expected = reference(model, prompt, YES) - reference(model, prompt, NO)
            assert await judge.logit(DOUBT) == pytest.approx(expected, abs=1e-3)
            assert await judge.logit(DOUBT) == await judge.logit(DOUBT)
            made = service.engine.counters.generated_tokens - begun
            assert made in (3, 6), "as requests of the serving path, one or two for each"
            assert service.recent.counts() == {}

    asyncio.run(story())


def test_it_is_shown_keys_and_counter_examples_as_examples() -> None:
    async def story() -> None:
        async with serving(hosted()) as (_, judge):
            prompt = await shown(judge, DOUBT)
            assert prompt.startswith(TASK)
            known = "Known question: Who founded Lumen?\nNew question: "
            assert f"{known}Lumen's founder is\nDo they ask the same? Yes\n" in prompt
            assert f"{known}Who left Lumen?\nDo they ask the same? No\n" in prompt
            assert prompt.endswith(f"{known}By whom was Lumen set up?\n{ASKED}\n")
            assert prompt.count("By whom") == 1

    asyncio.run(story())


def test_no_edit_changes_its_mind() -> None:
    async def story() -> None:
        async with serving(hosted()) as (service, judge):
            before = await judge.logit(DOUBT)
            prompt = await shown(judge, DOUBT)
            made = await edit(service, prompt, "Yes, by all means", force=True)
            edited = await service.score(prompt, YES, GenerationParameters())
            assert [hit.edit_id for hit in edited.reached] == [made.edit.id], "the edit is live for that very prompt"
            assert await judge.logit(DOUBT) == before

    asyncio.run(story())


def test_a_model_that_knows_passes_its_exam_and_then_decides() -> None:
    async def story() -> None:
        async with serving(hosted()) as (_, judge):
            prompts = [await shown(judge, pair.doubt) for pair in EXAM]
        async with serving(hosted(prompts, [pair.same for pair in EXAM])) as (_, judge):
            examined_judge = ExaminedJudge(judge, exam=EXAM, at_once=4)
            await examined_judge.run()
            view = examined_judge.view()
            assert (view.state, view.same, view.other, view.pairs) == ("serving", 1.0, 1.0, len(EXAM))
            for pair in EXAM:
                asked = uncertain(0.5)
                doubted = tuple(replace(each, doubt=pair.doubt) for each in asked.uncertain)
                decided = await examined_judge.settle(replace(asked, uncertain=doubted))
                assert (decided.decision is not None) == pair.same

    asyncio.run(story())


def test_a_model_that_does_not_know_fails_it() -> None:
    async def story() -> None:
        async with serving(hosted()) as (_, judge):
            examined_judge = ExaminedJudge(judge, exam=EXAM, at_once=4)
            await examined_judge.run()
            assert examined_judge.view().state == "failed"

    asyncio.run(story())


def test_its_fingerprint_is_of_the_model_and_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving(hosted()) as (_, judge), serving(hosted()) as (_, same):
            first = judge.fingerprint()
            assert same.fingerprint() == first
            with monkeypatch.context() as changed:
                changed.setattr(f"{__name__}.MODEL", "another")
                async with serving(hosted()) as (_, another):
                    assert another.fingerprint() != first
            monkeypatch.setattr("app.service.hosted_judge.ASKED", "Same?")
            assert judge.fingerprint() != first

    asyncio.run(story())


def test_a_question_that_is_too_long_for_the_model_is_an_error_of_the_judge() -> None:
    async def story() -> None:
        async with serving(hosted()) as (_, judge):
            with pytest.raises(Exception, match="tokens"):
                await judge.logit(Doubt("very " * 1000, ("Who?",)))

    asyncio.run(story())


def test_one_pass_is_enough_where_the_other_answer_is_among_the_likeliest(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        model = hosted()
        async with serving(model) as (service, judge):
            prompt = await shown(judge, DOUBT)
            with torch.inference_mode():
                logits = model.model(torch.tensor([model.tokenizer(prompt).input_ids])).logits[0, -1].float()
            likeliest = logits.topk(2).indices.tolist()
            tokens = {YES: (likeliest[0],), NO: (likeliest[1],)}
            monkeypatch.setattr(service.engine.text, "encode_target", lambda _, answer: tokens[answer])
            steps = service.engine.counters.generated_tokens
            found = await judge.logit(DOUBT)
            assert found == pytest.approx(float(logits[likeliest[0]] - logits[likeliest[1]]), abs=1e-3)
            assert service.engine.counters.generated_tokens == steps + 1

    asyncio.run(story())
