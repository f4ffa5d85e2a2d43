"""The correction form, its preview and its publication. A refusal says what to do, and no typed text is lost."""

import time
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
from app.service.views import EditOptions, EditResults, OnProgress
from app.ui.correction_form import Correction, replaced_by
from app.ui.desk import HERE, Desk
from app.ui.forms import lined
from app.ui.previews import Preview, Previews, border_of, bound_of, rows_of
from app.ui.proposals import is_own, proposal_of, revised_here
from app.ui.question import AskedQuestion, answers, may_ask
from app.ui.visit import Visit

if TYPE_CHECKING:
    from app.service.jobs import Job


KEPT = ("aliases", "metadata", "editor", "preset", "seed", "promoted_from")
"""The parts of a proposal for which the form has no field."""


class CorrectionPages:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
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
        correction = Correction(
            AskedQuestion.of(visit, visit.query), supersede=tuple(filter(None, [visit.query.get("supersede")]))
        )
        return await self._form(visit, correction)

    async def change(self, visit: Visit) -> Response:
        """Show the form with what was typed for a preview, for changes."""
        return await self._form(visit, self._preview(visit).correction)

    async def revise(self, visit: Visit) -> Response:
        """Show the form with the visitor's own proposal, for changes."""
        proposal = proposal_of(visit)
        if not (is_own(visit, proposal) and revised_here(visit, proposal)):
            raise Forbidden("This proposal is not yours to revise here: only who made it may revise it.")
        request = proposal.edits[0].request
        ends_s = None if request.expires_in_s is None else proposal.proposed.at_s + request.expires_in_s
        correction = Correction.of_request(visit, request, ends_s, proposal.id)
        return await self._form(visit, correction.typed())

    async def _form(self, visit: Visit, correction: Correction, problem: Any = None) -> Response:
        answers_now = None
        if correction.question.text and not visit.partial and problem is None and may_ask(visit):
            answers_now = await answers(visit, correction.question)
        return visit.page(
            "_correct.html" if visit.partial else "correct.html",
            status=200 if problem is None else problem["status"],
            title="Correct an answer",
            correction=correction,
            more=lined(correction.more),
            keep=lined(correction.keep),
            found=answers_now,
            problem=problem,
            namespaces=self._desk.known_namespaces(visit),
        )

    # -- the preview

    async def preview(self, visit: Visit) -> Response:
        """Make a preview. A form that is sent twice makes one."""
        form = visit.form
        preview_id = visit.made_id("pv_")
        if self._previews.find(preview_id) is None:
            correction = None
            try:
                correction = Correction.of(visit, form)
                self._begin(visit, preview_id, correction)
            except ErrataError as error:
                return await self._form(visit, correction or _as_typed(visit), problem_of(error))
        return visit.to(f"{HERE}/previews/{preview_id}")

    def _preview(self, visit: Visit) -> Preview:
        """The preview of the address. Raises InvalidRequest, and Forbidden for a namespace that the visitor may not
        reach."""
        preview = self._previews.get(visit.request.path_params["id"])
        visit.check_reach(preview.correction.question.namespace)
        return preview

    def _begin(self, visit: Visit, preview_id: str, correction: Correction) -> None:
        request = correction.request(visit, time.time())
        origin, read = visit.origin(correction.reason), visit.service.revision

        async def work(on_progress: OnProgress) -> tuple[EditResults, bool, bool]:
            results = await visit.service.edit([request], origin, dry_run=True, on_progress=on_progress, read=read)
            self._desk.metrics.edited(results, dry_run=True)
            return results, False, True

        job = visit.service.jobs.start(work, previews=[request.namespace])
        self._previews.keep(Preview(preview_id, correction, job.id, correction.widen))

    async def again(self, visit: Visit) -> Response:
        """Preview the same correction with other ticks, under an id of its own; the previous preview stays as it
        was."""
        old = self._preview(visit)
        preview_id = visit.made_id("pv_", old.id)
        if self._previews.find(preview_id) is None:
            self._begin(visit, preview_id, old.correction.ticked(visit.form, self._bound(visit, old), old.tried))
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
        url = f"{HERE}/previews/{preview.id}"
        waiting = visit.wait(job, "Trying the correction", "progress.html", url=url, preview=preview)
        return waiting or self._shown(visit, preview, job)

    def _shown(
        self, visit: Visit, preview: Preview, job: "Job | None", meanwhile: Any = (), status: int = 200
    ) -> Response:
        values: dict[str, Any] = {
            "title": "Preview",
            "preview": preview,
            "correction": preview.correction,
            "problem": None,
        }
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
            border=None if bound is None else border_of(bound, preview.correction, preview),
            rows=rows_of(visit, preview.correction, report),
            conflicts=[visit.service.edit_view(each) for each in report.get("conflicts", [])],
            replaced=[visit.service.edit_view(each) for each in replaced_by(visit, preview.correction)],
            meanwhile=meanwhile,
            waits=visit.waits(preview.correction.question.namespace) or bool(preview.correction.proposal),
        )

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
        correction = preview.correction.ticked(visit.form, self._bound(visit, preview), preview.tried)
        read = visit.read()
        replaced = [visit.service.edit_view(each) for each in replaced_by(visit, correction)]
        if meanwhile := [view for view in replaced if view.revision > read]:
            preview.correction = correction
            return self._shown(visit, preview, job, meanwhile, status=409)
        preview.correction = correction
        # kept, because the seconds until its end would differ when the same form comes again
        request = preview.requests.setdefault(visit.form.mark(), correction.request(visit, time.time()))
        origin = visit.origin(correction.reason)

        async def work(on_progress: OnProgress) -> tuple[EditResults, bool, bool]:
            metrics = self._desk.metrics
            try:
                results = await self._published(visit, correction, request, origin, on_progress, read)
            except Exception as error:
                metrics.edit_failed(error, 1)
                raise
            metrics.edited(results, dry_run=False)
            return results, False, False

        preview.publishing = visit.service.jobs.start(work).id
        return visit.to(f"{HERE}/previews/{preview.id}/published")

    @staticmethod
    async def _published(
        visit: Visit, correction: Correction, request: EditRequest, origin: Origin, on_progress: OnProgress, read: int
    ) -> EditResults:
        """Publish the edit, or revise a proposal, which keeps the parts for which the form has no field."""
        if not correction.proposal:
            return await visit.service.edit([request], origin, on_progress=on_progress, read=read)
        was = visit.service.records.ledger.approval.proposal(correction.proposal).edits[0].request
        kept: dict[str, Any] = {name: getattr(was, name) for name in KEPT}
        options = EditOptions(on_progress=on_progress, read=read)
        return await visit.service.proposals.revise(correction.proposal, [replace(request, **kept)], origin, options)

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
        url = f"{HERE}/previews/{preview.id}/published"
        if waiting := visit.wait(job, "Publishing the correction", "progress.html", url=url, preview=preview):
            return waiting
        values: dict[str, Any] = {"preview": preview, "correction": preview.correction}
        if job.result is None:
            error = job.error or InvalidRequest("The publication was stopped: nothing was changed. Publish it again.")
            problem = problem_of(error)
            conflicts = [visit.service.edit_view(each) for each in problem.get("conflicts", [])]
            return visit.page(
                "refused.html",
                status=problem["status"],
                title="Not published",
                problem=problem,
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


def _as_typed(visit: Visit) -> Correction:
    """The contents of a form that was refused, to be shown again."""
    form = visit.form
    how = form.get("how")
    return Correction(
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
