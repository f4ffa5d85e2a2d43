"""A prompt's answer before an edit is generated beside the verification, and anew where another edit answers now."""

import asyncio
from typing import Any

import pytest

from app.domain.edit import EditRequest
from app.domain.generation import GenerationParameters
from app.engine.scheduler import Batch
from app.engine.sequence import Phase
from app.service.trial_answers import LEAST_BEFORE, MOST_BEFORE, ROOM_TOKENS
from tests.service.conftest import ORIGIN, edit, serving

pytestmark = pytest.mark.slow
CAPITAL, KING = "The capital of Ruritania is", "The king of Zenda was"


def test_it_is_generated_with_the_trial_and_costs_no_pass_but_its_own_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving() as service:
            engine = service.engine
            batches: list[tuple[Phase, set[tuple[str, ...]]]] = []
            following = engine.scheduler.next

            def seen() -> Batch | None:
                batch = following()
                if batch is not None:
                    batches.append((batch.phase, {tuple(each.edition.edit_ids) for each in batch.sequences}))
                return batch

            monkeypatch.setattr(engine.scheduler, "next", seen)
            view = await edit(service, CAPITAL, "Strelsau", editor="grace")
            phases = [phase for phase, _ in batches]
            assert batches[0] == (Phase.PREFILL, {(), (view.edit.id,)}), "prompts under both editions are read together"
            assert phases.count(Phase.PREFILL) == 2, "two at a time, the prompt with a blank at its end too"
            assert phases.count(Phase.LOOKAHEAD) == 2, "each of the trial's is given in one pass"
            assert phases.count(Phase.DECODE) < MOST_BEFORE, "the first token comes with the prompt"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("target", "tokens"),
    [("Z", LEAST_BEFORE), ("Strelsau, a town by the blue sea, where ships from Zenda lie at night", MOST_BEFORE)],
)
def test_it_has_as_many_tokens_as_the_target_within_bounds(target: str, tokens: int) -> None:
    async def story() -> None:
        async with serving() as service:
            said = await service.generate(CAPITAL, GenerationParameters(max_new_tokens=tokens))
            assert len(said.tokens) == tokens
            assert (await edit(service, CAPITAL, target)).edit.before == said.said

    asyncio.run(story())


def test_a_preview_shows_more_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.service.trial_answers.LEAST_BEFORE", 6)

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
            assert new.edit.before == "Strelsau", "all of it, since it takes one pass"

    asyncio.run(story())
