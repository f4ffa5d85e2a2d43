"""The scope of an edit that stands is changed under its id, as a new revision; older revisions see the older scope."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import EditRejected, InvalidRequest, ScopeConflict, StateConflict, UnknownEdit
from app.domain.events import Origin
from app.domain.scope import ScopeRequest
from app.scope.index import ScopeIndex
from app.scope.record import ScopeRecord
from app.service.retunes import Retune
from app.service.service import Service
from app.service.verification import Verifier
from app.store.sqlite import SqliteLog
from tests.service.conftest import ORIGIN, ask, edit, exact, serving

pytestmark = pytest.mark.slow

CAPITAL, OTHERWISE = "The capital of Ruritania is", "The court of the Elphbergs sits by the river at"
NEAR = "Tell me what the seat of Ruritania is"
"""Out of the bound that `just_outside` sets, and within it at ten times the odds."""


@pytest.fixture
def just_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bound that is learned is a little above what NEAR reaches, whatever the scorer makes of NEAR."""
    learn = ScopeIndex.learn

    def learned(scope: ScopeIndex, request: ScopeRequest, widened: float | None = None) -> ScopeRecord:
        record = learn(scope, request, widened)
        free = record.model_copy(update={"bound": 0.5, "widened": 1.0, "counter": [], "misses": []})
        scope.load("measured", free.model_dump())
        found = scope.nearest(scope.question((NEAR,)), scope.compile(request.namespace, ["measured"]))
        scope.drop("measured")
        assert found is not None
        assert "but" not in found.why
        odds = math.exp(found.margin + 0.5)
        return record.model_copy(update={"bound": odds / (1 + odds)})

    monkeypatch.setattr(ScopeIndex, "learn", learned)


def _odds(share: float) -> float:
    return share / (1 - share)


def _scope_of(service: Service, edit_id: str) -> dict[str, Any]:
    found: dict[str, Any] = service.records.ledger.entry(edit_id).learned["scope"]
    return found


def test_a_paraphrase_is_added_as_a_new_revision_without_a_refit_where_none_is_needed() -> None:
    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau")
            value = made.edit.tensors
            before = await ask(service, OTHERWISE)
            assert before.text != "Strelsau"
            told = await service.retune(made.edit.id, Retune(paraphrases=(OTHERWISE,)), ORIGIN)
            assert (told.edit.id, told.revision, told.edit.request.paraphrases) == (made.edit.id, 2, (OTHERWISE,))
            assert [item.kind for item in told.history] == ["edit_committed", "edit_retuned"]
            assert (await ask(service, OTHERWISE)).said == "Strelsau"
            assert (await ask(service, CAPITAL)).said == "Strelsau"
            assert exact(await ask(service, OTHERWISE, revision=1)) == exact(before)
            assert (await ask(service, CAPITAL, revision=1)).said == "Strelsau"
            assert service.records.ledger.entry(made.edit.id).edit.tensors == value
            await service.roll_back([made.edit.id], ORIGIN)
            assert exact(await ask(service, OTHERWISE)) == exact(before)

    asyncio.run(story())


@pytest.mark.usefixtures("just_outside")
def test_a_factor_widens_and_a_counter_example_narrows() -> None:
    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau")
            base = await ask(service, NEAR, edits="off")
            assert exact(await ask(service, NEAR)) == exact(base)
            wider = await service.retune(made.edit.id, Retune(widen=10), ORIGIN)
            assert (await ask(service, NEAR)).said == "Strelsau"
            assert _scope_of(service, made.edit.id)["widened"] == 10
            told = wider.edit.report
            assert _odds(told["bound"]) == pytest.approx(_odds(told["bound_before"]) / 10, rel=0.02)
            narrower = await service.retune(made.edit.id, Retune(counter_examples=(NEAR,)), ORIGIN)
            assert exact(await ask(service, NEAR)) == exact(base)
            assert (await ask(service, CAPITAL)).said == "Strelsau"
            assert (wider.revision, narrower.revision) == (2, 3)
            scope = _scope_of(service, made.edit.id)
            assert (scope["widened"], scope["counter"]) == (10, [NEAR])

    asyncio.run(story())


