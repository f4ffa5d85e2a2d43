"""Sheets: many corrections at once, whose rows are checked, tried and published one by one.

Uses the service, independent of the pages. Sheets live in this server's memory, as previews do; published edits are in
the log.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from app.api.metrics import Metrics
from app.domain.edit import EditRequest, State
from app.domain.errors import ErrataError, InvalidRequest, LostRace, QueueFull, RequestCancelled, StoreUnavailable
from app.domain.events import Origin
from app.service.files import FileRow, Kind
from app.service.views import EditResults, EditView, OnProgress

if TYPE_CHECKING:
    from app.service.service import Service

MOST_KEPT = 50
PASSING = (StoreUnavailable, RequestCancelled, QueueFull, LostRace)
"""Errors that are not the row's fault: the server can take neither this row nor the following ones now."""


@dataclass(frozen=True, slots=True)
class RowPreview:
    """The result of a row's preview, without the recent prompts that it mentions, which must remain deletable."""

    before: str
    after: str
    diff: list[dict[str, str]]
    holds: bool
    identical: str | None
    """The id of a live edit that says the same, if there is one."""
    """The live edit that already says the same."""
    problems: tuple[str, ...]
    conflicts: tuple[str, ...]
    """The edits that conflict with this one."""

    @classmethod
    def of(cls, view: EditView) -> "RowPreview":
        report = view.edit.report
        return cls(
            before=view.edit.before,
            after=view.edit.after,
            diff=list(report["diff"]),
            holds=bool(report["would_commit"]),
            identical=report.get("stands_already"),
            problems=tuple(report["problems"]),
            conflicts=tuple(report["conflicts"]),
        )


@dataclass(slots=True)
class SheetRow:
    """One correction. `request` is set once it was checked; `problem` says in words why it cannot go on."""

    number: int
    question: str
    target: str
    line: FileRow | None = None
    """The row of the file that it was read from."""
    source: str | None = None
    """The edit of another namespace that it was promoted from."""
    request: EditRequest | None = None
    expires_at_s: float | None = None
    problem: str | None = None
    trial: RowPreview | None = None
    left_out: bool = False
    edit_id: str | None = None
    """The edit that was made from it."""
    proposal_id: str | None = None
    """The proposal that was made from it, if a second person is needed."""

    def request_at(self, now_s: float) -> EditRequest:
        """The edit request as of `now_s`, with the remaining time until its end. Raises InvalidRequest if it has
        ended."""
        assert self.request is not None
        if self.expires_at_s is None:
            return self.request
        if self.expires_at_s <= now_s:
            raise InvalidRequest("Its end has come meanwhile: give a later one.")
        return replace(self.request, expires_in_s=self.expires_at_s - now_s)

    @property
    def why(self) -> str:
        """The reason why the row is not published, for the file of remaining rows."""
        if self.problem is not None:
            return self.problem
        if self.trial is not None and self.trial.conflicts:
            return f"Other edits are in the way: {', '.join(self.trial.conflicts)}."
        if self.trial is not None and self.trial.problems:
            return "; ".join(self.trial.problems)
        return "It was left out." if self.left_out else "It was not published."

    @property
    def ready(self) -> bool:
        """True if the row can be published as it is."""
        open_yet = self.problem is None and self.edit_id is None and self.proposal_id is None
        return open_yet and self.trial is not None and self.trial.holds

    @property
    def rest(self) -> bool:
        """True if the correction is neither live nor waiting for a second person."""
        return (
            self.edit_id is None and self.proposal_id is None and not (self.trial is not None and self.trial.identical)
        )


@dataclass(slots=True)
class Sheet:
    """Corrections of one namespace. `trying` and `publishing` are the ids of the jobs that do so. `kind` is the format
    of its file; None if it came from a namespace."""

    id: str
    namespace: str
    rows: list[SheetRow]
    kind: Kind | None = None
    source: str | None = None
    """The namespace that its edits come from."""
    trying: str | None = None
    publishing: str | None = None
    published: dict[str, str] = field(default_factory=dict)
    """Maps the mark of each form that was sent to publish to its job."""
    done: int = 0
    of: int = 0
    """The total number of rows of the current job, of which `done` are completed."""

    @property
    def checked(self) -> list[SheetRow]:
        return [row for row in self.rows if row.request is not None]

    @property
    def ready(self) -> list[SheetRow]:
        return [row for row in self.rows if row.ready]

    @property
    def rest(self) -> list[SheetRow]:
        return [row for row in self.rows if row.rest]


