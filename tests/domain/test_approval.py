"""Proposals as a fold: what each may become, whose question takes whose over, and what an approval must name."""

from typing import Any

import pytest

from app.domain.approval import Proposal, ProposalState
from app.domain.errors import StateConflict, UnknownProposal
from app.domain.events import (
    EditProposed,
    EditStaged,
    Event,
    Origin,
    PolicySet,
    ProposalExpired,
    ProposalItem,
    ProposalReturned,
    ProposalRevised,
    ProposalWithdrawn,
    Proposer,
)
from app.domain.ledger import Ledger
from app.domain.snapshot import ledger_of, records_of
from tests.domain.samples import closed, committed, request, staged

PAT = Origin(actor="pat", key_id="k1", role="proposer")
ED = Origin(actor="ed", key_id="k2", role="editor")


class Story:
    """A ledger to which events are told in short."""

    def __init__(self) -> None:
        self.ledger = Ledger()

    def add(self, kind: Any, proposal_id: str, origin: Origin = PAT, **fields: Any) -> None:
        if kind in (EditProposed, ProposalRevised):
            asked = request(**{name: fields.pop(name) for name in ("prompt", "namespace") if name in fields})
            edits = (ProposalItem(request=asked, editor="grace", before="", after="Ada", report={}),)
            fields = {"edits": edits, "batch": False, "expires_at_s": 100.0, **fields}
        at = self.ledger.revision + 1
        self.apply(kind(revision=at, at_s=float(at), origin=origin, proposal_id=proposal_id, **fields))

    def apply(self, event: Event) -> None:
        self.ledger.apply(self.ledger.as_recorded(event))

    def approval(self, proposal_id: str, revision: int) -> Origin:
        proposer = Proposer(proposal_id=proposal_id, revision=revision, actor="pat", key_id="k1")
        return Origin(actor="ed", key_id="k2", proposer=proposer)

    def state(self, proposal_id: str) -> str:
        return self.ledger.approval.proposal(proposal_id).state.value


@pytest.fixture
def story() -> Story:
    found = Story()
    found.add(EditProposed, "p1")
    return found


def test_what_is_published_names_both_persons_and_ends_its_proposal(story: Story) -> None:
    event = committed(2, "e1")
    story.apply(type(event)(revision=2, at_s=2.0, origin=story.approval("p1", 1), edit=event.edit))
    found = story.ledger.approval.proposal("p1")
    assert (found.state, found.edit_ids) == (ProposalState.PUBLISHED, ("e1",))
    origin = story.ledger.entry("e1").history[0].origin
    assert (origin.actor, origin.proposer and origin.proposer.actor) == ("ed", "pat")


def test_a_batch_ends_its_proposal_with_its_closing_event(story: Story) -> None:
    origin = story.approval("p1", 1)
    for at, edit_id in ((2, "e1"), (3, "e2")):
        event = staged(at, "b1", edit_id, prompt=f"{edit_id}?")
        story.apply(EditStaged(revision=at, at_s=0.0, origin=origin, batch_id="b1", edit=event.edit))
        assert story.state("p1") == "pending"
    closing = closed(4, "b1", "e1", "e2")
    story.apply(type(closing)(revision=4, at_s=4.0, origin=origin, batch_id="b1", edit_ids=("e1", "e2")))
    assert story.ledger.approval.proposal("p1").edit_ids == ("e1", "e2")


@pytest.mark.parametrize("kind", [ProposalReturned, ProposalWithdrawn, ProposalExpired])
def test_what_no_longer_waits_cannot_be_approved_and_nothing_is_changed(story: Story, kind: Any) -> None:
    story.add(kind, "p1", ED)
    event = committed(3, "e1")
    with pytest.raises(StateConflict, match="Cannot approve"):
        story.apply(type(event)(revision=3, at_s=3.0, origin=story.approval("p1", 1), edit=event.edit))
    assert story.ledger.revision == 2
    assert not story.ledger.entries


def test_what_was_revised_is_not_approved_as_it_was(story: Story) -> None:
    story.add(ProposalRevised, "p1")
    event = committed(3, "e1")
    with pytest.raises(StateConflict, match="revised meanwhile"):
        story.apply(type(event)(revision=3, at_s=3.0, origin=story.approval("p1", 1), edit=event.edit))
    story.apply(type(event)(revision=3, at_s=3.0, origin=story.approval("p1", 2), edit=event.edit))
    assert story.state("p1") == "published"


@pytest.mark.parametrize(
    ("before", "then", "allowed"),
    [
        ((), ProposalReturned, True),
        ((ProposalReturned,), ProposalReturned, False),
        ((ProposalReturned,), ProposalRevised, True),
        ((ProposalReturned,), ProposalWithdrawn, True),
        ((ProposalReturned,), ProposalExpired, True),
        ((ProposalWithdrawn,), ProposalRevised, False),
        ((ProposalWithdrawn,), ProposalWithdrawn, False),
        ((ProposalExpired,), ProposalRevised, True),
        ((ProposalExpired,), ProposalReturned, False),
        ((), EditProposed, False),
    ],
)
def test_what_a_proposal_may_become(story: Story, before: tuple[Any, ...], then: Any, allowed: bool) -> None:
    for kind in before:
        story.add(kind, "p1")
    if allowed:
        story.add(then, "p1")
        assert len(story.ledger.approval.proposal("p1").history) == len(before) + 2
    else:
        revision = story.ledger.revision
        with pytest.raises(StateConflict):
            story.add(then, "p1")
        assert story.ledger.revision == revision


