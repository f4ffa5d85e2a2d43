"""Admission: whether the service takes work now, and a count of the work that it has taken. Knows no use case."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from app.domain.errors import InvalidRequest
from app.domain.events import Origin
from app.service.records import Records
from app.service.work_in_progress import Kind, WorkInProgress, refused


class Admission:
    """`why_not` is the reason for which no work is taken, if any. `end_answers` ends every answer with an error."""

    def __init__(self, records: Records, reason_required: bool, end_answers: Callable[[], None]) -> None:
        self._records, self.reason_required = records, reason_required
        self.why_not: str | None = "starting"
        self.work_in_progress = WorkInProgress(end_answers)

    def working(self, kind: Kind) -> AbstractContextManager[None]:
        """A context for work that a stop waits for. Raises the errors of `check`."""
        self.check()
        return self.work_in_progress.counted(kind)

    def editing(self) -> AbstractContextManager[None]:
        """A context for the making of edits."""
        return self.working("edit")

    def check(self) -> None:
        """Raises RequestCancelled while the service starts, stops or rebuilds."""
        if self.why_not is not None:
            raise refused(self.why_not)

    def check_reason(self, reason: str | None) -> None:
        """Raises if the log accepts no changes now, or if a reason is required and missing."""
        self._records.check_held()
        if self.reason_required and not (reason or "").strip():
            raise InvalidRequest("`reason` is required on this server: say why, for the audit trail.")

    def check_change(self, origin: Origin) -> None:
        """Raises if a change cannot be accepted, because of the server's state or a missing reason."""
        self.check()
        self.check_reason(origin.reason)
