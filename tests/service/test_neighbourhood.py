"""An edit is verified on probes, near live edits and recent prompts before it goes live, and previews show this."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import torch

from app.config import DEMO_MODEL
from app.domain.edit import EditRequest
from app.domain.errors import EditRejected, InvalidRequest, ScopeConflict
from app.engine.model import load_model
from app.service.recent_prompts import MOST_NAMESPACES, RecentPrompts
from app.service.retunes import Retune
from app.service.verification import Thresholds
from app.service.views import token_diff
from tests.service.conftest import ORIGIN, ask, edit, serving

pytestmark = pytest.mark.slow

CAPITAL, NEAR = "The capital of Ruritania is", "Now: the capital of Ruritania is"
WIDE = {"paraphrases": (NEAR,)}
CPU = torch.device("cpu")


def test_a_probe_of_the_namespace_blocks_every_edit_that_would_change_it() -> None:
    async def story() -> None:
        async with serving() as service:
            assert await service.set_probes("default", [NEAR, "The king of Zenda was"], ORIGIN) == 1
            with pytest.raises(EditRejected, match="would change") as rejected:
                await edit(service, CAPITAL, "Strelsau", **WIDE)
            changed = rejected.value.details["report"][CAPITAL]["unchanged"]["changed"]
            assert changed == [NEAR]
            assert (await edit(service, CAPITAL, "Strelsau", namespace="other", **WIDE)).edit.id
            assert (await edit(service, CAPITAL, "Strelsau", force=True, **WIDE)).edit.id
            await service.set_probes("default", [], ORIGIN)
            assert (await edit(service, CAPITAL, "Hentzau", **WIDE)).edit.id
            for wrong in (("no name!", ["x"]), ("default", [" "])):
                with pytest.raises(InvalidRequest):
                    await service.set_probes(*wrong, ORIGIN)

    asyncio.run(story())


def test_a_probe_about_the_same_bounds_an_edits_scope() -> None:
    async def story() -> None:
        async with serving() as service:
            await service.set_probes("default", ["The colour of Ruritania is"], ORIGIN)
            bounded = await edit(service, CAPITAL, "Strelsau")
            free = await edit(service, CAPITAL, "Strelsau", namespace="other")
            counter = [each.edit.learned["scope"]["counter"] for each in (bounded, free)]
            assert counter == [["The colour of Ruritania is"], []]
            assert (await ask(service, "The colour of Ruritania is")).hits == ()
            assert [hit.edit_id for hit in (await ask(service, CAPITAL)).hits] == [bounded.edit.id]

    asyncio.run(story())


def test_thresholds_are_the_namespaces_own() -> None:
    async def story() -> None:
        async with serving(thresholds={"lax": {"unchanged": 0.0}, "*": {"unchanged": 1.0}}) as service:
            for namespace in ("lax", "strict"):
                await service.set_probes(namespace, [NEAR], ORIGIN)
            view = await edit(service, CAPITAL, "Strelsau", namespace="lax", **WIDE)
            assert view.edit.report["unchanged"]["changed"] == [NEAR]
            with pytest.raises(EditRejected):
                await edit(service, CAPITAL, "Strelsau", namespace="strict", **WIDE)

    asyncio.run(story())
    assert Thresholds() == Thresholds(paraphrases=1.0, made=0.0, unchanged=1.0, live_edits=1.0, recent=0.0)


@pytest.mark.parametrize("wrong", [{"*": {"unknown": 1.0}}, {"*": {"made": 2.0}}, {"no name!": {"made": 1.0}}])
def test_a_threshold_that_is_none_is_said(wrong: dict[str, dict[str, float]]) -> None:
    async def story() -> None:
        async with serving(thresholds=wrong):
            pass

    with pytest.raises(InvalidRequest, match="ERRATA_THRESHOLDS"):
        asyncio.run(story())


def test_an_edit_that_another_one_answers_already_is_a_conflict_by_its_paraphrase_too() -> None:
    async def story() -> None:
        async with serving() as service:
            first = await edit(service, CAPITAL, "Strelsau")
            with pytest.raises(ScopeConflict, match="Strelsau") as conflict:
                await edit(service, "Ruritania has the seat", "Zenda", paraphrases=(CAPITAL,))
            assert conflict.value.details["conflicts"] == [first.edit.id]
            second = await edit(
                service, "Ruritania has the seat", "Zenda", paraphrases=(CAPITAL,), supersede=(first.edit.id,)
            )
            assert second.edit.supersedes == (first.edit.id,)
            assert (await ask(service, CAPITAL)).said == "Zenda"

    asyncio.run(story())


def test_the_nearest_live_edits_are_asked_and_listed() -> None:
    async def story() -> None:
        async with serving() as service:
            first = await edit(service, CAPITAL, "Strelsau")
            second = await edit(service, "The king of Ruritania was", "Rudolf V")
            assert second.edit.report["live_edits"] == {"asked": 1, "right": 1, "changed": []}
            near = await service.neighbours(second.edit.id)
            assert [view.edit.id for view in near] == [first.edit.id]
            assert "live_edits" not in (await edit(service, "Water boils at", "Geoffrey")).edit.report

    asyncio.run(story())


def test_a_preview_tells_everything_and_commits_nothing() -> None:
    async def story() -> None:
        async with serving(recent_prompts=10) as service:
            for prompt in (NEAR, "The king of Zenda was", CAPITAL):
                await ask(service, prompt)
            await ask(service, "The queen of Zenda was", edits="off")
            assert service.recent.counts() == {"default": 3}
            request = EditRequest(prompt=CAPITAL, target="Strelsau", **WIDE)
            results = await service.edit([request], ORIGIN, dry_run=True)
            report = results.results[0].view.edit.report
            assert report["would_commit"] is True
            assert (report["problems"], report["conflicts"]) == ([], [])
            assert (report["recent"]["asked"], report["recent"]["changed"]) == (3, 2)
            assert {each["prompt"] for each in report["recent"]["shown"]} == {NEAR, CAPITAL}
            shown = report["recent"]["shown"][0]
            assert shown["now"] == "Strelsau"
            assert {"same", "cosine", "named"} <= set(shown["signals"])
            assert report["diff"][-1] == {"op": "insert", "text": "Strelsau"}
            assert service.revision == 0
            assert service.engine.editions.owned() == []
            assert service.recent.forget() == 3

    asyncio.run(story())


def test_a_preview_of_what_would_be_refused_says_why() -> None:
    async def story() -> None:
        async with serving() as service:
            first = await edit(service, CAPITAL, "Strelsau")
            other = EditRequest(prompt="Ruritania has the seat", target="Zenda", paraphrases=(CAPITAL,))
            (preview,) = (await service.edit([other], ORIGIN, dry_run=True)).results
            assert preview.view.edit.report["would_commit"] is False
            assert preview.view.edit.report["conflicts"] == [first.edit.id]
            probed = EditRequest(prompt=CAPITAL, target="Zenda", probes=(NEAR,), **WIDE)
            (preview,) = (await service.edit([probed], ORIGIN, dry_run=True)).results
            report = preview.view.edit.report
            assert report["would_commit"] is False
            assert "would change" in report["problems"][0]
            assert service.revision == 1

    asyncio.run(story())


def test_near_misses_that_an_edit_would_answer_narrow_it_and_one_tick_excludes_the_rest() -> None:
    """Two that say the same words in another order cannot be parted by what the scope has learned."""
    question = "Amazon is led by which CEO?"

    async def story() -> None:
        async with serving(hosted=load_model(str(DEMO_MODEL), device=CPU, dtype=torch.float32)) as service:

            async def previewed(request: EditRequest) -> Any:
                return (await service.edit([request], ORIGIN, dry_run=True)).results[0].view.edit.report

            request = EditRequest(prompt=question, target="Andy Jassy")
            report = await previewed(request)
            answered = report["near_misses"]["answered"]
            assert 0 < len(answered) < report["near_misses"]["asked"]
            assert set(answered) <= set(report["scope"]["narrowed_by"]), "they are known, and do not suffice"
            asked = {each["prompt"]: each["reached"] for each in report["asked"] if each["kind"] == "near_miss"}
            assert len(asked) == report["near_misses"]["asked"]
            assert [prompt for prompt, reached in asked.items() if reached] == answered

            ticked = replace(request, counter_examples=tuple(answered))
            report = await previewed(ticked)
            assert report["near_misses"]["answered"] == []
            kept = {each["prompt"]: each["reached"] for each in report["asked"] if each["kind"] == "counter_example"}
            assert kept == dict.fromkeys(answered, False)
            assert report["unchanged"] == {"asked": len(answered), "right": len(answered), "changed": []}

            made = await edit(service, question, "Andy Jassy", counter_examples=ticked.counter_examples)
            assert "asked" not in made.edit.report
            assert made.edit.report["near_misses"] == report["near_misses"]
            assert [hit.edit_id for hit in (await ask(service, question)).hits] == [made.edit.id]
            assert [(await ask(service, text)).reached for text in answered] == [()] * len(answered)

    asyncio.run(story())


def test_recent_prompts_may_block_where_the_operator_says_so() -> None:
    async def story() -> None:
        async with serving(recent_prompts=4, thresholds={"*": {"recent": 1.0}}) as service:
            await ask(service, NEAR)
            with pytest.raises(EditRejected, match="1 of 1 recent prompts"):
                await edit(service, CAPITAL, "Strelsau", **WIDE)

    asyncio.run(story())


@pytest.mark.parametrize("editor", ["grace", "lora_mixture", "hook_layer", "patcher"])
def test_an_answer_says_which_edit_was_nearest_and_how_far(editor: str) -> None:
    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau", editor=editor)
            answer = await ask(service, "Of all the rivers in Ruritania the longest one", explain=True)
            assert answer.hits == ()
            assert answer.nearest is not None
            assert answer.nearest.edit_id == made.edit.id
            same = answer.nearest.signals["same"]
            assert same.value < same.bound
            assert f"nearest to {CAPITAL!r}" in answer.nearest.why
            assert (await ask(service, "Of all the rivers in Ruritania the longest one")).nearest is None
            assert (await ask(service, "The king of Zenda was", explain=True)).nearest is None
            hit = await ask(service, CAPITAL, explain=True)
            assert (len(hit.hits), hit.nearest) == (1, None)

    asyncio.run(story())


def test_recent_prompts_do_not_go_into_the_log() -> None:
    async def story() -> None:
        async with serving(recent_prompts=4) as service:
            await ask(service, NEAR)
            made = await edit(service, CAPITAL, "Strelsau", **WIDE)
            assert made.edit.report["recent"] == {"asked": 1, "changed": 1}
            told = await service.retune(made.edit.id, Retune(widen=1.1), ORIGIN)
            assert "shown" not in told.edit.report["recent"]

    asyncio.run(story())


def test_a_probe_that_cannot_be_asked_is_refused_when_it_is_set() -> None:
    async def story() -> None:
        async with serving() as service:
            with pytest.raises(InvalidRequest, match="tokens"):
                await service.set_probes("default", ["x" * 300], ORIGIN)
            await service.set_probes("default", ["x" * 250], ORIGIN)
            assert (await edit(service, CAPITAL, "Strelsau, which is a long way from here")).edit.id

    asyncio.run(story())


def test_recent_prompts_are_few_different_and_deletable() -> None:
    recent = RecentPrompts(most=2)
    for prompt in ("a", "b", "a", "c"):
        recent.add("default", prompt)
    recent.add("other", "d")
    assert recent.newest("default", 9) == ["c", "a"]
    assert recent.newest("default", 1) == ["c"]
    assert recent.newest("none", 9) == []
    assert recent.forget("default") == 2
    assert recent.counts() == {"other": 1}
    assert recent.forget() == 1
    for number in range(MOST_NAMESPACES + 1):
        recent.add(f"made-up-{number}", "x")
    assert len(recent.counts()) == MOST_NAMESPACES
    assert "made-up-0" not in recent.counts()
    none = RecentPrompts(most=0)
    none.add("default", "a")
    assert none.counts() == {}


def test_a_diff_is_word_by_word() -> None:
    assert token_diff("the old king", "the young king of all") == [
        {"op": "keep", "text": "the"},
        {"op": "delete", "text": " old"},
        {"op": "insert", "text": " young"},
        {"op": "keep", "text": " king"},
        {"op": "insert", "text": " of all"},
    ]
    assert token_diff("", "") == []
