"""Checks of proposals: the persons who may decide on one, and the edits of it that can be published."""

from collections.abc import Sequence
from dataclasses import replace

from app.domain.approval import Proposal
from app.domain.edit import EditRequest
from app.domain.errors import EditRejected, Forbidden, PreconditionFailed, ScopeConflict, StateConflict
from app.domain.events import Origin, ProposalItem
from app.service.views import EditView, kept_report


def check_own(proposal: Proposal, origin: Origin, verb: str) -> None:
    """Check that a proposal is one's own. Raises Forbidden."""
    if proposal.origin.key_id != origin.key_id:
        raise Forbidden(f"The proposal is {proposal.origin.actor}'s: only who made it may {verb} it.")


def check_other(proposal: Proposal, origin: Origin) -> None:
    """Check that the decision is another person's: nobody decides on their own proposal, whatever name is
    beside their key. Raises Forbidden."""
    if origin.key_id is None or proposal.origin.key_id == origin.key_id:
        raise Forbidden(
            "It takes a second person, with another key, to decide on a proposal. See /help/operation#a-second-person."
        )


def check_unchanged(proposal: Proposal, read: int | None) -> None:
    """Check that a proposal is as it was at the revision `read`. Raises PreconditionFailed."""
    if read is not None and proposal.revision > read:
        raise PreconditionFailed(
            f"The proposal {proposal.id} was changed at revision {proposal.revision}, after you read it: read it "
            f"again.",
            revision=proposal.revision,
        )


def requests_now(proposal: Proposal, now_s: float) -> list[EditRequest]:
    """The requests to make now: the time until an edit ends has been running since it was proposed. Raises
    StateConflict if none is left."""
    gone_s = max(0.0, now_s - proposal.proposed.at_s)
    requests = []
    for each in proposal.edits:
        left_s = None if each.request.expires_in_s is None else each.request.expires_in_s - gone_s
        if left_s is not None and left_s <= 0:
            raise StateConflict("Its edit would have ended by now: send it back for its proposer to revise.")
        requests.append(replace(each.request, expires_in_s=left_s))
    return requests


def proposed_item(request: EditRequest, view: EditView) -> ProposalItem:
    """The proposed edit, with its preview's results. Raises EditRejected or ScopeConflict if it could not be
    published."""
    edit, report = view.edit, view.edit.report
    if report.get("conflicts"):
        raise ScopeConflict(
            f"Other edits are in the way: {', '.join(report['conflicts'])}. Name them in `supersede`, or tell the "
            "edits apart by a `subject`, `counter_examples` or `aliases`.",
            conflicts=list(report["conflicts"]),
        )
    if not report.get("would_commit", True):
        raise EditRejected(
            f"The edit was fitted but did not hold when tried, so nothing was proposed: "
            f"{'; '.join(report.get('problems', []))}. Reword the target or give paraphrases.",
            report={request.prompt: kept_report(report)},
        )
    return ProposalItem(
        request=request, editor=edit.editor, before=edit.before, after=edit.after, report=kept_report(report)
    )


def common_reason(requests: Sequence[EditRequest]) -> str | None:
    """The reason that all requests give; None if they give several."""
    reasons = {request.reason for request in requests}
    return reasons.pop() if len(reasons) == 1 else None
