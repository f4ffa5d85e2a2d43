"""A verification generates no more than it reads: counted in tokens, not in seconds."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from app.domain.edit import EditRequest
from app.domain.errors import QueueFull
from app.domain.words import begins_text
from app.engine.scheduler import Batch
from app.service.neighbourhood import Neighbourhood
from app.service.trial_answers import ROOM_TOKENS, TrialAnswers
from app.service.verification import VerificationPrompts
from tests.service.conftest import ORIGIN, edit, serving

CAPITAL, TARGET = "The capital of Ruritania is", "Strelsau"
OTHERWISE, PROBE, FRAMED = "Who bakes the bread of Zenda?", "The king of Zenda was", "Where is the old mill?"


def test_a_verification_generates_no_more_than_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    gather = Neighbourhood.of
    steps: Counter[str] = Counter()

    async def of(*args: Any, **options: Any) -> VerificationPrompts:
        frames = {"elsewhere": (FRAMED,)}
        return replace(await gather(*args, **options), made=(f"{CAPITAL} ", OTHERWISE), probes=(PROBE,), frames=frames)

    async def story() -> None:
        async with serving() as service:
            following = service.engine.scheduler.next

            def counted() -> Batch | None:
                batch = following()
                steps.update([] if batch is None else [each.text for each in batch.sequences])
                return batch

            monkeypatch.setattr(Neighbourhood, "of", of)
            monkeypatch.setattr(service.engine.scheduler, "next", counted)
            report = (await edit(service, CAPITAL, TARGET)).edit.report
            assert report["made"] == {"asked": 2, "right": 1, "missed": [OTHERWISE]}
            assert report["unchanged"] == {"asked": 1, "right": 1, "changed": []}
            assert report["frames"] == {"asked": 1, "right": 1, "defers_in": []}

    asyncio.run(story())
    assert steps[f"{CAPITAL} "] == 2, "a paraphrase that gives the target is answered to its end, which is fed ahead"
    assert 1 <= steps[OTHERWISE] < ROOM_TOKENS / 4, "it leaves the target at once; the engine may be a few steps ahead"
    assert (steps[PROBE], steps[FRAMED]) == (0, 0), "no edit answers them"


def test_a_verification_that_fails_leaves_nothing_behind_that_asks_for_released_rows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A question that goes on under released rows fails the engine's step, and with it everybody's answers."""
    really, begun, ended = TrialAnswers.ask_all, asyncio.Event(), list[str]()

    async def ask_all(self: TrialAnswers, groups: Any) -> Any:
        prompt = groups[0][0].prompt
        if prompt == OTHERWISE:
            await begun.wait()
            raise QueueFull("1024 requests wait already.")
        begun.set()
        try:
            await asyncio.sleep(0.3)
            return await really(self, groups)
        finally:
            ended.append(prompt)

    async def story() -> None:
        monkeypatch.setattr(TrialAnswers, "ask_all", ask_all)
        async with serving() as service:
            requests = [EditRequest(prompt=prompt, target=TARGET) for prompt in (CAPITAL, OTHERWISE)]
            with pytest.raises(QueueFull):
                await service.edit(requests, ORIGIN, batch=True)
            assert ended == [CAPITAL], "it was ended, and waited for"
            assert not service.engine.editions.owned()
            await asyncio.sleep(1.0)
            assert "A forward pass failed" not in caplog.text

    asyncio.run(story())


@pytest.mark.parametrize(
    ("said", "may"),
    [("", True), (" The", True), ("The  ca", True), ("The capital", True), ("The capital.", False), ("Thec", False)],
)
def test_an_answer_may_still_become_the_target(said: str, may: bool) -> None:
    assert begins_text(said, "The capital") == may
