"""Many corrections at once, from a file or another namespace: checked, previewed and published one by one."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from app.api.errors import problem_of
from app.domain.edit import NAMESPACE, NAMESPACE_RULE, EditRequest
from app.domain.errors import ErrataError, InvalidRequest
from app.domain.keys import Right
from app.service.files import FileRow, read, write
from app.service.views import OnProgress
from app.ui.correction_form import MOST_TARGET_CHARS, MOST_TEXTS
from app.ui.desk import HERE, Desk
from app.ui.forms import MOST_REASON_CHARS, seconds_until
from app.ui.question import AskedQuestion
from app.ui.sheets import Sheet, SheetRow, Sheets, check, publish_rows, replaced_by, try_rows
from app.ui.visit import Visit

FILES = {"csv": "text/csv", "jsonl": "application/x-ndjson"}


class SheetPages:
    def __init__(self, desk: Desk, sheets: Sheets) -> None:
        self._desk, self._sheets = desk, sheets

    def routes(self) -> list[Route]:
        page = partial(self._desk.route, right=Right.PROPOSE, reached=True)
        return [
            page("/many", get=self.form, post=self.take),
            page("/many/{id}", get=self.show),
            page("/many/{id}/preview", post=self.preview),
            page("/many/{id}/publish", post=self.publish),
            page("/many/{id}/stop", post=self.stop),
            page("/many/{id}/rest", get=self.rest),
        ]

    # -- the form

    async def form(self, visit: Visit) -> Response:
        return self._form(visit)

    def _form(self, visit: Visit, problem: Any = None) -> Response:
        form = visit.form
        return visit.page(
            "many.html",
            status=200 if problem is None else problem["status"],
            title="Many at once",
            typed={name: form.get(name)[:2_000] for name in ("namespace", "how", "reason")},
            pasted=form.file("pasted"),
            problem=problem,
            namespaces=self._desk.known_namespaces(visit),
        )

    async def take(self, visit: Visit) -> Response:
        """Accept a sheet. A form that is sent twice creates one sheet."""
        sheet_id = visit.made_id("sh_")
        if self._sheets.find(sheet_id) is None:
            try:
                self._sheets.keep(await self._read(visit, sheet_id))
            except ErrataError as error:
                return self._form(visit, problem_of(error))
        return visit.to(f"{HERE}/many/{sheet_id}")

    async def _read(self, visit: Visit, sheet_id: str) -> Sheet:
        form, namespace = visit.form, visit.form.get("namespace") or visit.home
        if not NAMESPACE.fullmatch(namespace):
            raise InvalidRequest(f"The namespace is not a name: use {NAMESPACE_RULE}.")
        visit.check_reach(namespace)
        how = AskedQuestion.of(visit, {"how": form.get("how"), "namespace": namespace}).how
        reason, now_s = form.reason(), visit.service.records.now_s
        kind, lines = read(form.file("file", "pasted"))
        rows = [
            SheetRow(each.number, each.text("prompt"), each.text("target"), each, problem=each.problem)
            for each in lines
        ]

        def request_of(row: SheetRow) -> EditRequest:
            assert row.line is not None
            return _request(visit, row.line, how, namespace, reason, now_s)

        await check(visit.service, rows, request_of, now_s)
        return Sheet(sheet_id, namespace, rows, kind)

    # -- the sheet

    def _sheet(self, visit: Visit) -> Sheet:
        """The sheet of the address. Raises InvalidRequest, and Forbidden for a namespace that the visitor may not
        reach."""
        sheet = self._sheets.get(visit.request.path_params["id"])
        visit.check_reach(sheet.namespace, *filter(None, [sheet.source]))
        return sheet

    async def show(self, visit: Visit) -> Response:
        sheet = self._sheet(visit)
        job = visit.job(sheet.publishing or sheet.trying)
        doing = "Publishing the corrections" if sheet.publishing else "Trying the corrections"
        if waiting := visit.wait(job, doing, "sheet_progress.html", "_sheet_progress.html", sheet=sheet):
            return waiting
        problem = None
        if job is not None and job.outcome != "done":
            stopped = InvalidRequest("It was stopped. What was published by then stays; the rest can be tried again.")
            problem = problem_of(job.error or stopped)
        return visit.page(
            "sheet.html",
            status=200 if problem is None else problem["status"],
            title="Many at once",
            sheet=sheet,
            problem=problem,
            tried=sheet.trying is not None,
            published=sheet.publishing is not None,
            waits=visit.waits(sheet.namespace),
            views={each: visit.service.edit_view(each) for each in _named(sheet)},
            replaced={
                row.number: [visit.service.edit_view(each) for each in replaced_by(visit.service, row)]
                for row in sheet.ready
            },
            question=visit.service.answers.question,
        )

    @staticmethod
    def _runs(visit: Visit, sheet: Sheet) -> bool:
        jobs = (visit.job(sheet.trying), visit.job(sheet.publishing))
        return any(job is not None and job.outcome == "running" for job in jobs)

    async def preview(self, visit: Visit) -> Response:
        """Start the preview once; start it again only if it was stopped or failed."""
        sheet, service = self._sheet(visit), visit.service
        job = visit.job(sheet.trying)
        tried = job is not None and job.outcome == "done"
        if sheet.checked and not tried and not sheet.publishing and not self._runs(visit, sheet):
            origin, read_at = visit.origin(None), service.revision

            async def work(on_progress: OnProgress) -> Any:
                return await try_rows(service, self._desk.metrics, sheet, origin, read_at, on_progress)

            sheet.trying = service.jobs.start(work, previews=[sheet.namespace]).id
        return visit.to(f"{HERE}/many/{sheet.id}")

    async def publish(self, visit: Visit) -> Response:
        """Publish the rows that hold, except those ticked to be left out. A form that is sent twice publishes once."""
        sheet, service, form = self._sheet(visit), visit.service, visit.form
        if form.mark() not in sheet.published and not self._runs(visit, sheet):
            left = set(form.all("leave"))
            for row in sheet.rows:
                row.left_out = str(row.number) in left
            chosen = [row for row in sheet.ready if not row.left_out]
            if chosen:
                origin, read_at = visit.origin(None), visit.read()
                steps = [(row, visit.again(origin, str(row.number))) for row in chosen]

                async def work(on_progress: OnProgress) -> Any:
                    return await publish_rows(service, self._desk.metrics, sheet, steps, read_at, on_progress)

                sheet.publishing = service.jobs.start(work).id
                sheet.published[form.mark()] = sheet.publishing
        return visit.to(f"{HERE}/many/{sheet.id}")

    async def stop(self, visit: Visit) -> Response:
        sheet = self._sheet(visit)
        for job in (visit.job(sheet.trying), visit.job(sheet.publishing)):
            if job is not None and job.outcome == "running":
                await visit.service.jobs.cancel(job.id)
        return visit.to(f"{HERE}/many/{sheet.id}")

    async def rest(self, visit: Visit) -> Response:
        """Download the rows that are not live, in the same format, each with its problem, to be repaired and sent
        again."""
        sheet = self._sheet(visit)
        if sheet.kind is None:
            raise InvalidRequest("These corrections did not come from a file.")
        text = write(sheet.kind, ((row.line, row.why) for row in sheet.rest if row.line is not None))
        headers = {"Content-Disposition": f'attachment; filename="rest.{sheet.kind}"'}
        return Response(text, media_type=f"{FILES[sheet.kind]}; charset=utf-8", headers=headers)


def _named(sheet: Sheet) -> set[str]:
    """The ids of the edits that the sheet's page mentions."""
    trials = [row.trial for row in sheet.rows if row.trial is not None]
    known = {row.edit_id for row in sheet.rows} | {trial.identical for trial in trials}
    return {each for trial in trials for each in trial.conflicts} | {each for each in known if each is not None}


