"""A proposal on a real engine: nothing of it acts until a second person approves it, and a restart forgets nothing."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.domain.approval import ProposalState
from app.domain.edit import EditRequest
from app.domain.errors import ScopeConflict, StateConflict
from app.domain.events import Origin, PolicySet
from app.service.fit_queue import FitQueue
from app.service.retunes import Retune
from app.service.service import Service
from app.store.memory import MemoryLog
from app.store.sqlite import SqliteLog
from tests.service.conftest import Clock, ask, edit, serving

pytestmark = pytest.mark.slow
PROMPT = "The capital of Zubrowka is"
PAT = Origin(actor="pat", key_id="k1", role="proposer", reason="ticket 1")
ED = Origin(actor="ed", key_id="k2", role="editor")


async def proposed(service: Service, prompt: str = PROMPT, target: str = " one", **more: object) -> str:
    results = await service.edit([EditRequest(prompt=prompt, target=target, **more)], PAT)  # type: ignore[arg-type]
    assert results.proposal is not None
    return results.proposal.id


def test_what_is_proposed_acts_once_it_is_approved_also_after_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(SqliteLog(tmp_path / "log.db")) as service:
            before = (await ask(service, PROMPT)).text
            proposal = await proposed(service)
            assert (await ask(service, PROMPT)).text == before
        async with serving(SqliteLog(tmp_path / "log.db")) as service:
            (found,) = service.records.ledger.approval.pending()
            assert (found.id, found.edits[0].after.strip()) == (proposal, "one")
            results = await service.proposals.approve(proposal, ED)
            (made,) = results.results
            assert made.view.origin.proposer is not None
            assert (await ask(service, PROMPT)).text.strip() == "one"
        async with serving(SqliteLog(tmp_path / "log.db")) as service:
            assert service.records.ledger.approval.proposal(proposal).state is ProposalState.PUBLISHED
            assert (await ask(service, PROMPT)).text.strip() == "one"

    asyncio.run(story())


def test_a_proposal_that_is_withdrawn_while_it_is_fitted_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    really, begun, withdrawn = FitQueue.fit, asyncio.Event(), asyncio.Event()

    async def fit(*asked: Any) -> Any:
        begun.set()
        await withdrawn.wait()
        return await really(*asked)

    async def story() -> None:
        async with serving() as service:
            proposal = await proposed(service)
            monkeypatch.setattr(FitQueue, "fit", fit)
            publishing = asyncio.create_task(service.proposals.approve(proposal, ED))
            await begun.wait()
            await service.proposals.withdraw(proposal, PAT)
            withdrawn.set()
            with pytest.raises(StateConflict):
                await publishing
            assert not service.records.ledger.entries

    asyncio.run(story())


def test_of_two_who_approve_at_once_one_publishes() -> None:
    async def story() -> None:
        async with serving() as service:
            proposal = await proposed(service)
            eve = Origin(actor="eve", key_id="k3", role="editor")
            both = (service.proposals.approve(proposal, who) for who in (ED, eve))
            one, other = await asyncio.gather(*both)
            assert one.results[0].view.edit.id == other.results[0].view.edit.id
            assert len(service.records.ledger.entries) == 1

    asyncio.run(story())


def test_what_stands_in_the_way_by_then_is_told_and_the_proposal_waits_on() -> None:
    async def story() -> None:
        async with serving() as service:
            proposal = await proposed(service)
            await edit(service, "Name the capital of Zubrowka:", " two", paraphrases=(PROMPT,), origin=ED)
            with pytest.raises(ScopeConflict):
                await service.proposals.approve(proposal, ED)
            assert service.records.ledger.approval.proposal(proposal).state is ProposalState.PENDING

    asyncio.run(story())


def test_a_policy_that_comes_while_an_edit_is_fitted_holds_for_it() -> None:
    async def story() -> None:
        async with serving() as service:
            begun = asyncio.Event()
            async with service.records.writing:
                asked = [EditRequest(prompt=PROMPT, target=" one")]
                making = asyncio.create_task(service.edit(asked, ED, on_progress=lambda *_: begun.set()))
                await begun.wait()
                at = service.revision + 1
                event = PolicySet(revision=at, at_s=0.0, origin=ED, namespace="default", second_person=True)
                await service.records.append(event)
            with pytest.raises(StateConflict, match="second person"):
                await making
            assert not service.records.ledger.entries

    asyncio.run(story())


def test_a_policy_that_comes_while_a_scope_is_changed_holds_for_it() -> None:
    async def story() -> None:
        async with serving() as service:
            made, begun = await edit(service, PROMPT, " one", origin=ED), asyncio.Event()
            async with service.records.writing:
                change = Retune(widen=1.5)
                retuning = asyncio.create_task(
                    service.retune(made.edit.id, change, ED, on_progress=lambda *_: begun.set())
                )
                await begun.wait()
                at = service.revision + 1
                event = PolicySet(revision=at, at_s=0.0, origin=ED, namespace="default", second_person=True)
                await service.records.append(event)
            with pytest.raises(StateConflict, match="second person"):
                await retuning
            assert service.revision == at

    asyncio.run(story())


def test_a_batch_is_published_in_one_step_and_time_runs_out_by_itself() -> None:
    async def story() -> None:
        clock = Clock()
        async with serving(MemoryLog(), clock) as service:
            asked = [EditRequest(prompt=f"{name} is", target=" one") for name in ("Alpha", "Beta")]
            batch = (await service.edit(asked, PAT, batch=True)).proposal
            late = await proposed(service)
            assert batch is not None
            await service.proposals.approve(batch.id, ED)
            assert service.records.ledger.live_count() == 2
            clock.now += 31 * 86_400
            with suppress(TimeoutError):
                async with asyncio.timeout(60):
                    while service.records.ledger.approval.pending():
                        await asyncio.sleep(0.05)
            assert service.records.ledger.approval.proposal(late).state is ProposalState.EXPIRED

    asyncio.run(story())