class Sheets:
    """The newest sheets, at most MOST_KEPT."""

    def __init__(self) -> None:
        self._sheets: OrderedDict[str, Sheet] = OrderedDict()

    def get(self, sheet_id: str) -> Sheet:
        """The sheet with this id. Raises InvalidRequest if it is no longer kept."""
        if sheet_id not in self._sheets:
            raise InvalidRequest(
                "These corrections are no longer kept here: the server was restarted, or many others came after "
                "them. What was published is under Edits; send the file again to go on with the rest."
            )
        return self._sheets[sheet_id]

    def find(self, sheet_id: str) -> Sheet | None:
        return self._sheets.get(sheet_id)

    def keep(self, sheet: Sheet) -> None:
        """Keep a sheet. If the same form was sent twice at once, the first to be read stays: it may be in use."""
        self._sheets.setdefault(sheet.id, sheet)
        if len(self._sheets) > MOST_KEPT:
            self._sheets.popitem(last=False)


async def check(
    service: "Service", rows: Sequence[SheetRow], make: Callable[[SheetRow], EditRequest], now_s: float
) -> None:
    """Check each row before anything is fitted: that it is a valid request, that the model can take it, and that no
    other row has its prompt."""
    first: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.problem is not None:
            continue
        try:
            request = make(row)
            await asyncio.to_thread(service.check_edit, request)
            at = first.setdefault((request.namespace, request.prompt.strip()), row.number)
            if at != row.number:
                raise InvalidRequest(f"Line {at} has the same prompt: keep one of the two.")
        except ErrataError as error:
            row.problem = error.message
        else:
            row.request = request
            row.expires_at_s = None if request.expires_in_s is None else now_s + request.expires_in_s


async def try_rows(
    service: "Service", metrics: Metrics, sheet: Sheet, origin: Origin, read: int, on_progress: OnProgress
) -> Any:
    """Preview each checked row, one after the other. Nothing is committed."""
    rows = sheet.checked
    sheet.done, sheet.of = 0, len(rows)
    for row in rows:
        assert row.request is not None
        try:
            results = await service.edit([row.request], origin, dry_run=True, on_progress=on_progress, read=read)
            metrics.edited(results, dry_run=True)
            row.trial, row.problem = RowPreview.of(results.results[0].view), None
        except PASSING:
            raise
        except ErrataError as error:
            metrics.edit_failed(error, 1)
            row.trial, row.problem = None, error.message
        sheet.done += 1
    return EditResults(results=(), revision=service.revision), True, True


async def publish_rows(
    service: "Service",
    metrics: Metrics,
    sheet: Sheet,
    origins: Sequence[tuple[SheetRow, Origin]],
    read: int,
    on_progress: OnProgress,
) -> Any:
    """Publish each of these rows on its own. A row that is refused remains among the rest."""
    sheet.done, sheet.of = 0, len(origins)
    results = []
    for row, origin in origins:
        try:
            outcome = await service.edit(
                [row.request_at(service.records.now_s)], origin, on_progress=on_progress, read=read
            )
            metrics.edited(outcome, dry_run=False)
            if outcome.proposal is not None:
                row.proposal_id = outcome.proposal.id
            else:
                row.edit_id = outcome.results[0].view.edit.id
                results.append(outcome.results[0])
        except PASSING:
            raise
        except ErrataError as error:
            metrics.edit_failed(error, 1)
            row.problem = error.message
        sheet.done += 1
    return EditResults(results=tuple(results), revision=service.revision), True, False


def replaced_by(service: "Service", row: SheetRow) -> list[str]:
    """The live or disabled edits of the same prompt, which this row would replace."""
    request = row.request
    if request is None or row.edit_id is not None:
        return []
    return service.records.ledger.with_prompt(request.namespace, request.prompt, State.LIVE, State.DISABLED)
