"""The correction form, its preview and its publication. A refusal says what to do, and no typed text is lost."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from app.api.errors import problem_of
from app.domain.edit import EditRequest
from app.domain.errors import ErrataError, Forbidden, InvalidRequest
from app.domain.events import Origin
from app.domain.keys import Right
from app.service.views import EditResults, OnProgress
from app.ui.desk import HERE, Desk
from app.ui.drafts import Draft, Preview, Previews, border_of, bound_of, replaced_by, rows_of
from app.ui.forms import lined
from app.ui.proposals import is_own, proposal_of, revised_here
from app.ui.question import AskedQuestion, answers, may_ask
from app.ui.visit import Visit

if TYPE_CHECKING:
    from app.service.jobs import Job


KEPT = ("aliases", "metadata", "editor", "preset", "seed", "promoted_from")
"""The parts of a proposal for which the form has no field."""


class CorrectionPages:
    def __init__(self, desk: Desk, now: Callable[[], float] = time.time) -> None:
        self._desk, self._now = desk, now
        self._previews = Previews()

    def routes(self) -> list[Route]:
        page = partial(self._desk.route, right=Right.PROPOSE, reached=True)
        return [
            page("/correct", get=self.form, post=self.preview),
            page("/proposals/{id}/revise", get=self.revise),
            page("/previews/{id}", get=self.show, post=self.publish),
            page("/previews/{id}/again", post=self.again),
            page("/previews/{id}/change", get=self.change),
            page("/previews/{id}/cancel", post=self.cancel),
            page("/previews/{id}/published", get=self.published),
        ]

    # -- the form

    async def form(self, visit: Visit) -> Response:
        draft = Draft(
            AskedQuestion.of(visit, visit.query), supersede=tuple(filter(None, [visit.query.get("supersede")]))
        )
        return await self._form(visit, draft)

    async def change(self, visit: Visit) -> Response:
        """Show the form with what was typed for a preview, for changes."""
        return await self._form(visit, self._preview(visit).draft)

    async def revise(self, visit: Visit) -> Response:
        """Show the form with the visitor's own proposal, for changes."""
        proposal = proposal_of(visit)
        if not (is_own(visit, proposal) and revised_here(visit, proposal)):
            raise Forbidden("This proposal is not yours to revise here: only who made it may revise it.")
        request = proposal.edits[0].request
        ends_s = None if request.expires_in_s is None else proposal.proposed[1] + request.expires_in_s
        draft = Draft.of_request(visit, request, ends_s, proposal.id)
        return await self._form(visit, draft.typed())

    async def _form(self, visit: Visit, draft: Draft, problem: Any = None) -> Response:
        found = None
        if draft.question.text and not visit.partial and problem is None and may_ask(visit):
            found = await answers(visit, draft.question)
        return visit.page(
            "_correct.html" if visit.partial else "correct.html",
            status=200 if problem is None else problem["status"],
            title="Correct an answer",
            draft=draft,
            more=lined(draft.more),
            keep=lined(draft.keep),
            found=found,
            problem=problem,
            namespaces=self._desk.known_namespaces(visit),
        )

    # -- the preview

    async def preview(self, visit: Visit) -> Response:
        """Make a preview. A form that is sent twice makes one."""
        form = visit.form
        preview_id = visit.made_id("pv_")
        if self._previews.find(preview_id) is None:
            draft = None
            try:
                draft = Draft.of(visit, form)
                self._begin(visit, preview_id, draft)
            except ErrataError as error:
                return await self._form(visit, draft or _as_typed(visit), problem_of(error))
        return visit.to(f"{HERE}/previews/{preview_id}")

    def _preview(self, visit: Visit) -> Preview:
        """The preview of the address. Raises InvalidRequest, and Forbidden for a namespace that the visitor may not
        reach."""
        found = self._previews.get(visit.request.path_params["id"])
        visit.check_reach(found.draft.question.namespace)
        return found

    def _begin(self, visit: Visit, preview_id: str, draft: Draft) -> None:
        request = draft.request(visit, self._now())
        origin, read = visit.origin(draft.reason), visit.service.revision

        async def made(tell: OnProgress) -> tuple[EditResults, bool, bool]:
            results = await visit.service.edit([request], origin, dry_run=True, tell=tell, read=read)
            self._desk.metrics.edited(results, dry_run=True)
            return results, False, True

        job = visit.service.jobs.start(made, previews=[request.namespace])
        self._previews.keep(Preview(preview_id, draft, job.id, draft.widen))

    async def again(self, visit: Visit) -> Response:
        """Preview the same correction with other ticks, under an id of its own; the previous preview stays as it
        was."""
        old = self._preview(visit)
        preview_id = visit.made_id("pv_", old.id)
        if self._previews.find(preview_id) is None:
            self._begin(visit, preview_id, old.draft.ticked(visit.form, self._bound(visit, old), old.tried))
        return visit.to(f"{HERE}/previews/{preview_id}")

    async def cancel(self, visit: Visit) -> Response:
        preview = self._preview(visit)
        job = visit.job(preview.job_id)
        if job is not None:
            await visit.service.jobs.cancel(job.id)
        return visit.to(f"{HERE}/previews/{preview.id}/change")

    async def show(self, visit: Visit) -> Response:
        preview = self._preview(visit)
        job = visit.job(preview.job_id)
        if job is not None and job.outcome == "running":
            return self._progress(visit, job, f"{HERE}/previews/{preview.id}", "Trying the correction", preview)
        if visit.partial:
            return Response(status_code=204, headers={"HX-Refresh": "true"})
        return self._shown(visit, preview, job)

    def _shown(
        self, visit: Visit, preview: Preview, job: "Job | None", meanwhile: Any = (), status: int = 200
    ) -> Response:
        values: dict[str, Any] = {"title": "Preview", "preview": preview, "draft": preview.draft, "problem": None}
        if job is None or job.outcome == "cancelled":
            return visit.page("preview_gone.html", **values)
        if job.error is not None:
            values["problem"] = problem_of(job.error)
            return visit.page("preview_gone.html", **values)
        result = job.result[0].results[0]
        report, bound = result.view.edit.report, bound_of(job)
        return visit.page(
            "preview.html",
            status=status,
            **values,
            result=result,
            report=report,
            bound=bound,
            border=None if bound is None else border_of(bound, preview.draft, preview),
            rows=rows_of(visit, preview.draft, report),
            conflicts=[visit.service.edit_view(each) for each in report.get("conflicts", [])],
            replaced=[visit.service.edit_view(each) for each in replaced_by(visit, preview.draft)],
            meanwhile=meanwhile,
            waits=visit.waits(preview.draft.question.namespace) or bool(preview.draft.proposal),
        )

    def _progress(self, visit: Visit, job: "Job", url: str, doing: str, preview: Preview) -> Response:
        template = "_progress.html" if visit.partial else "progress.html"
        return visit.page(template, title=doing, job=job, url=url, doing=doing, preview=preview)

    @staticmethod
    def _bound(visit: Visit, preview: Preview) -> float | None:
        """The share that questions had to reach in the preview."""
        job = visit.job(preview.job_id)
        return None if job is None else bound_of(job)

    # -- the publication

    async def publish(self, visit: Visit) -> Response:
        """Publish a preview by a job. If others have corrected the same question since the preview, refuse and ask
        again."""
        preview = self._preview(visit)
        job = visit.job(preview.job_id)
        if self._is_publishing(visit, preview):
            return visit.to(f"{HERE}/previews/{preview.id}/published")
        draft = preview.draft.ticked(visit.form, self._bound(visit, preview), preview.tried)
        read = visit.read()
        replaced = [visit.service.edit_view(each) for each in replaced_by(visit, draft)]
        if meanwhile := [view for view in replaced if view.revision > read]:
            preview.draft = draft
            return self._shown(visit, preview, job, meanwhile, status=409)
        preview.draft = draft
        # kept, because the seconds until its end would differ when the same form comes again
        request = preview.requests.setdefault(visit.form.mark(), draft.request(visit, self._now()))
        origin = visit.origin(draft.reason)

        async def made(tell: OnProgress) -> tuple[EditResults, bool, bool]:
            metrics = self._desk.metrics
            try:
                results = await self._published(visit, draft, request, origin, tell, read)
            except Exception as error:
                metrics.edit_failed(error, 1)
                raise
            metrics.edited(results, dry_run=False)
            return results, False, False

        preview.publishing = visit.service.jobs.start(made).id
        return visit.to(f"{HERE}/previews/{preview.id}/published")

    @staticmethod
    async def _published(
        visit: Visit, draft: Draft, request: EditRequest, origin: Origin, tell: OnProgress, read: int
    ) -> EditResults:
        """Publish the edit, or revise a proposal, which keeps the parts for which the form has no field."""
        if not draft.proposal:
            return await visit.service.edit([request], origin, tell=tell, read=read)
        was = visit.service.records.ledger.approval.proposal(draft.proposal).edits[0].request
        kept: dict[str, Any] = {name: getattr(was, name) for name in KEPT}
        revise = visit.service.proposals.revise
        return await revise(draft.proposal, [replace(request, **kept)], origin, tell=tell, read=read)

    @staticmethod
    def _is_publishing(visit: Visit, preview: Preview) -> bool:
        """True if the publication is running or done; one that was refused may be tried again."""
        job = visit.job(preview.publishing)
        return job is not None and job.outcome in ("running", "done")

    async def published(self, visit: Visit) -> Response:
        preview = self._preview(visit)
        job = visit.job(preview.publishing)
        if job is None:
            return visit.to(f"{HERE}/previews/{preview.id}")
        if job.outcome == "running":
            url = f"{HERE}/previews/{preview.id}/published"
            return self._progress(visit, job, url, "Publishing the correction", preview)
        if visit.partial:
            return Response(status_code=204, headers={"HX-Refresh": "true"})
        values: dict[str, Any] = {"preview": preview, "draft": preview.draft}
        if job.result is None:
            error = job.error or InvalidRequest("The publication was stopped: nothing was changed. Publish it again.")
            found = problem_of(error)
            conflicts = [visit.service.edit_view(each) for each in found.get("conflicts", [])]
            return visit.page(
                "refused.html",
                status=found["status"],
                title="Not published",
                problem=found,
                conflicts=conflicts,
                **values,
            )
        if job.result[0].proposal is not None:
            return visit.to(f"{HERE}/proposals/{job.result[0].proposal.id}", done=1)
        result = job.result[0].results[0]
        return visit.page(
            "published.html",
            title="Published",
            result=result,
            view=visit.service.edit_view(result.view.edit.id),
            **values,
        )


def _as_typed(visit: Visit) -> Draft:
    """The contents of a form that was refused, to be shown again."""
    form = visit.form
    how = form.get("how")
    return Draft(
        AskedQuestion(
            form.get("q")[:4000], how if how in ("chat", "text") else "text", form.get("namespace") or "default"
        ),
        target=form.get("target"),
        reason=form.get("reason") or None,
        until=form.get("until"),
        subject=form.get("subject"),
        more=form.lines("more"),
        keep=form.lines("keep"),
        supersede=form.all("supersede"),
        proposal=form.get("proposal"),
    )