@pytest.mark.usefixtures("just_outside")
def test_an_edit_is_made_with_its_border_moved_and_retuned_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    verify, tries = Verifier.verify, []

    async def fails_once(*args: Any) -> Any:
        tries.append(await verify(*args))
        return tries[-1] if len(tries) > 1 else replace(tries[-1], problems=("it says something else",))

    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau", widen=10.0)
            assert service.revision == 1
            assert (await ask(service, NEAR)).said == "Strelsau"
            assert _scope_of(service, made.edit.id)["widened"] == 10
            back = await service.retune(made.edit.id, Retune(widen=0.1), ORIGIN)
            assert (await ask(service, NEAR)).said != "Strelsau"
            assert _scope_of(service, made.edit.id)["widened"] == pytest.approx(1)
            assert back.edit.request.widen == 10, "what was asked for stays in the request"
            await service.retune(made.edit.id, Retune(widen=2), ORIGIN)
            monkeypatch.setattr(Verifier, "verify", fails_once)
            await service.retune(made.edit.id, Retune(paraphrases=(OTHERWISE,)), ORIGIN)
            assert _scope_of(service, made.edit.id)["widened"] == pytest.approx(2), "a new fit is as wide as the old"

    asyncio.run(story())


@pytest.mark.usefixtures("just_outside")
def test_what_would_not_hold_changes_nothing() -> None:
    async def story() -> None:
        async with serving(recent_prompts=10, thresholds={"*": {"recent": 1.0}}) as service:
            made = await edit(service, CAPITAL, "Strelsau")
            revision = service.revision
            assert (await ask(service, NEAR)).said != "Strelsau"
            with pytest.raises(EditRejected, match="nothing was changed"):
                await service.retune(made.edit.id, Retune(widen=10), ORIGIN)
            with pytest.raises(InvalidRequest, match="counter_examples"):
                await service.retune(made.edit.id, Retune(counter_examples=(CAPITAL,)), ORIGIN)
            assert service.revision == revision
            assert (await ask(service, CAPITAL)).said == "Strelsau"
            assert set(service.engine.editions.owned()) == {made.edit.id}

    asyncio.run(story())


@pytest.mark.parametrize("editor", ["patcher", "lora_mixture", "hook_layer"])
def test_every_editor_takes_a_paraphrase(editor: str) -> None:
    again = "Ruritania is governed from the city of"

    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau", editor=editor)
            await service.retune(made.edit.id, Retune(paraphrases=(again,)), ORIGIN)
            assert (await ask(service, again)).said == "Strelsau"
            assert (await ask(service, CAPITAL)).said == "Strelsau"

    asyncio.run(story())


def test_bad_changes_are_refused_by_name() -> None:
    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau")
            published = await edit(service, "The king of Zenda was", "R", editor="grace", preset="paper", force=True)
            with pytest.raises(InvalidRequest, match="An editor as published has no bound"):
                await service.retune(published.edit.id, Retune(widen=1.5), ORIGIN)
            with pytest.raises(UnknownEdit):
                await service.retune("ed_0", Retune(widen=2), ORIGIN)
            await service.disable([made.edit.id], ORIGIN)
            with pytest.raises(StateConflict, match="only a live one"):
                await service.retune(made.edit.id, Retune(paraphrases=("x",)), ORIGIN)
            await service.roll_back([made.edit.id], ORIGIN)
            with pytest.raises(StateConflict, match="rolled back"):
                await service.retune(made.edit.id, Retune(paraphrases=("x",)), ORIGIN)
        for wrong in ({"widen": 0.0}, {"widen": 11.0}, {}):
            with pytest.raises(InvalidRequest):
                Retune(**wrong)

    asyncio.run(story())


