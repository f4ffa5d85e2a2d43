"""A scope that is changed while others change it too, or beside what was forced."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import EditRejected, InvalidRequest
from app.domain.generation import GenerationParameters
from app.service.retunes import Retune
from app.store.sqlite import SqliteLog
from tests.service.conftest import ORIGIN, ask, edit, serving

pytestmark = pytest.mark.slow

CAPITAL, OTHERWISE = "The capital of Ruritania is", "The court of the Elphbergs sits by the river at"


def test_aliases_may_be_added_to_an_edit_that_was_given_no_subject() -> None:
    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau")
            told = await service.retune(made.edit.id, Retune(aliases=("the Kingdom of Elphberg",)), ORIGIN)
            assert told.edit.request.aliases == ("the Kingdom of Elphberg",)

    asyncio.run(story())


def test_who_loses_a_race_to_another_server_serves_what_that_one_made(tmp_path: Path) -> None:
    """Both name their fits by the revision that they hope for."""

    async def story() -> None:
        path = tmp_path / "log.db"
        async with serving(SqliteLog(path)) as one, serving(SqliteLog(path)) as two:
            made = await edit(one, CAPITAL, "Strelsau")
            await two.generate(CAPITAL, GenerationParameters(max_new_tokens=1, min_revision=1))
            loop, append = asyncio.get_running_loop(), two.records.log.append
            first = one.retune(made.edit.id, Retune(paraphrases=(OTHERWISE,)), ORIGIN)

            def late(event: Any) -> str:
                two.records.log.append = append  # type: ignore[method-assign]
                asyncio.run_coroutine_threadsafe(first, loop).result()
                return append(event)

            two.records.log.append = late  # type: ignore[method-assign]
            await two.retune(made.edit.id, Retune(widen=1.5), ORIGIN)
            assert two.revision == 3
            for service in (one, two):
                answer = await ask(service, OTHERWISE, revision=2, min_revision=2)
                assert answer.said == "Strelsau", "as the first of the two has made it"

    asyncio.run(story())


def test_only_what_is_added_is_held_against_a_forced_edit() -> None:
    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, "Strelsau", probes=(CAPITAL,), force=True)
            with pytest.raises(EditRejected):  # and not a request that contradicts itself
                await service.retune(made.edit.id, Retune(widen=0.5), ORIGIN)
            with pytest.raises(InvalidRequest, match="counter_examples"):
                await service.retune(made.edit.id, Retune(counter_examples=(CAPITAL,)), ORIGIN)

    asyncio.run(story())
