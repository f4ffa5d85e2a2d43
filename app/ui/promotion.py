"""Promotion: chosen edits of one namespace become a sheet of another, where each is tried and published."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from app.api.errors import problem_of
from app.domain.edit import EditRequest, State
from app.domain.entry import Entry
from app.domain.errors import ErrataError, InvalidRequest, UnknownEdit
from app.domain.keys import Right
from app.service.namespaces import check_known
from app.service.promotion import promotable, promoted
from app.ui.desk import HERE, Desk
from app.ui.sheets import Sheet, SheetRow, Sheets, check
from app.ui.visit import Visit

PER_PAGE = 100


class PromotionPages:
    def __init__(self, desk: Desk, sheets: Sheets) -> None:
        self._desk, self._sheets = desk, sheets

    def routes(self) -> list[Route]:
        page = partial(self._desk.route, right=Right.EDIT, reached=True)
        return [page("/promote", get=self.form, post=self.take)]

    async def form(self, visit: Visit) -> Response:
        source, to = visit.query.get("from", "").strip(), visit.query.get("to", "").strip()
        return self._form(visit, source, to, _place(visit.query.get("after", "")), None)

    def _form(
        self, visit: Visit, source: str, to: str, after: int, chosen: Sequence[str] | None, problem: Any = None
    ) -> Response:
        """One page of the live edits, oldest first: those behind the place `after` among all edits of the log."""
        visit.check_reach(*filter(None, (source, to)))
        ledger, configured = visit.service.records.ledger, visit.service.configured
        entries: list[Entry] = []
        if source and to and problem is None:
            for name in (source, to):
                check_known(ledger, name, configured)
            if source == to:
                raise InvalidRequest("Edits are promoted from one namespace into another: choose two.")
        if source:
            entries = [entry for entry in ledger.entries_of(source) if ledger.state(entry.edit.id) is State.LIVE]
        behind = [entry for entry in entries if entry.order > after]
        shown = behind[:PER_PAGE]
        same = {
            entry.edit.id: there
            for entry in shown
            for there in ledger.with_prompt(to, entry.request.prompt, State.LIVE, State.DISABLED)
        }
        return visit.page(
            "promote.html",
            status=200 if problem is None else problem["status"],
            title="Promote edits",
            source=source,
            to=to,
            views=[visit.service.edit_view(entry.edit.id) for entry in shown],
            count=len(entries),
            before=len(entries) - len(behind),
            after=after,
            onwards=shown[-1].order if len(behind) > len(shown) else None,
            there={edit_id: visit.service.edit_view(other) for edit_id, other in same.items()},
            chosen=chosen,
            reason=visit.form.get("reason"),
            problem=problem,
            namespaces=self._desk.known_namespaces(visit),
            question=visit.service.answers.question,
        )

    async def take(self, visit: Visit) -> Response:
        """Accept a promotion. A form that is sent twice creates one sheet."""
        form = visit.form
        source, to, ids = form.get("from"), form.get("to"), form.all("id")
        visit.check_reach(source, to)
        sheet_id = visit.made_id("sh_")
        if self._sheets.find(sheet_id) is None:
            try:
                self._sheets.keep(await self._read(visit, sheet_id, source, to, ids))
            except ErrataError as error:
                return self._form(visit, source, to, _place(form.get("after")), ids, problem_of(error))
        return visit.to(f"{HERE}/many/{sheet_id}")

    async def _read(self, visit: Visit, sheet_id: str, source: str, to: str, ids: Sequence[str]) -> Sheet:
        service, reason = visit.service, visit.form.reason()
        if not ids:
            raise InvalidRequest("No edit is chosen: tick at least one.")
        if any(each not in service.records.ledger.entries for each in ids):
            raise UnknownEdit("One of the edits is not there: reload the page.")
        entries = promotable(service.records.ledger, source, to, ids, service.configured)
        of = {entry.edit.id: entry for entry in entries}
        rows = [
            SheetRow(at, service.answers.question(e.request.prompt), e.request.target, source=e.edit.id)
            for at, e in enumerate(entries, 1)
        ]
        now_s = service.records.now_s

        def request_of(row: SheetRow) -> EditRequest:
            request = promoted(of[row.source or ""], to, reason, now_s)
            if service.reason_required and not request.reason:
                raise InvalidRequest("The reason is missing: this server wants to know why, for the audit trail.")
            return request

        await check(service, rows, request_of, now_s)
        return Sheet(sheet_id, to, rows, source=source)


def _place(text: str) -> int:
    """The place in the list that a page's address or form names; before all edits if it names none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else -1