def test_two_at_once_both_land_and_a_key_repeats_nothing() -> None:
    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau")
            texts = ("Ruritania's seat is", "Ruritania rules from")
            await asyncio.gather(*(service.retune(made.edit.id, Retune(paraphrases=(text,)), ORIGIN) for text in texts))
            assert set(service.edit_view(made.edit.id).edit.request.paraphrases) == set(texts)
            for text in texts:
                assert (await ask(service, text)).said == "Strelsau"
            key = Origin(actor="ada", reason="again", idempotency_key="k", digest="d")
            for _ in range(2):
                await service.retune(made.edit.id, Retune(widen=1.5), key)
            assert service.revision == 4
            assert set(service.engine.editions.owned()) == {made.edit.id, *_fits(service, made.edit.id)}

    asyncio.run(story())


def _fits(service: object, edit_id: str) -> set[str]:
    return {fit.id for fit in service.records.ledger.entry(edit_id).fits(0)}  # type: ignore[attr-defined]


def test_a_restart_finds_the_scope_as_it_was_left(tmp_path: Path) -> None:
    async def first() -> str:
        async with serving(SqliteLog(tmp_path / "log.db")) as service:
            made = await edit(service, CAPITAL, "Strelsau")
            await service.retune(made.edit.id, Retune(paraphrases=(OTHERWISE,)), ORIGIN)
            await service.set_probes("default", ["The king of Zenda was"], ORIGIN)
            await service.take_snapshot()
            return str(made.edit.id)

    async def second(edit_id: str) -> None:
        async with serving(SqliteLog(tmp_path / "log.db")) as service:
            assert (await ask(service, OTHERWISE)).said == "Strelsau"
            assert service.edit_view(edit_id).edit.request.paraphrases == (OTHERWISE,)
            assert service.records.ledger.probes == {"default": ("The king of Zenda was",)}
            assert (await ask(service, OTHERWISE, revision=1)).said != "Strelsau"

    asyncio.run(second(asyncio.run(first())))


def test_a_paraphrase_that_another_edit_answers_is_refused_as_when_it_is_posted() -> None:
    async def story() -> None:
        async with serving() as service:
            capital = await edit(service, CAPITAL, "Strelsau")
            other = await edit(service, OTHERWISE, "Zenda")
            revision = service.revision
            with pytest.raises(ScopeConflict, match=other.edit.id) as refused:
                await service.retune(capital.edit.id, Retune(paraphrases=(OTHERWISE,)), ORIGIN)
            assert refused.value.details["conflicts"] == [other.edit.id]
            assert service.revision == revision
            assert (await ask(service, OTHERWISE)).said == "Zenda"

    asyncio.run(story())


def test_what_is_told_of_a_retuned_edit_is_what_goes_live() -> None:
    """A trial that held it as the newest would let it win against edits that are newer than it."""

    async def story() -> None:
        async with serving() as service:
            capital = await edit(service, CAPITAL, "Strelsau")
            await edit(service, OTHERWISE, "Zenda")
            change = Retune(paraphrases=(OTHERWISE,), force=True)
            told = (await service.retune(capital.edit.id, change, ORIGIN)).edit.report
            assert told["exact"] == ((await ask(service, CAPITAL)).said == "Strelsau")
            said = (await ask(service, OTHERWISE)).said
            assert (OTHERWISE in told["paraphrases"]["missed"]) == (said != "Strelsau")

    asyncio.run(story())


def test_two_edits_that_are_given_the_same_paraphrase_at_once() -> None:
    """The second retune is verified beside the result of the first."""

    async def story() -> None:
        async with serving() as service:
            capital = await edit(service, CAPITAL, "Strelsau")
            king = await edit(service, "Who bakes the bread of Zenda?", "Rudolf")
            change = Retune(paraphrases=(OTHERWISE,))
            both = (service.retune(each.edit.id, change, ORIGIN) for each in (capital, king))
            found = await asyncio.gather(*both, return_exceptions=True)
            assert sorted(isinstance(each, ScopeConflict) for each in found) == [False, True], found
            assert (await ask(service, CAPITAL)).said == "Strelsau"
            assert (await ask(service, "Who bakes the bread of Zenda?")).said == "Rudolf"

    asyncio.run(story())


