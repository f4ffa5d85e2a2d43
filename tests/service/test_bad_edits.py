"""Edits that cannot be made: refused with what is wrong, before or after the fit, and nothing is left of them."""

import asyncio
import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
import torch

from app.domain.edit import EditRequest
from app.domain.errors import EditRejected, InvalidRequest, ScopeConflict
from app.editors.base import Fitted
from app.editors.registry import AUTO, EDITORS
from app.service.service import Service
from tests.models import EOS
from tests.service.conftest import ORIGIN, ask, edit, exact, serving

pytestmark = pytest.mark.slow
CAPITAL = "The capital of Ruritania is"


async def nothing_left(service: Service) -> None:
    assert service.revision == 0
    assert service.engine.editions.owned() == []


@pytest.mark.parametrize(
    ("prompt", "target", "says"),
    [
        (CAPITAL, "", "`target` is empty"),
        (CAPITAL, EOS, "a control token of this model"),
        (CAPITAL, f"Strelsau{EOS} and more", "a control token of this model"),
        (CAPITAL, "S" * 5000, "a sequence of this server holds 256"),
        ("R" * 400, "S", "The prompt has 400 tokens; a sequence here holds 256"),
        ("R" * 255, "SSS", "Prompt and target together"),
    ],
    ids=["nothing", "end-of-text", "end-of-text again", "5,000 tokens", "a long prompt", "no room for the target"],
)
@pytest.mark.parametrize("editor", ["auto", *EDITORS])
def test_what_cannot_be_learned_is_refused_by_every_editor(editor: str, prompt: str, target: str, says: str) -> None:
    async def story() -> None:
        async with serving() as service:
            with pytest.raises(InvalidRequest, match=says):
                await edit(service, prompt, target, editor=editor)
            await nothing_left(service)

    asyncio.run(story())


def test_a_target_beyond_what_an_editor_holds_is_refused_with_the_reason() -> None:
    async def story() -> None:
        async with serving() as service:
            for name, presets in EDITORS.items():
                for preset in presets:
                    key = name if preset == "serving" else f"{name}/{preset}"
                    most = service.engine.editors[key].capabilities.max_target_tokens
                    if most < 200:
                        with pytest.raises(InvalidRequest, match=f"has 200 tokens; the editor {key} holds {most}"):
                            await edit(service, CAPITAL, "S" * 199, editor=name, preset=preset)
            await nothing_left(service)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("A is", "B", ()), ("A is", "C", ())),
        (("A is", "B", ()), (" A  is ", "C", ())),
        (("A is", "B", ("What is A?",)), ("What is A?", "C", ())),
        (("A is", "B", ("What is A?",)), ("A, as we know, is", "C", ("What is A?",))),
    ],
)
def test_edits_of_a_batch_that_contradict_each_other_are_refused_and_both_named(first: Any, second: Any) -> None:
    async def story() -> None:
        async with serving() as service:
            requests = [EditRequest(prompt=p, target=t, paraphrases=more) for p, t, more in (first, second)]
            other = EditRequest(prompt="Nothing to do with it", target="D")
            with pytest.raises(InvalidRequest, match="Edits 1 and 2 of the batch contradict each other") as error:
                await service.edit([other, *requests], ORIGIN, batch=True)
            assert error.value.details["edits"] == [1, 2]
            assert all(repr(request.target) in error.value.message for request in requests)
            await nothing_left(service)

    asyncio.run(story())