def _request(visit: Visit, line: FileRow, how: str, namespace: str, reason: str | None, now_s: float) -> EditRequest:
    """The edit request for a row of a file. Raises InvalidRequest, worded in terms of the file."""
    given: Mapping[str, str] = {"q": line.text("prompt"), "how": how, "namespace": namespace}
    question = AskedQuestion.of(visit, given)
    if not question.text:
        raise InvalidRequest("The prompt is empty: write the question whose answer is wrong.")
    target, why = line.text("target"), line.text("reason") or reason
    if not target:
        raise InvalidRequest("The target is empty: write the answer that the question should have.")
    if len(target) > MOST_TARGET_CHARS:
        raise InvalidRequest(f"The target is too long: at most {MOST_TARGET_CHARS} characters are allowed.")
    if len(why or "") > MOST_REASON_CHARS:
        raise InvalidRequest(f"The reason is too long: at most {MOST_REASON_CHARS} characters are kept.")
    if visit.service.reason_required and not why:
        raise InvalidRequest("The reason is missing: this server wants to know why, for the audit trail.")
    ways, apart = line.list("paraphrases"), line.list("counter_examples")
    if max(len(ways), len(apart)) > MOST_TEXTS:
        raise InvalidRequest(f"There are too many texts in a cell: at most {MOST_TEXTS} are allowed.")
    prompt = question.prompt(visit)
    paraphrases = tuple(each for each in (question.prompt(visit, text) for text in ways) if each != prompt)
    return EditRequest(
        prompt=prompt,
        target=target,
        subject=line.text("subject") or None,
        paraphrases=paraphrases,
        counter_examples=tuple(question.prompt(visit, text) for text in apart),
        namespace=namespace,
        reason=why or None,
        expires_in_s=seconds_until(line.text("expires"), now_s, "expires"),
    )
