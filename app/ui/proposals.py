"""Proposals: the queue of edits that wait for a second person, each with its preview, and the decision on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from app.api.errors import problem_of
from app.domain.approval import REVISABLE, Proposal, ProposalState
from app.domain.edit import EditRequest
from app.domain.errors import ErrataError, InvalidRequest
from app.domain.events import ProposalItem
from app.domain.keys import Right
from app.service.proposal_pages import ProposalFilter, page_of
from app.service.views import EditResults, EditView, OnProgress
from app.ui.correction_form import Correction, replaced_by
from app.ui.desk import HERE, Desk
from app.ui.previews import PreviewRow, bound_in, rows_of
from app.ui.visit import Visit

if TYPE_CHECKING:
    from app.service.jobs import Job

PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class ProposalPart:
    """One edit of a proposal, as its page shows it. `replaced` are the edits that it would replace now; `until` is Unix
    time, in seconds."""

    proposed: ProposalItem
    correction: Correction
    bound: float | None
    rows: dict[str, list[PreviewRow]]
    replaced: list[EditView]
    until: float | None

    @property
    def request(self) -> EditRequest:
        return self.proposed.request


class ProposalPages:
    """The pages for deciding on proposals. `_jobs` maps a proposal to the newest job that publishes it, and `_trials`
    to the newest one that only tries it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._jobs: dict[str, str] = {}
        self._trials: dict[str, str] = {}

    def routes(self) -> list[Route]:
        see = partial(self._desk.route, right=Right.READ, reached=True)
        edit = partial(self._desk.route, right=Right.EDIT, reached=True)
        own = partial(self._desk.route, right=Right.PROPOSE, reached=True)
        return [
            see("/proposals", get=self.listing),
            see("/proposals/{id}", get=self.show),
            edit("/proposals/{id}/approve", post=self.approve),
            edit("/proposals/{id}/publishing", get=self.publishing),
            edit("/proposals/{id}/try", post=self.attempt),
            edit("/proposals/{id}/tried", get=self.tried),
            edit("/proposals/{id}/return", post=self.send_back),
            own("/proposals/{id}/withdraw", post=self.withdraw),
        ]

    async def listing(self, visit: Visit) -> Response:
        """List the pending proposals, unless the query names another state."""
        filters = {"state": "pending", "namespace": "", "actor": ""}
        filters |= {name: visit.query.get(name, "").strip() for name in filters if name in visit.query}
        if filters["state"] and filters["state"] not in set(ProposalState):
            raise InvalidRequest("There is no such state: choose one from the list.")
        if filters["namespace"]:
            visit.check_reach(filters["namespace"])
        where = ProposalFilter(
            namespaces=None if visit.key is None or not visit.key.namespaces else frozenset(visit.key.namespaces),
            state=ProposalState(filters["state"]) if filters["state"] else None,
            namespace=filters["namespace"] or None,
            actor=filters["actor"] or None,
        )
        ledger = visit.service.records.ledger
        proposals, older = page_of(ledger, where, PER_PAGE, visit.query.get("cursor") or None)
        returned = (p for p in ledger.approval.proposals.values() if p.state is ProposalState.RETURNED)
        return visit.page(
            "proposals.html",
            title="Proposals",
            filters=filters,
            found=proposals,
            older=older,
            mine=[each for each in returned if is_own(visit, each)],
            states=list(ProposalState),
            namespaces=visit.desk.known_namespaces(visit),
            question=visit.service.answers.question,
        )

    async def show(self, visit: Visit) -> Response:
        return self._shown(visit, proposal_of(visit))

    def _shown(self, visit: Visit, proposal: Proposal, problem: Any = None, trial: Sequence[EditView] = ()) -> Response:
        """The proposal's page, with what its preview found or, in its place, a trial."""
        own = is_own(visit, proposal)
        items = [_tried_item(*each) for each in zip(proposal.edits, trial, strict=True)] if trial else proposal.edits
        parts = [_part(visit, each, proposal) for each in items]
        return visit.page(
            "proposal.html",
            status=200 if problem is None else problem["status"],
            title="Proposal",
            proposal=proposal,
            parts=parts,
            tried=bool(trial),
            own=own,
            decides=visit.key is not None and not own and visit.can(Right.EDIT),
            revisable=proposal.state in REVISABLE,
            revise_here=revised_here(visit, proposal),
            problem=problem,
            reason=visit.form.get("reason"),
            done="done" in visit.query,
            question=visit.service.answers.question,
        )

    # -- for the second person

    async def approve(self, visit: Visit) -> Response:
        """Publish a proposal by a job, because fitting and checking it again takes seconds. A form that is sent twice
        publishes once."""
        proposal = proposal_of(visit)
        job = visit.job(self._jobs.get(proposal.id))
        if job is None or job.outcome != "running":
            origin, read = visit.origin(visit.form.reason(), "approve", proposal.id), visit.read()
            metrics, proposals = self._desk.metrics, visit.service.proposals

            async def work(on_progress: OnProgress) -> tuple[EditResults, bool, bool]:
                try:
                    results = await proposals.approve(proposal.id, origin, on_progress=on_progress, read=read)
                except Exception as error:
                    metrics.edit_failed(error, 1)
                    raise
                metrics.edited(results, dry_run=False)
                return results, proposal.batch, False

            self._jobs[proposal.id] = visit.service.jobs.start(work).id
        return visit.to(f"{HERE}/proposals/{proposal.id}/publishing")

    async def publishing(self, visit: Visit) -> Response:
        proposal = proposal_of(visit)
        job = visit.job(self._jobs.get(proposal.id))
        if job is None:
            return visit.to(f"{HERE}/proposals/{proposal.id}")
        if waiting := self._wait(visit, proposal, job, "publishing", "Publishing the proposal"):
            return waiting
        if job.error is not None:
            return self._shown(visit, proposal, problem_of(job.error))
        return visit.to(f"{HERE}/proposals/{proposal.id}", done=1)

    @staticmethod
    def _wait(visit: Visit, proposal: Proposal, job: "Job", path: str, doing: str) -> Response | None:
        url = f"{HERE}/proposals/{proposal.id}/{path}"
        question = visit.service.answers.question(proposal.edits[0].request.prompt)
        return visit.wait(job, doing, "edit_progress.html", url=url, q=question)

    async def attempt(self, visit: Visit) -> Response:
        """Try a proposal by a job, together with the live edits and on the recent questions."""
        proposal = proposal_of(visit)
        job = visit.job(self._trials.get(proposal.id))
        if job is None or job.outcome != "running":
            requests = [each.request for each in proposal.edits]
            origin, read, edit = visit.origin(None), visit.service.revision, visit.service.edit

            async def work(on_progress: OnProgress) -> tuple[EditResults, bool, bool]:
                results = await edit(
                    requests, origin, batch=proposal.batch, dry_run=True, on_progress=on_progress, read=read
                )
                self._desk.metrics.edited(results, dry_run=True)
                return results, proposal.batch, True

            self._trials[proposal.id] = visit.service.jobs.start(work, previews=list(proposal.namespaces)).id
        return visit.to(f"{HERE}/proposals/{proposal.id}/tried")

    async def tried(self, visit: Visit) -> Response:
        proposal = proposal_of(visit)
        job = visit.job(self._trials.get(proposal.id))
        if job is None:
            return visit.to(f"{HERE}/proposals/{proposal.id}")
        if waiting := self._wait(visit, proposal, job, "tried", "Trying the proposal"):
            return waiting
        if job.result is None:
            error = job.error or InvalidRequest("The trial was stopped: try the proposal again.")
            return self._shown(visit, proposal, problem_of(error))
        views = [each.view for each in job.result[0].results]
        # a proposal that was revised meanwhile is no longer what was tried
        same = [each.edit.request for each in views] == [each.request for each in proposal.edits]
        return self._shown(visit, proposal, trial=views if same else ())

    async def send_back(self, visit: Visit) -> Response:
        proposal = proposal_of(visit)
        try:
            origin = visit.origin(visit.form.reason(), "return", proposal.id)
            if visit.service.records.done_under(origin) is None:
                await visit.service.proposals.send_back(proposal.id, origin, visit.read())
        except ErrataError as error:
            return self._shown(visit, proposal, problem_of(error))
        return visit.to(f"{HERE}/proposals/{proposal.id}", done=1)

    # -- for the proposer

    async def withdraw(self, visit: Visit) -> Response:
        proposal = proposal_of(visit)
        try:
            origin = visit.origin(visit.form.reason(), "withdraw", proposal.id)
            if visit.service.records.done_under(origin) is None:
                await visit.service.proposals.withdraw(proposal.id, origin)
        except ErrataError as error:
            return self._shown(visit, proposal, problem_of(error))
        return visit.to(f"{HERE}/proposals/{proposal.id}", done=1)


