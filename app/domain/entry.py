"""One edit's place in the ledger: when it was live, who covers it, what it has learned since."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.domain.edit import Edit, EditRequest, fit_id_of
from app.domain.events import Origin, Refit

NEVER = 2**62
"""A revision no log reaches: the open end of a live interval."""


@dataclass(slots=True)
class Entry:
    """One edit's life. `live` are intervals [from, to) over revisions; `superseded_by` are edits that named it."""

    edit: Edit
    order: int
    """Its place among all edits of the log: breaks ties, the newest wins."""
    staged_in: str | None = None
    committed_at: int | None = None
    """The revision of the event that committed it: for a staged edit, its batch's closing event."""
    rolled_back: bool = False
    disabled: bool = False
    expired: bool = False
    superseded_by: list[str] = field(default_factory=list)
    covers: bool = False
    """Whether it keeps out what it supersedes: it stands, or what superseded it stands or covers in turn."""
    live: list[tuple[int, int]] = field(default_factory=list)
    history: list[tuple[int, str, float, Origin]] = field(default_factory=list)
    """(revision, event kind, Unix time, origin) of every event that touched it."""

    refits: list[tuple[int, Refit]] = field(default_factory=list)
    """(revision, what was learned) from that revision on, oldest first."""

    retunes: list[tuple[int, EditRequest, Mapping[str, Any]]] = field(default_factory=list)
    """(revision, what was asked of it in all, what was measured then), oldest first."""

    @property
    def request(self) -> EditRequest:
        """What is asked of it now."""
        return self.retunes[-1][1] if self.retunes else self.edit.request

    @property
    def report(self) -> Mapping[str, Any]:
        """What was measured when it was made, or retuned last."""
        return self.retunes[-1][2] if self.retunes else self.edit.report

    @property
    def learned(self) -> Mapping[str, Any]:
        """What it acts by now."""
        return self.refits[-1][1].learned if self.refits else self.edit.learned

    def fit_id(self, revision: int | None = None) -> str:
        """Names what the edit acts by at a revision, by default the newest: the edit itself, or a refit of it."""
        known = [at for at, _ in self.refits if revision is None or at <= revision]
        return fit_id_of(self.edit.id, known[-1]) if known else self.edit.id

    def fits(self, oldest: int) -> list[Edit]:
        """What it acts by at any revision from `oldest` on: the edit as it stands, under each fit's id."""
        now = replace(self.edit, request=self.request)
        refitted = [
            (at, replace(now, id=fit_id_of(self.edit.id, at), learned=fit.learned, tensors=fit.tensors))
            for at, fit in self.refits
        ]
        all_fits = [(0, self.edit), *refitted]
        ends = [*(at for at, _ in refitted), NEVER]
        return [each for (_, each), end in zip(all_fits, ends, strict=True) if end > oldest]

    @property
    def touched_at(self) -> int:
        """The newest revision that changed it, be it by what happened to another edit."""
        turned = [at for span in self.live[-1:] for at in span if at != NEVER]
        return max(self.history[-1][0], *turned, 0)

    def live_at(self, revision: int) -> bool:
        return any(start <= revision < end for start, end in self.live)


@dataclass(frozen=True, slots=True)
class Use:
    """What an idempotency key was used for."""

    digest: str
    """Of the request."""
    revision: int
    """Of the event that it made, or a batch's closing event."""
    edit_ids: tuple[str, ...]
    """What that event touched."""
