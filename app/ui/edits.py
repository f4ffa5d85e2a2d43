"""The edits: a searchable list, a page for each, and their rollback, disabling, enabling and retuning."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from starlette.responses import Response
from starlette.routing import Route

from app.api.errors import problem_of
from app.domain.edit import State
from app.domain.errors import ErrataError, InvalidRequest
from app.domain.events import Origin
from app.domain.keys import Right
from app.service.retunes import Retune
from app.service.views import EditFilter, EditResult, EditResults, EditView, OnProgress, Sort
from app.ui.chart import chart
from app.ui.desk import HERE, Desk
from app.ui.visit import Visit

PER_PAGE = 50
REACHES = {"0.25": "much narrower", "0.5": "narrower", "1": "as it is", "2": "wider", "4": "much wider"}
SORTS = {
    "newest": "newest",
    "oldest": "oldest",
    "hits": "most hits",
    "last_hit": "hit last",
    "expires": "ends first",
    "question": "by question",
}
ACTIONS = {"rollback": "Roll back", "disable": "Disable", "enable": "Enable"}
MOST_CHOSEN = 1_000
WEEK_S = 7 * 86400.0


def routes(desk: Desk) -> list[Route]:
    see = partial(desk.route, right=Right.READ, reached=True)
    edit = partial(desk.route, right=Right.EDIT, reached=True)
    return [
        see("/edits", get=listing),
        edit("/edits/change", post=change),
        see("/edits/{id}", get=show),
        edit("/edits/{id}/retune", post=retune),
        edit("/edits/{id}/retune/{job}", get=retuning),
    ]


# -- the list


async def listing(visit: Visit) -> Response:
    query = visit.query
    filters = {
        name: query.get(name, "").strip() for name in ("q", "state", "namespace", "editor", "actor", "use", "sort")
    }
    if filters["state"] and filters["state"] not in set(State):
        raise InvalidRequest("There is no such state: choose one from the list.")
    sort = filters["sort"] or "newest"
    if sort not in SORTS:
        raise InvalidRequest("There is no such order: choose one from the list.")
    if filters["namespace"]:
        visit.check_reach(filters["namespace"])
    where = EditFilter(
        namespaces=frozenset(visit.key.namespaces) if visit.key is not None and visit.key.namespaces else None,
        sort=cast(Sort, sort),
        state=State(filters["state"]) if filters["state"] else None,
        namespace=filters["namespace"] or None,
        editor=filters["editor"] or None,
        actor=filters["actor"] or None,
        text=filters["q"] or None,
        never_hit=filters["use"] == "never",
        expires_within_s=WEEK_S if filters["use"] == "expiring" else None,
    )
    page = visit.service.edits(where, PER_PAGE, query.get("cursor") or None)
    return visit.page(
        "_edits.html" if visit.partial else "edits.html",
        title="Edits",
        filters=filters,
        page=page,
        filtered=any(value for name, value in filters.items() if name != "sort"),
        sorts=SORTS,
        states=list(State),
        namespaces=visit.desk.known_namespaces(visit),
        editors=sorted({each["name"] for each in await asyncio.to_thread(visit.service.editors)}),
        changed=_changed(visit),
        question=visit.service.answers.question,
    )


def _changed(visit: Visit) -> list[EditView]:
    """The edits touched by the change that led to this page, in their present state."""
    ids = visit.query.get("changed", "").split(",")
    ledger = visit.service.records.ledger
    return [_view(visit, each) for each in ids[:MOST_CHOSEN] if each in ledger.entries]


def _view(visit: Visit, edit_id: str) -> EditView:
    """The edit's view. Raises UnknownEdit, and Forbidden if the visitor may not reach its namespace."""
    view = visit.service.edit_view(edit_id)
    visit.check_reach(view.edit.request.namespace)
    return view


# -- one edit


async def show(visit: Visit) -> Response:
    view = _view(visit, visit.request.path_params["id"])
    return await _shown(visit, view)


async def _shown(visit: Visit, view: EditView, problem: Any = None, typed: Any = None) -> Response:
    request = view.edit.request
    return visit.page(
        "edit.html",
        status=200 if problem is None else problem["status"],
        title="Edit",
        view=view,
        request=request,
        question=visit.service.answers.question,
        neighbours=await visit.service.neighbours(view.edit.id),
        hits=chart(visit.service.records.hits.by_day(view.edit.id), visit.service.records.hits.now_s),
        replaced=[visit.service.edit_view(each) for each in view.edit.supersedes],
        replaced_by=[
            visit.service.edit_view(each) for each in visit.service.records.ledger.entry(view.edit.id).superseded_by
        ],
        problem=problem,
        typed=typed or {"reach": "1", "more": "", "apart": "", "aliases": "", "reason": ""},
        reaches=REACHES,
        changed="changed" in visit.query,
    )


