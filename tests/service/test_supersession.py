"""The real service checks whose edits may be replaced before anything is fitted, and again at the commit."""

import asyncio

import pytest

from app.domain.edit import EditRequest, State
from app.domain.errors import PreconditionFailed, ScopeConflict, UnknownNamespace
from app.domain.events import Origin
from app.store.memory import MemoryLog
from tests.service.conftest import ORIGIN, ask, edit, serving

CAPITAL = "The capital of Ruritania is"
BOB = Origin(actor="bob")


def test_somebody_elses_edit_is_neither_replaced_nor_is_anything_fitted_in_its_place() -> None:
    async def story() -> None:
        async with serving() as service:
            first = await edit(service, CAPITAL, "Strelsau")
            phases: list[str] = []
            request = EditRequest(prompt=CAPITAL, target="Zenda", force=True)
            with pytest.raises(ScopeConflict) as refused:
                await service.edit([request], BOB, on_progress=lambda phase, _: phases.append(phase))
            assert (refused.value.details["conflicts"], phases) == ([first.edit.id], [])
            (preview,) = (await service.edit([EditRequest(prompt=CAPITAL, target="Zenda")], BOB, dry_run=True)).results
            told = preview.view.edit.report
            assert (told["would_commit"], told["conflicts"]) == (False, [first.edit.id])
            named = EditRequest(prompt=CAPITAL, target="Zenda", supersede=(first.edit.id,))
            await service.edit([named], BOB)
            assert (await ask(service, CAPITAL)).said == "Zenda"
            with pytest.raises(PreconditionFailed):
                await service.edit([EditRequest(prompt=CAPITAL, target="Hentzau")], ORIGIN, read=1)
            await service.edit([EditRequest(prompt=CAPITAL, target="Hentzau")], ORIGIN, read=2)
            assert (await ask(service, CAPITAL)).said == "Hentzau"
            assert service.records.ledger.state(first.edit.id) is State.SUPERSEDED

    asyncio.run(story())


def test_of_two_people_who_correct_a_prompt_at_once_on_two_servers_one_is_told_of_the_other() -> None:
    async def story() -> None:
        log = MemoryLog()
        async with serving(log) as one, serving(log) as other:
            both = await asyncio.gather(
                edit(one, CAPITAL, "Strelsau"), edit(other, CAPITAL, "Hentzau", BOB), return_exceptions=True
            )
            assert sorted(type(each).__name__ for each in both) == ["EditView", "ScopeConflict"]
            assert log.head() == 1

    asyncio.run(story())


def test_a_switch_is_of_a_namespace_that_there_is() -> None:
    async def story() -> None:
        async with serving(thresholds={"strict": {"made": 0.5}}) as service:
            with pytest.raises(UnknownNamespace):
                await service.set_switch("strct", False, ORIGIN)
            await service.set_switch("strict", False, ORIGIN)
            assert service.revision == 1

    asyncio.run(story())
