"""An edit that is promoted reaches as far in the other namespace as it was widened in its own."""

import asyncio

import pytest

from app.service.promotion import promoted
from app.service.retunes import Retune
from tests.service.conftest import ORIGIN, edit, serving

pytestmark = pytest.mark.slow


def test_a_promoted_edit_reaches_as_far_as_it_was_widened() -> None:
    async def story() -> None:
        async with serving() as service:
            ledger = service.records.ledger
            made = await edit(service, "The capital of Ruritania is", "Strelsau")
            entry = ledger.entry(made.edit.id)
            await service.retune(made.edit.id, Retune(widen=1.5), ORIGIN)
            asked = promoted(entry, "production", None, service.records.now_s)
            (there,) = (await service.edit([asked], ORIGIN)).results
            assert (asked.widen, ledger.entry(there.view.edit.id).widened) == (1.5, 1.5)
            (again,) = (await service.edit([asked], ORIGIN)).results
            assert (again.created, again.view.edit.id) == (False, there.view.edit.id)
            await service.retune(made.edit.id, Retune(widen=1 / 1.5), ORIGIN)
            asked = promoted(entry, "production", None, service.records.now_s)
            (narrower,) = (await service.edit([asked], ORIGIN)).results
            assert (asked.widen, narrower.created) == (None, True)
            assert narrower.view.edit.supersedes == (there.view.edit.id,)
            assert ledger.entry(narrower.view.edit.id).widened == 1

    asyncio.run(story())
