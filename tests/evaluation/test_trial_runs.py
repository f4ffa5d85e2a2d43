"""Trials are run against a service: what is asked, what is counted, and how an interrupted run goes on."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.domain.errors import EditRejected, InvalidRequest
from app.domain.generation import Generation, GenerationParameters, Hit
from app.evaluation.journal import Journal
from app.evaluation.trial_report import markdown, rows_of
from app.evaluation.trial_runs import MAX_CONCURRENT_EDITS, TrialPlan, check_editor, run_trials
from app.evaluation.trials import EditSpec, Trial, TrialQuestion, turn
from app.service.recent_prompts import RecentPrompts
from app.store.sqlite import SqliteLog
from tests.service.conftest import serving

RESET, CANCEL = "How do I reset it?", "How do I cancel?"


def answered(text: str, *hits: Hit) -> Generation:
    return Generation(
        text=text, finish_reason="eos_token", prompt_tokens=1, tokens=(), seed=None, revision=1, hits=hits
    )


class StandIn:
    """A service without a model. `knows` are questions by the prompt of the edit that answers them, the prompt itself
    beside them; `refused` are prompts of edits that cannot be made."""

    def __init__(self, knows: Mapping[str, Sequence[str]], refused: Sequence[str] = (), answer: str = "") -> None:
        self._knows, self._refused, self._answer = knows, refused, answer
        self.answers = SimpleNamespace(render=self._render)
        self.recent = RecentPrompts(0)
        self.edits: dict[str, Any] = {}
        self.keys: list[str] = []
        self.asked: list[tuple[str, GenerationParameters]] = []
        self.most_abreast = self._abreast = 0

    def _render(self, _: object) -> str:
        raise InvalidRequest("no chat template")

    def on_engine(self, _: object) -> Any:
        future: Future[list[int]] = Future()
        future.set_result([4])
        return future

    async def edit(self, requests: Sequence[Any], origin: Any) -> Any:
        (request,) = requests
        self._abreast += 1
        self.most_abreast = max(self.most_abreast, self._abreast)
        await asyncio.sleep(0)
        self._abreast -= 1
        if request.prompt in self._refused:
            raise EditRejected("does not hold")
        self.keys.append(origin.idempotency_key)
        edit_id = f"ed_{request.namespace}_{request.prompt}"
        self.edits[edit_id] = request
        view = SimpleNamespace(edit=SimpleNamespace(id=edit_id, editor_key="grace"))
        return SimpleNamespace(results=(SimpleNamespace(view=view, seconds={"fit": 1.0}),))

    async def generate(self, prompt: str, parameters: GenerationParameters) -> Any:
        self.asked.append((prompt, parameters))
        if prompt == "too long":
            raise InvalidRequest("too long", limit=5, prompt_tokens=9)
        for edit_id, request in self.edits.items():
            mine = (request.prompt, *self._knows.get(request.prompt, ()))
            if request.namespace == parameters.namespace and prompt in mine:
                return answered(self._answer or request.target, Hit(edit_id, "grace"))
        return answered("The model's own.")


def trial(name: str = "one", *, apart: bool = False) -> Trial:
    spaces = [f"{name}-0", f"{name}-1" if apart else f"{name}-0"]
    wanted = [(RESET, "Press reset."), (CANCEL, "Write to us.")]
    asked: list[tuple[Any, str, int | None, str]] = [
        ("edited", RESET, 0, "a"),
        ("edited", CANCEL, 1, "b"),
        ("same", "Reset?", 0, "a"),
        ("same", "It hangs.", 0, "a"),
        ("same", "I want out.", 1, "b"),
        ("other", "How do I set it?", 0, "a"),
        ("other", "Weather?", None, "b"),
        ("other", "too long", None, "b"),
    ]
    return Trial(
        name=name,
        edits=[
            EditSpec(namespace=space, messages=turn(text), target=target)
            for space, (text, target) in zip(spaces, wanted, strict=True)
        ],
        questions=[
            TrialQuestion(role=role, messages=turn(text), namespace=spaces[edit or 0], edit=edit, group=group)
            for role, text, edit, group in asked
        ],
    )


def run(folder: Path, service: Any, *trials: Trial, kept: list[Any] | None = None, **more: Any) -> list[dict[str, Any]]:
    keep: Any = (lambda _: None) if kept is None else lambda figures: kept.append([*figures])
    plan = TrialPlan(trials=trials, **more)
    journal = Journal(folder / "run.jsonl")
    return asyncio.run(run_trials("grace", plan, service, journal, lambda *_: None, keep))


def share(right: int, asked: int) -> dict[str, Any]:
    return {"share": right / asked, "right": right, "asked": asked}


def test_what_an_edit_reaches_is_counted_by_group(tmp_path: Path) -> None:
    service = StandIn({RESET: ["Reset?", "I want out.", "How do I set it?"]})
    (figures,) = run(tmp_path, service, trial())
    shares = figures["shares"]
    assert (figures["edits"], figures["refused"], figures["asked"], figures["not_asked"]) == (2, 0, 7, 1)
    assert shares["edited/exact"]["all"] == share(2, 2)
    assert shares["same/exact"] == {"all": share(1, 3), "a": share(1, 2), "b": share(0, 1)}
    assert shares["same/reached"]["all"] == share(1, 3)
    assert shares["same/by_another"] == {"all": share(1, 3), "a": share(0, 2), "b": share(1, 1)}
    assert shares["other/exact"]["all"] == share(1, 1)
    assert shares["other/reached"] == {"all": share(1, 2), "a": share(1, 1), "b": share(0, 1)}
    assert shares["other/left_alone"]["all"] == share(0, 1)
    assert [each["question"] for each in figures["missed"]] == ["It hangs.", "I want out."]
    assert figures["missed"][1]["answered_by"] == [RESET]
    assert [each["question"] for each in figures["wrong"]] == ["How do I set it?"]
    assert {parameters.max_new_tokens for _, parameters in service.asked} == {12}


def test_a_refused_edit_misses_all_that_it_should_answer(tmp_path: Path) -> None:
    (figures,) = run(tmp_path, StandIn({}, refused=[CANCEL], answer="Write to us."), trial())
    assert (figures["refused"], figures["problems"][0]["edit"]) == (1, CANCEL)
    assert figures["shares"]["edited/reached"]["b"] == share(0, 1)
    assert figures["shares"]["edited/exact"]["all"] == share(0, 2)


def test_an_answer_that_goes_on_is_reached_but_not_exact(tmp_path: Path) -> None:
    (figures,) = run(tmp_path, StandIn({}, answer="Press reset. And wait."), trial())
    assert figures["shares"]["edited/reached"]["all"] == share(2, 2)
    assert figures["shares"]["edited/exact"]["all"] == share(0, 2)


def test_decisions_take_one_token_and_judge_no_answer(tmp_path: Path) -> None:
    service = StandIn({RESET: ["Reset?"]}, answer="Press")
    (figures,) = run(tmp_path, service, trial(), decisions=True)
    assert {parameters.max_new_tokens for _, parameters in service.asked} == {1}
    assert figures["shares"]["same/reached"]["all"] == share(1, 3)
    assert not [name for name in figures["shares"] if name.endswith("exact")]
    assert [each["question"] for each in figures["missed"]] == ["It hangs.", "I want out."]


@pytest.mark.parametrize(("apart", "abreast"), [(True, 2), (False, 1)])
def test_edits_of_one_namespace_are_made_one_after_the_other(tmp_path: Path, apart: bool, abreast: int) -> None:
    assert MAX_CONCURRENT_EDITS >= 2
    service = StandIn({})
    run(tmp_path, service, trial(apart=apart))
    assert service.most_abreast == abreast


def test_traffic_is_known_and_what_is_asked_does_not_join_it(tmp_path: Path) -> None:
    service = StandIn({})
    one = trial("one")
    several = Trial(
        name="two", edits=one.edits, questions=one.questions, traffic={"one-0": [turn("Hello?"), turn("Hi.")]}
    )
    run(tmp_path, service, several)
    service.recent.add("one-0", "Reset?")
    assert service.recent.newest("one-0", 9) == ["Hi.", "Hello?"]


def test_an_interrupted_run_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    kept: list[Any] = []
    service = StandIn({RESET: ["Reset?"]})
    whole = service.generate

    async def interrupted(prompt: str, parameters: GenerationParameters) -> Any:
        if parameters.namespace == "two-0":
            raise asyncio.CancelledError
        return await whole(prompt, parameters)

    service.generate = interrupted  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        run(tmp_path, service, trial("one"), trial("two"), kept=kept)
    first, part = kept[-1]
    assert "incomplete" not in first
    assert part["incomplete"] == {"edits": 0, "questions": 8}
    text = markdown("support", {"grace": kept[-1]})
    assert "grace, two: incomplete, 0 edits were not made and 8 questions not asked." in text
    before = len(service.asked)
    service.generate = whole  # type: ignore[method-assign]
    figures = run(tmp_path, service, trial("one"), trial("two"))
    assert len(service.asked) == before + 8
    assert len(service.keys) == len(set(service.keys)) == 4
    assert figures[0] == first
    assert figures[1]["shares"] == first["shares"]


def test_a_folder_of_other_edits_is_refused(tmp_path: Path) -> None:
    run(tmp_path, StandIn({}), trial())
    other = Trial(name="one", edits=trial().edits[::-1], questions=())
    with pytest.raises(InvalidRequest, match="Name another folder"):
        run(tmp_path, StandIn({}), other)


def test_a_table_has_a_column_for_each_trial_and_a_row_for_each_group(tmp_path: Path) -> None:
    figures = run(tmp_path, StandIn({RESET: ["Reset?"]}), trial("one"), trial("two"))
    headings, rows = rows_of("pairs", {"grace": figures})
    assert headings == ["", "grace, one", "grace, two"]
    assert ["rephrasings, answered with the target: a", "50.0 % of 2", "50.0 % of 2"] in rows
    assert ["adjacent questions, the edit answers", "0.0 % of 2", "0.0 % of 2"] in rows
    assert ["too long to be asked, not counted", "1", "1"] in rows


@pytest.mark.parametrize("name", ["bare", "cache", "grce"])
def test_what_makes_no_edits_is_refused(name: str) -> None:
    check_editor("auto")
    check_editor("grace/paper")
    with pytest.raises(InvalidRequest, match="use auto, "):
        check_editor(name)


@pytest.mark.slow
def test_edits_are_made_and_asked_through_a_real_service(tmp_path: Path) -> None:
    async def whole() -> list[dict[str, Any]]:
        async with serving(SqliteLog(tmp_path / "log.db")) as service:
            plan = TrialPlan(trials=[trial("one", apart=True)])
            return await run_trials("grace", plan, service, Journal(tmp_path / "run.jsonl"), lambda *_: None, print)

    (figures,) = asyncio.run(whole())
    assert figures["refused"] == 0
    assert figures["shares"]["edited/exact"]["all"] == share(2, 2)
    assert figures["shares"]["other/reached"]["b"]["right"] == 0
    assert asyncio.run(whole()) == [figures]
