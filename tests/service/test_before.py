"""What a prompt answered before an edit: generated beside the verification, and anew where another edit answers now."""

import asyncio
from typing import Any

import pytest

from app.domain.edit import EditRequest
from app.domain.generation import GenerationParameters
from app.engine.scheduler import Batch
from app.engine.sequence import Phase
from app.service.verification import BEFORE_TOKENS, ROOM_TOKENS
from tests.service.conftest import ORIGIN, edit, serving

CAPITAL, KING = "The capital of Ruritania is", "The king of Zenda was"


def test_it_is_generated_in_one_batch_with_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving() as service:
            engine = service.engine
            batches: list[set[tuple[str, ...]]] = []
            following = engine.scheduler.next

            def seen() -> Batch | None:
                batch = following()
                if batch is not None and batch.phase is Phase.DECODE:
                    batches.append({tuple(each.edition.edit_ids) for each in batch.sequences})
                return batch

            monkeypatch.setattr(engine.scheduler, "next", seen)
            view = await edit(service, CAPITAL, "Strelsau")
            assert {(), (view.edit.id,)} in batches, "side by side"
            assert len(batches) <= 2 * BEFORE_TOKENS, "two at a time, the prompt with a blank at its end too"

    asyncio.run(story())


def test_it_is_as_long_as_the_target_and_a_preview_shows_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.service.verification.BEFORE_TOKENS", 6)

    async def story() -> None:
        async with serving() as service:
            target = len(service.engine.text.encode_target("?", "Strelsau"))
            short, long = [
                await service.generate(CAPITAL, GenerationParameters(max_new_tokens=count))
                for count in (target, target + ROOM_TOKENS)
            ]
            assert short.text != long.text
            preview = await service.edit([EditRequest(prompt=CAPITAL, target="Strelsau")], ORIGIN, dry_run=True)
            assert preview.results[0].view.edit.before == long.text
            assert (await edit(service, CAPITAL, "Strelsau")).edit.before == short.text

    asyncio.run(story())


def test_it_is_what_the_edit_said_that_is_superseded() -> None:
    async def story() -> Any:
        async with serving() as service:
            old = await edit(service, CAPITAL, "Strelsau")
            await edit(service, KING, "Rudolf")
            new = await edit(service, CAPITAL, "Zenda", supersede=(old.edit.id,))
            assert new.edit.before == "Strelsau"

    asyncio.run(story())
