"""The protected questions of a namespace: shown, set, and asked now, to see which of them edits change."""

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from app.api.errors import problem_of
from app.domain.edit import MAX_PROBES, NAMESPACE
from app.domain.errors import ErrataError, InvalidRequest
from app.domain.keys import Right
from app.engine.controls import plain, shown
from app.service.protected_questions import ProtectedAnswer, protected_answers
from app.service.views import EditResults, OnProgress
from app.ui.desk import HERE, Desk
from app.ui.forms import lined
from app.ui.visit import Visit

MOST_KEPT = 50


@dataclass(slots=True)
class ProtectedRun:
    """A run of questions, asked by a job; `answers` grows as the job proceeds."""

    id: str
    namespace: str
    prompts: tuple[str, ...]
    job_id: str = ""
    answers: list[ProtectedAnswer] = field(default_factory=list)


class ProtectedPages:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._runs: OrderedDict[str, ProtectedRun] = OrderedDict()

    def routes(self) -> list[Route]:
        page = partial(self._desk.route, reached=True)
        return [
            page("/namespaces/protected", Right.READ, get=self.protected),
            page("/namespaces/protected/set", Right.ADMIN, post=self.protect),
            page("/namespaces/protected/run", Right.EDIT, post=self.run),
            page("/namespaces/protected/run/{id}", Right.EDIT, get=self.ran),
        ]

    async def protected(self, visit: Visit) -> Response:
        return self._protected(visit, visit.query.get("namespace", "") or visit.home)

    def _protected(
        self,
        visit: Visit,
        namespace: str,
        problem: Any = None,
        typed: str | None = None,
        run: ProtectedRun | None = None,
    ) -> Response:
        _check(visit, namespace)
        prompts = visit.service.records.ledger.probes.get(namespace, ())
        ledger = visit.service.records.ledger
        answers = [] if run is None else run.answers
        return visit.page(
            "protected.html",
            status=200 if problem is None else problem["status"],
            title="Protected questions",
            namespace=namespace,
            prompts=prompts,
            typed=lined(shown(prompts)) if typed is None else typed,
            problem=problem,
            changed="changed" in visit.query,
            question=visit.service.answers.question,
            run=run,
            otherwise=[each for each in answers if each.changed],
            targets={each.edit_id: ledger.entry(each.edit_id).request.target for each in answers if each.edit_id},
        )

    async def protect(self, visit: Visit) -> Response:
        namespace = visit.form.get("namespace")
        _check(visit, namespace)
        try:
            prompts = self._prompts(visit, namespace)
            await visit.service.set_probes(namespace, prompts, visit.origin(visit.form.reason(), "probes", namespace))
        except ErrataError as error:
            return self._protected(visit, namespace, problem_of(error), visit.form.get("prompts"))
        return visit.to(f"{HERE}/namespaces/protected", namespace=namespace, changed=1)

    @staticmethod
    def _prompts(visit: Visit, namespace: str) -> list[str]:
        """The prompts typed into the form. A conversation is kept as long as its line is unchanged. Raises
        InvalidRequest."""
        known = {lined([plain(each)]): each for each in visit.service.records.ledger.probes.get(namespace, ())}
        prompts = [known.get(line, line) for line in visit.form.lines("prompts")]
        if len(prompts) > MAX_PROBES:
            raise InvalidRequest(f"There are too many lines: at most {MAX_PROBES} questions are protected.")
        return prompts

    # -- asking now

    async def run(self, visit: Visit) -> Response:
        """Ask the questions in the form, saved or not. A form that is sent twice is asked once."""
        namespace, service = visit.form.get("namespace"), visit.service
        _check(visit, namespace)
        run_id = visit.made_id("pr_")
        if run_id not in self._runs:
            try:
                run = ProtectedRun(run_id, namespace, tuple(self._prompts(visit, namespace)))
                if not run.prompts:
                    raise InvalidRequest("There are no questions to ask: write some, one per line.")
            except ErrataError as error:
                return self._protected(visit, namespace, problem_of(error), visit.form.get("prompts"))

            async def work(_on_progress: OnProgress) -> tuple[EditResults, bool, bool]:
                async for each in protected_answers(service, run.prompts, run.namespace):
                    run.answers.append(each)
                return EditResults(results=(), revision=service.revision), True, True

            run.job_id = service.jobs.start(work).id
            self._keep(run)
        return visit.to(f"{HERE}/namespaces/protected/run/{run_id}")

    def _keep(self, run: ProtectedRun) -> None:
        self._runs[run.id] = run
        if len(self._runs) > MOST_KEPT:
            self._runs.popitem(last=False)

    async def ran(self, visit: Visit) -> Response:
        run = self._runs.get(visit.request.path_params["id"])
        if run is None:
            raise InvalidRequest("These answers are no longer kept here: ask the protected questions again.")
        visit.check_reach(run.namespace)
        job = visit.job(run.job_id)
        templates = "protected_progress.html", "_protected_progress.html"
        if waiting := visit.wait(job, "Asking the protected questions", *templates, run=run):
            return waiting
        typed = lined(shown(run.prompts))
        if job is not None and job.outcome != "done":
            error = job.error or InvalidRequest("It was stopped: ask the questions again.")
            return self._protected(visit, run.namespace, problem_of(error), typed)
        return self._protected(visit, run.namespace, typed=typed, run=run)


def _check(visit: Visit, namespace: str) -> None:
    """Check that the visitor may reach the namespace. Raises InvalidRequest for a malformed name, and Forbidden."""
    if not NAMESPACE.fullmatch(namespace):
        raise InvalidRequest("This is not the name of a namespace: choose one from the list.")
    visit.check_reach(namespace)