# -- changes


async def change(visit: Visit) -> Response:
    """Ask for confirmation and a reason, then carry out the change. Changes that others made meanwhile are shown
    first."""
    form = visit.form
    action, ids = form.get("action"), form.all("id")
    if action not in ACTIONS:
        raise InvalidRequest("Choose what to do with the edits: roll back, disable or enable.")
    if not ids:
        raise InvalidRequest("No edit is chosen: tick at least one.")
    if len(ids) > MOST_CHOSEN:
        raise InvalidRequest(f"Too many edits are chosen: at most {MOST_CHOSEN} are changed in one step.")
    views = [_view(visit, each) for each in ids]
    done = visit.service.records.done_under(_origin(visit, action, ids)) is not None
    stale = [view for view in views if view.revision > visit.read()]
    if not done and (not form.get("confirmed") or stale):
        return _confirm(visit, action, views, stale)
    try:
        await _carry_out(visit, action, ids)
    except ErrataError as error:
        return _confirm(visit, action, views, [], problem_of(error))
    if form.get("from") == "edit" and len(ids) == 1:
        return visit.to(f"{HERE}/edits/{ids[0]}", changed=1)
    return visit.to(f"{HERE}/edits", changed=",".join(ids[:50]))


async def _carry_out(visit: Visit, action: str, ids: Sequence[str]) -> None:
    service, origin, read = visit.service, _origin(visit, action, ids), visit.read()
    match action:
        case "rollback":
            await service.roll_back(ids, origin, read)
        case "disable":
            await service.disable(ids, origin, read)
        case _:
            await service.enable(ids, origin, read)


def _origin(visit: Visit, action: str, ids: Sequence[str]) -> Origin:
    return visit.origin(visit.form.reason(), action, tuple(ids))


def _confirm(
    visit: Visit, action: str, views: Sequence[EditView], stale: Sequence[EditView], problem: Any = None
) -> Response:
    ledger = visit.service.records.ledger
    returning = [
        visit.service.edit_view(old)
        for view in views
        for old in view.edit.supersedes
        if action != "enable" and ledger.state(old) is State.SUPERSEDED
    ]
    return visit.page(
        "confirm.html",
        status=409 if stale else 200 if problem is None else problem["status"],
        title=ACTIONS[action],
        action=action,
        verb=ACTIONS[action],
        views=views,
        stale=stale,
        returning=returning if action == "rollback" else [],
        problem=problem,
        reason=visit.form.get("reason"),
        back=visit.form.get("from"),
        question=visit.service.answers.question,
    )


async def retune(visit: Visit) -> Response:
    """Retune an edit by a job, because fitting and checking it again takes seconds."""
    form, service = visit.form, visit.service
    view = _view(visit, visit.request.path_params["id"])
    typed = {name: form.get(name) for name in ("reach", "more", "apart", "aliases", "reason")}
    try:
        if view.revision > visit.read() and service.records.done_under(_retuned_by(visit, view)) is None:
            last = view.history[-1]
            raise InvalidRequest(
                f"{last.origin.actor} changed this edit meanwhile, at revision {view.revision}, so nothing was done: "
                "look at it below, and send the change again if it is still wanted."
            )
        change = Retune(
            widen=float(typed["reach"]) if typed["reach"] in REACHES else 1.0,
            paraphrases=form.lines("more"),
            counter_examples=form.lines("apart"),
            aliases=form.lines("aliases"),
        )
    except ErrataError as error:
        return await _shown(visit, view, problem_of(error), typed)
    origin, read = _retuned_by(visit, view), visit.read()

    async def work(on_progress: OnProgress) -> tuple[EditResults, bool, bool]:
        changed = await service.retune(view.edit.id, change, origin, read, on_progress)
        return EditResults(results=(EditResult(view=changed, seconds={}),), revision=service.revision), False, False

    job = service.jobs.start(work)
    return visit.to(f"{HERE}/edits/{view.edit.id}/retune/{job.id}")


def _retuned_by(visit: Visit, view: EditView) -> Origin:
    return visit.origin(visit.form.reason(), "retune", view.edit.id)


async def retuning(visit: Visit) -> Response:
    edit_id = visit.request.path_params["id"]
    view = _view(visit, edit_id)
    job = visit.job(visit.request.path_params["job"])
    if job is None:
        return visit.to(f"{HERE}/edits/{edit_id}")
    url, question = f"{HERE}/edits/{edit_id}/retune/{job.id}", visit.service.answers.question(view.edit.request.prompt)
    if waiting := visit.wait(job, "Changing the reach", "edit_progress.html", url=url, q=question):
        return waiting
    if job.error is not None:
        return await _shown(visit, view, problem_of(job.error))
    return visit.to(f"{HERE}/edits/{edit_id}", changed=1)