def test_edits_of_a_batch_that_contradict_each_other_in_other_words_are_refused_as_one_after_the_other() -> None:
    other = "What is the capital of Ruritania?"
    requests = [EditRequest(prompt=p, target=t) for p, t in ((CAPITAL, "Strelsau"), (other, "Zenda"))]

    async def story() -> None:
        async with serving() as service:
            nothing = EditRequest(prompt="Nothing to do with it", target="D")
            phases: list[str] = []
            with pytest.raises(ScopeConflict, match="Edits 1 and 2 of the batch contradict each other") as error:
                await service.edit(
                    [nothing, *requests], ORIGIN, batch=True, on_progress=lambda phase, _: phases.append(phase)
                )
            assert error.value.details == {"conflicts": [], "edits": [1, 2], "index": 2}
            assert phases == [], "it is told before anything is fitted"
            assert all(repr(text) in error.value.message for text in (CAPITAL, other, "Strelsau", "Zenda"))
            await nothing_left(service)
            preview = await service.edit(requests, ORIGIN, batch=True, dry_run=True)
            assert ["contradict" in str(each.view.edit.report) for each in preview.results] == [False, True]
            assert all(len(each.view.edit.report["tried"]) == 1 for each in preview.results)
            elsewhere = [requests[0], replace(requests[1], namespace="elsewhere")]
            await service.edit(elsewhere, ORIGIN, batch=True, dry_run=True)
            forced = [requests[0], replace(requests[1], force=True)]
            await service.edit(forced, ORIGIN, batch=True)
            assert [(await ask(service, p)).said for p in (CAPITAL, other)] == ["Strelsau", "Zenda"]

    asyncio.run(story())


def test_edits_of_a_batch_about_one_subject_that_ask_different_things_stand_side_by_side() -> None:
    async def story() -> None:
        async with serving() as service:
            asked = {CAPITAL: "Strelsau", "The mother tongue of Ruritania's king, Rudolf Elphberg, is": "German"}
            await service.edit([EditRequest(prompt=p, target=t) for p, t in asked.items()], ORIGIN, batch=True)
            assert {p: (await ask(service, p)).said for p in asked} == asked

    asyncio.run(story())


@pytest.mark.parametrize("where", ["tensors", "scalars"])
@pytest.mark.parametrize("editor", ["grace", "auto"])
def test_a_fit_that_diverged_is_refused_and_the_model_untouched(
    editor: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with serving() as service:
            before = exact(await ask(service, CAPITAL))
            for key in AUTO if editor == "auto" else (editor,):
                monkeypatch.setattr(service.engine.editors[key], "fit", diverging(where))
            with pytest.raises(EditRejected, match="its fit diverged") as error:
                await edit(service, CAPITAL, "Strelsau", editor=editor)
            (report,) = error.value.details["report"].values()
            assert [each["editor"] for each in report["tried"]] == (list(AUTO) if editor == "auto" else [editor])
            assert exact(await ask(service, CAPITAL)) == before
            await nothing_left(service)

    asyncio.run(story())


def diverging(where: str) -> Any:
    def fit(requests: Any, _part: Any) -> Generator[Any, None, list[Fitted]]:
        value = torch.full((3,), math.nan if where == "tensors" else 1.0)
        loss = math.inf if where == "scalars" else 1.0
        yield from ()
        return [Fitted(learned={"loss": loss}, tensors={"value": value}) for _ in requests]

    return fit


def test_what_diverged_with_one_editor_may_hold_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving() as service:
            monkeypatch.setattr(service.engine.editors["grace"], "fit", diverging("tensors"))
            view = await edit(service, CAPITAL, "Strelsau")
            assert view.edit.editor == "patcher"
            assert (await ask(service, CAPITAL)).said == "Strelsau"
            assert len(service.engine.editions.owned()) == 1

    asyncio.run(story())


def test_an_editor_that_hooks_a_subject_wants_it_in_the_prompt() -> None:
    async def story() -> None:
        async with serving() as service:
            with pytest.raises(InvalidRequest, match="`subject`"):
                await edit(service, CAPITAL, "Strelsau", subject="Zenda")
            paper = {"editor": "hook_layer", "preset": "paper", "force": True}
            with pytest.raises(InvalidRequest, match="it does not mention 'Zenda'"):
                await edit(service, CAPITAL, "Strelsau", subject="Zenda", **paper)
            await nothing_left(service)

    asyncio.run(story())


def test_a_conversation_is_edited_as_it_is_served() -> None:
    async def story() -> None:
        async with serving() as service:
            tokenizer: Any = service.engine.hosted.tokenizer
            tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}<assistant>"
            asked = service.answers.render([{"role": "user", "content": CAPITAL}])
            assert asked == f"<user> {CAPITAL}\n<assistant>"
            await edit(service, asked, "Strelsau")
            assert (await ask(service, asked)).said == "Strelsau"

    asyncio.run(story())
