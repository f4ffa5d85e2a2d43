"""Prompts are prepared few at a time, and without the nearest edit if nobody asks for it."""

import asyncio
import os
import threading
import time
from contextlib import aclosing
from typing import Any

import pytest

from app.domain.generation import GenerationParameters
from app.engine.editions import Edition, ScopeDecision
from app.service import generation_path


def test_no_more_prompts_are_prepared_at_once_than_there_are_threads_for() -> None:
    lock, running, most = threading.Lock(), 0, 0

    class Client:
        judge = None

        def ask(self, prompt: str, _: Edition) -> ScopeDecision:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.01)
            with lock:
                running -= 1
            return ScopeDecision(words=[prompt])

    client: Any = Client()
    edition = Edition("default", 1, ("e",))

    async def story() -> Any:
        asked = [[f"a{number}", f"b{number}"] for number in range(40)]
        return await asyncio.gather(*(generation_path.scope_decisions_of(client, some, edition) for some in asked))

    found = [[each.words for each in some] for some in asyncio.run(story())]
    assert found == [[[f"a{number}"], [f"b{number}"]] for number in range(40)]
    assert 1 < most <= max(2, os.cpu_count() or 1)


@pytest.mark.parametrize("explain", [True, False])
def test_the_nearest_edit_is_asked_for_only_if_it_is_reported(explain: bool) -> None:
    class Stopped(Exception):
        pass

    asked: list[bool] = []

    class Client:
        def prepare(self, prompt: str, edition: Edition, schema: str | None, *, nearest: bool) -> None:
            asked.append(nearest)
            raise Stopped

    client: Any = Client()

    async def story() -> None:
        parameters = GenerationParameters(explain=explain)
        async with aclosing(
            generation_path.items_of(client, [("x", parameters)], Edition("default", 0, ()), 0)
        ) as items:
            with pytest.raises(Stopped):
                await anext(items)

    asyncio.run(story())
    assert asked == [explain]
