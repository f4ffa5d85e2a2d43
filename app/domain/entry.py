"""An edit's entry in the ledger: its live intervals, the edits that cover it, and what it has learned since its
commit."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.domain.edit import Edit, EditRequest, fit_id_of
from app.domain.events import Event, Origin, Refit

NEVER = 2**62
"""A revision that no log reaches; it marks the open end of a live interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """One event in the history of an edit or a proposal. `at_s` is Unix time."""

    revision: int
    kind: str
    at_s: float
    origin: Origin

    @classmethod
    def of(cls, event: Event, kind: str | None = None) -> "Touch":
        """The touch of an event, under its own kind or another."""
        return cls(revision=event.revision, kind=kind or event.kind, at_s=event.at_s, origin=event.origin)


@dataclass(slots=True)
class Entry:
    """One edit's life. `live` holds intervals [from, to) over revisions; `superseded_by` holds the ids of edits that
    supersede it."""

    edit: Edit
    order: int
    """Position among all edits of the log; the newest edit wins a tie."""
    staged_in: str | None = None
    committed_at: int | None = None
    """Revision of the event that committed it; for a staged edit, that of its batch's closing event."""
    rolled_back: bool = False
    disabled: bool = False
    expired: bool = False
    superseded_by: list[str] = field(default_factory=list)
    covers: bool = False
    """True if it keeps the edits that it supersedes from going live: it is in force itself, or an edit that superseded
    it is in force or covers in turn."""
    live: list[tuple[int, int]] = field(default_factory=list)
    history: list[Touch] = field(default_factory=list)
    """Every event that touched the edit, oldest first."""

    refits: list[tuple[int, Refit]] = field(default_factory=list)
    """(revision, refit), oldest first. A refit applies from its revision on."""

    retunes: list[tuple[int, EditRequest, Mapping[str, Any]]] = field(default_factory=list)
    """(revision, complete request, verification report) of each retuning, oldest first."""

    @property
    def request(self) -> EditRequest:
        """The request in force: the last retuning's, else the original."""
        return self.retunes[-1][1] if self.retunes else self.edit.request

    @property
    def report(self) -> Mapping[str, Any]:
        """The report of the last retuning, else the one made before the commit."""
        return self.retunes[-1][2] if self.retunes else self.edit.report

    @property
    def learned(self) -> Mapping[str, Any]:
        """The editor's scalars in force: the last refit's, else those committed."""
        return self.refits[-1][1].learned if self.refits else self.edit.learned

    @property
    def widened(self) -> float:
        """The factor on the odds of a match by which its scope is wider than learned; 1 if it has no scope."""
        return float(self.learned.get("scope", {}).get("widened", 1.0))

    def fit_id(self, revision: int | None = None) -> str:
        """Id of the fit in force at a revision, by default the newest: the edit's own id or that of a refit."""
        known = [at for at, _ in self.refits if revision is None or at <= revision]
        return fit_id_of(self.edit.id, known[-1]) if known else self.edit.id

    def fits(self, oldest: int) -> list[Edit]:
        """Fits in force at any revision from `oldest` on, each as an edit under the fit's id."""
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
        """Newest revision that changed the edit, directly or through another edit."""
        changes = [at for span in self.live[-1:] for at in span if at != NEVER]
        return max(self.history[-1].revision, *changes, 0)

    def live_at(self, revision: int) -> bool:
        return any(start <= revision < end for start, end in self.live)


@dataclass(frozen=True, slots=True)
class KeyedOutcome:
    """The outcome recorded under an idempotency key."""

    digest: str
    """Digest of the request."""
    revision: int
    """Revision of the event that the request caused; for a batch, of its closing event."""
    edit_ids: tuple[str, ...]
    """Edits that the event touched."""