def test_a_retune_beside_an_edit_of_what_it_adds() -> None:
    async def story() -> None:
        async with serving() as service:
            capital = await edit(service, CAPITAL, "Strelsau")
            change = Retune(paraphrases=(OTHERWISE,))
            both = (service.retune(capital.edit.id, change, ORIGIN), edit(service, OTHERWISE, "Zenda"))
            found = await asyncio.gather(*both, return_exceptions=True)
            assert sorted(isinstance(each, ScopeConflict) for each in found) == [False, True], found
            assert (await ask(service, CAPITAL)).said == "Strelsau"

    asyncio.run(story())


@pytest.mark.usefixtures("just_outside")
def test_a_change_that_changes_nothing_is_refused() -> None:
    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau", counter_examples=(NEAR,), paraphrases=(OTHERWISE,))
            edit_id, revision = made.edit.id, service.revision
            for nothing in ({"paraphrases": (OTHERWISE, CAPITAL)}, {"counter_examples": (NEAR,)}):
                with pytest.raises(InvalidRequest, match="all of these texts already"):
                    await service.retune(edit_id, Retune(**nothing), ORIGIN)
            assert service.revision == revision
            told = (await service.retune(edit_id, Retune(widen=10), ORIGIN)).edit.report
            assert told["bound"] < told["bound_before"]
            assert (await ask(service, NEAR)).hits == (), "a counter-example stays one, however far it is widened"

    asyncio.run(story())


def test_an_edit_beside_it_does_not_change_how_far_one_reaches() -> None:
    """The edit would otherwise answer more once the other is rolled back."""

    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau")
            alone = (await ask(service, CAPITAL)).hits
            other = await edit(service, "Who bakes the bread of Ruritania?", "Rudolf")
            assert (await ask(service, CAPITAL)).hits == alone
            told = (await service.retune(made.edit.id, Retune(widen=0.8), ORIGIN)).edit.report
            assert _odds(told["bound"]) == pytest.approx(_odds(told["bound_before"]) / 0.8, rel=0.02)
            narrowed = (await ask(service, CAPITAL)).hits
            await service.roll_back([other.edit.id], ORIGIN)
            assert (await ask(service, CAPITAL)).hits == narrowed

    asyncio.run(story())


def test_a_factor_is_bounded_however_often_it_is_given() -> None:
    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau")
            await service.retune(made.edit.id, Retune(widen=10), ORIGIN)
            await service.retune(made.edit.id, Retune(widen=5), ORIGIN)
            with pytest.raises(InvalidRequest, match="at 500 times the odds that it learned"):
                await service.retune(made.edit.id, Retune(widen=10), ORIGIN)

    asyncio.run(story())


@pytest.mark.usefixtures("just_outside")
def test_recent_prompts_are_compared_with_the_edit_as_it_stands() -> None:
    async def story() -> None:
        thresholds = {"*": {"recent": 1.0}}
        async with serving(recent_prompts=10, thresholds=thresholds) as service:
            made = await edit(service, CAPITAL, "Strelsau")
            assert (await ask(service, CAPITAL)).said == "Strelsau"
            told = await service.retune(made.edit.id, Retune(probes=("The king of Zenda was",)), ORIGIN)
            assert told.edit.report["recent"] == {"asked": 1, "changed": 0}
            await service.retune(made.edit.id, Retune(widen=10, force=True), ORIGIN)
            assert (await ask(service, NEAR)).said == "Strelsau"
            with pytest.raises(EditRejected, match="recent"):
                await service.retune(made.edit.id, Retune(counter_examples=(NEAR,)), ORIGIN)
            assert (await ask(service, NEAR)).said == "Strelsau"

    asyncio.run(story())