def is_own(visit: Visit, proposal: Proposal) -> bool:
    return visit.key is not None and visit.key.id == proposal.origin.key_id


def revised_here(visit: Visit, proposal: Proposal) -> bool:
    """True if the correction form can hold the proposal: one question, in a single turn or as bare text."""
    if proposal.batch:
        return False
    request = proposal.edits[0].request
    return Correction.of_request(visit, request, None).question.prompt(visit) == request.prompt


def proposal_of(visit: Visit) -> Proposal:
    """The proposal of the address. Raises UnknownProposal, and Forbidden for a namespace that the visitor may not
    reach."""
    proposal = visit.service.records.ledger.approval.proposal(visit.request.path_params["id"])
    visit.check_reach(*proposal.namespaces)
    return proposal


def _tried_item(item: ProposalItem, view: EditView) -> ProposalItem:
    """The item with what a trial found in place of its preview."""
    return replace(item, before=view.edit.before, after=view.edit.after, report=view.edit.report)


def _part(visit: Visit, proposed: ProposalItem, proposal: Proposal) -> ProposalPart:
    request, report = proposed.request, proposed.report
    ends_s = None if request.expires_in_s is None else proposal.proposed.at_s + request.expires_in_s
    correction = Correction.of_request(visit, request, ends_s)
    waits = proposal.state is ProposalState.PENDING
    return ProposalPart(
        proposed,
        correction,
        bound_in(report),
        rows_of(visit, correction, report, decided=True),
        [visit.service.edit_view(each) for each in replaced_by(visit, correction, request.prompt)] if waits else [],
        ends_s,
    )
