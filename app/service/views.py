"""The service's answers about edits: the ledger's entries, read once, as values."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Literal

from app.domain.approval import Proposal
from app.domain.edit import Edit, State
from app.domain.entry import Touch
from app.domain.errors import ErrataError
from app.domain.events import Origin

if TYPE_CHECKING:
    from app.editors.base import FitProgress  # imports torch, which views do without

_WORDS = re.compile(r"\s*\S+|\s+$")
OnProgress = Callable[[str, "FitProgress | None"], None]
"""A callback, on the event loop, for the phase of an edit (fit, scope, verify) and its progress."""


def silent(_phase: str, _progress: "FitProgress | None") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EditOptions:
    """A way to make edits: all or none if `atomic`, and only tried if `dry_run`."""

    atomic: bool = True
    batch: bool = False
    dry_run: bool = False
    on_progress: OnProgress = silent
    read: int | None = None
    """The revision that the requester has read, if given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryItem(Touch):
    """One event of an edit's life."""

    by: str | None = None
    """The edit whose event it was, if it was another one."""
    changed: Mapping[str, Any] = field(default_factory=dict)
    """The texts that a retune added, by kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditView:
    """An edit and its state. `revision` is that of the newest event that touched it."""

    edit: Edit
    state: State
    revision: int
    origin: Origin
    """The origin of the event that committed (or staged) it."""
    live: tuple[tuple[int, int | None], ...]
    """Its live intervals [from, to) of revisions; None if it is still live."""
    history: tuple[HistoryItem, ...]
    hits: int
    """The number of its answers, over all servers of the log, as far as they have reported."""
    last_hit_s: float | None
    not_given: int = 0
    """The number of answers in its scope that did not say its target."""

    @classmethod
    def preview(cls, edit: Edit, origin: Origin) -> "EditView":
        """The view of an edit that was fitted and verified, and is not committed."""
        return cls(
            edit=edit, state=State.STAGED, revision=0, origin=origin, live=(), history=(), hits=0, last_hit_s=None
        )


def token_diff(before: str, after: str) -> list[dict[str, str]]:
    """The words that an answer keeps, loses and gains: [{op: keep, delete or insert; text}]."""
    a, b = _WORDS.findall(before), _WORDS.findall(after)
    changes: list[dict[str, str]] = []
    for op, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if op == "equal":
            changes.append({"op": "keep", "text": "".join(a[i:j])})
            continue
        if j > i:
            changes.append({"op": "delete", "text": "".join(a[i:j])})
        if m > k:
            changes.append({"op": "insert", "text": "".join(b[k:m])})
    return changes


def kept_report(report: Mapping[str, Any], *, whole: bool = False) -> dict[str, Any]:
    """The part of a report for the log, and for errors that jobs keep: without recent prompts, which must remain
    deletable."""
    if whole or "recent" not in report:
        return dict(report)
    return {**report, "recent": {name: n for name, n in report["recent"].items() if name != "shown"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    edits: tuple[EditView, ...]
    next_cursor: str | None


Sort = Literal["newest", "oldest", "hits", "last_hit", "expires", "question"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditFilter:
    """A filter of edits; None matches any. `text` is searched in prompt, target and subject, ignoring case."""

    state: State | None = None
    namespace: str | None = None
    namespaces: frozenset[str] | None = None
    """The namespaces to which the list is limited."""
    editor: str | None = None
    actor: str | None = None
    text: str | None = None
    never_hit: bool = False
    expires_within_s: float | None = None
    """The seconds within which an edit in effect must end by itself to be listed."""
    id_prefix: str | None = None
    sort: Sort = "newest"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditResult:
    """One accepted edit (or, for a preview, one that would be), with the time of its making."""

    view: EditView
    seconds: Mapping[str, float]
    """The seconds of fit, verify and commit."""
    created: bool = True
    """False if an identical edit, or one under the same idempotency key, existed already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditFailure:
    """One edit of a batch that is not atomic, and the reason why it was not made."""

    index: int
    """Its index in the batch, from 0."""
    error: ErrataError


@dataclass(frozen=True, slots=True, kw_only=True)
class EditResults:
    """The results of a request. A batch that is not atomic may have failures only, without any result."""

    results: tuple[EditResult, ...]
    revision: int
    failures: tuple[EditFailure, ...] = ()
    """The edits that failed, only in a batch that is not atomic, whose other edits go live all the same."""
    proposal: Proposal | None = None
    """The proposal that waits for a second person, in place of results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeView:
    """The state of the judge of uncertain questions, its exam's results, and its counts since the start."""

    judge: str = "off"
    state: str = "off"
    """One of off, sitting, serving, failed and broken."""
    why_not: str | None = None
    """The reason why a configured judge does not serve."""
    pass_mark: float = 0.0
    same: float | None = None
    other: float | None = None
    """Its accuracy on pairs that ask the same, and on those that do not."""
    pairs: int = 0
    """The number of the exam's pairs that it has answered."""
    seconds: float | None = None
    """The duration of the exam, in seconds."""
    wrong: tuple[tuple[str, str, bool], ...] = ()
    """(known question, new question, whether it asks the same) for each pair that it got wrong."""
    asked: int = 0
    changed: int = 0
    """The number of decisions that it has changed."""
    failed: int = 0
    asked_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of the server."""

    ready: bool
    why_not: str | None
    model: str
    model_fingerprint: str
    site: str
    device: str
    dtype: str
    store: str
    durable: bool
    revision: int
    hash: str
    """The hash of the log's entry at the revision."""
    live_edits: int
    pending_proposals: int
    """The number of proposals that wait for a second person."""
    switched_on: bool
    """True if the switch of all namespaces is on."""
    switched_off: tuple[str, ...]
    """The namespaces whose own switch is off."""
    log_lag: int
    """The number of the log's events that are not applied here yet, as far as the log has answered."""
    log_silence_s: float
    """The seconds since the log last answered: about one in normal operation."""
    running: int
    waiting: int
    judge: JudgeView
    extra: Mapping[str, Any]
    reported_answers: int = 0
    """The number of kept answers that readers reported as wrong."""
    engine_restarts: int = 0
    """The number of times that the program that generates answers was lost and replaced since the start."""