def test_an_edit_of_the_same_question_takes_a_proposal_over_until_it_is_revised(story: Story) -> None:
    story.apply(committed(2, "e1", namespace="other"))
    assert story.state("p1") == "pending"
    story.apply(committed(3, "e2"))
    found = story.ledger.approval.proposal("p1")
    assert (found.state, found.superseded_by) == (ProposalState.SUPERSEDED, "e2")
    story.add(ProposalRevised, "p1")
    assert (found.state, found.superseded_by) == (ProposalState.PENDING, None)


def test_ones_own_newer_proposal_takes_the_older_one_over_and_nobody_elses(story: Story) -> None:
    story.add(EditProposed, "p2", ED)
    assert (story.state("p1"), story.state("p2")) == ("pending", "pending")
    story.add(EditProposed, "p3", PAT)
    assert (story.state("p1"), story.state("p2"), story.state("p3")) == ("superseded", "pending", "pending")
    assert story.ledger.approval.proposal("p1").superseded_by == "p3"


def test_what_supersedes_a_proposal_is_told_as_such_and_leaves_its_own_time_and_event(story: Story) -> None:
    story.add(EditProposed, "p2")
    approval = story.ledger.approval
    older = approval.proposal("p1")
    assert [touch.kind for touch in older.history] == ["edit_proposed", "proposal_superseded"]
    assert (older.proposed.revision, older.proposed.at_s, older.revision) == (1, 1.0, 2)
    made = [approval.made_at(revision) for revision in (1, 2)]
    assert [each and each.id for each in made] == ["p1", "p2"]
    story.apply(committed(3, "e1"))
    assert approval.made_at(3) is None, "nobody proposed what was published past the queue"
    again = ledger_of(3, list(records_of(story.ledger)))
    assert again.approval == approval


def test_a_snapshot_has_proposals_and_policies(story: Story) -> None:
    story.add(ProposalReturned, "p1", ED)
    story.apply(PolicySet(revision=3, at_s=3.0, origin=ED, namespace="support", second_person=True))
    again = ledger_of(3, list(records_of(story.ledger)))
    assert again.approval == story.ledger.approval
    assert again.approval.needs_second_person(["default", "support"])
    assert not again.approval.needs_second_person(["default"])


def test_what_is_not_there_is_unknown(story: Story) -> None:
    with pytest.raises(UnknownProposal):
        story.add(ProposalReturned, "p9")


def test_those_whose_time_has_run_out_are_due(story: Story) -> None:
    assert story.ledger.approval.due(99.0) == []
    assert story.ledger.approval.due(100.0) == ["p1"]
    story.add(ProposalExpired, "p1", Origin(actor="errata"))
    assert story.ledger.approval.due(100.0) == []


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        (ProposalRevised, "revise"),
        (ProposalReturned, "send back"),
        (ProposalWithdrawn, "withdraw"),
        (ProposalExpired, "expire"),
    ],
)
def test_what_a_state_forbids_is_told_with_the_state(story: Story, kind: Any, verb: str) -> None:
    story.add(ProposalWithdrawn, "p1")
    with pytest.raises(StateConflict, match=f"Cannot {verb} the proposal p1: it is withdrawn") as refused:
        story.add(kind, "p1")
    assert refused.value.details == {"proposal_id": "p1", "state": "withdrawn"}


def test_those_that_wait_are_those_that_somebody_may_approve(story: Story) -> None:
    for proposal_id in ("p2", "p3"):
        story.add(EditProposed, proposal_id, prompt=f"{proposal_id}?")
    story.add(ProposalReturned, "p1")
    story.add(ProposalWithdrawn, "p2")
    assert [each.id for each in story.ledger.approval.pending()] == ["p3"]


def test_an_approval_names_the_revision_that_was_read_and_not_its_time(story: Story) -> None:
    event = committed(2, "e1")
    asked = EditProposed(
        revision=2, at_s=1.0, origin=PAT, proposal_id="p2", batch=False, expires_at_s=9.0,
        edits=(ProposalItem(request=request(prompt="p2?"), editor="grace", before="", after="Ada", report={}),),
    )  # fmt: skip
    story.apply(asked)
    with pytest.raises(StateConflict, match="revised meanwhile"):
        story.ledger.approval.check_approval(Proposer(proposal_id="p2", revision=1, actor="pat", key_id="k1"))
    story.apply(type(event)(revision=3, at_s=3.0, origin=story.approval("p2", 2), edit=event.edit))
    assert story.state("p2") == "published"


def test_closed_proposals_are_not_looked_through_again(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long log holds many of them, and every published edit asks whose question it takes over."""
    story.add(ProposalWithdrawn, "p1")
    story.add(EditProposed, "p2", prompt="Who else?")
    looked: list[str] = []
    questions = Proposal.questions.fget
    monkeypatch.setattr(Proposal, "questions", property(lambda each: looked.append(each.id) or questions(each)))
    for ledger in (story.ledger, ledger_of(story.ledger.revision, records_of(story.ledger))):
        looked.clear()
        ledger.apply(committed(ledger.revision + 1, "e1"))
        assert looked == ["p2"]
        assert [each.id for each in ledger.approval.pending()] == ["p2"]
