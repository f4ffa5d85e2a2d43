"""What the service answers about edits: the ledger's entries, read once, as values."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Literal

from app.domain.approval import Proposal
from app.domain.edit import Edit, State
from app.domain.errors import ErrataError
from app.domain.events import Origin

if TYPE_CHECKING:
    from app.editors.base import Progress  # imports torch: views do without

_WORDS = re.compile(r"\s*\S+|\s+$")
Tell = Callable[[str, "Progress | None"], None]
"""Who waits for edits is told, on the event loop, their phase (fit, scope, verify) and how far that has come."""


def silent(_phase: str, _progress: "Progress | None") -> None: ...


Doing = Callable[[str, int, int], None]
"""Who waits for a server to start is told what it is doing, and how much of it is done: 0 of 0 where nobody knows."""


def quietly(_what: str, _done: int, _of: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryItem:
    """One event of an edit's life."""

    revision: int
    kind: str
    at_s: float
    origin: Origin
    by: str | None = None
    """The edit whose event it was, where that is another one."""
    changed: Mapping[str, Any] = field(default_factory=dict)
    """The texts that a retune added, by kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditView:
    """An edit with where it stands. `revision` is that of the newest event that touched it."""

    edit: Edit
    state: State
    revision: int
    origin: Origin
    """Of the event that committed (or staged) it."""
    live: tuple[tuple[int, int | None], ...]
    """Live intervals [from, to) over revisions; None: still live."""
    history: tuple[HistoryItem, ...]
    hits: int
    """Answers it gave, over all servers of the log, as far as they have told."""
    last_hit_s: float | None
    not_given: int = 0
    """Answers in its scope since then that did not say its target."""

    @classmethod
    def preview(cls, edit: Edit, origin: Origin) -> "EditView":
        """An edit that was fitted and verified, and is not committed."""
        return cls(
            edit=edit, state=State.STAGED, revision=0, origin=origin, live=(), history=(), hits=0, last_hit_s=None
        )


def token_diff(before: str, after: str) -> list[dict[str, str]]:
    """What an answer keeps, loses and gains, word by word: [{op: keep, delete or insert; text}]."""
    a, b = _WORDS.findall(before), _WORDS.findall(after)
    found: list[dict[str, str]] = []
    for op, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if op == "equal":
            found.append({"op": "keep", "text": "".join(a[i:j])})
            continue
        if j > i:
            found.append({"op": "delete", "text": "".join(a[i:j])})
        if m > k:
            found.append({"op": "insert", "text": "".join(b[k:m])})
    return found


def kept_report(report: Mapping[str, Any], *, whole: bool = False) -> dict[str, Any]:
    """What of a report goes into the log, and into errors that jobs keep: no recent prompts, which must stay
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
    """Which edits to list; None means any. `text` is sought in prompt, target and subject, ignoring case."""

    state: State | None = None
    namespace: str | None = None
    namespaces: frozenset[str] | None = None
    """Only edits of these."""
    editor: str | None = None
    actor: str | None = None
    text: str | None = None
    never_hit: bool = False
    expires_within_s: float | None = None
    """Those that stand yet, and end by themselves within this time."""
    id_prefix: str | None = None
    sort: Sort = "newest"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditResult:
    """One accepted edit (or, for a preview, one that would be), with what its making took."""

    view: EditView
    seconds: Mapping[str, float]
    """fit, verify, commit."""
    created: bool = True
    """False when an identical edit, or one under the same idempotency key, stood already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditFailure:
    """One edit of a batch that is not atomic, and why it was not made."""

    index: int
    """Its place in the batch, from 0."""
    error: ErrataError


@dataclass(frozen=True, slots=True, kw_only=True)
class EditResults:
    """Of a batch that is not atomic the results may be none, and the failures all."""

    results: tuple[EditResult, ...]
    revision: int
    failures: tuple[EditFailure, ...] = ()
    """Only of a batch that is not atomic: there the others go live all the same."""
    proposal: Proposal | None = None
    """In place of results: what was asked for waits for a second person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeView:
    """How the judge of uncertain questions stands, what it reached in its exam, what it has done since the start."""

    judge: str = "off"
    state: str = "off"
    """off, sitting, serving, failed or broken."""
    why_not: str | None = None
    """Why there is a judge, and it does not serve."""
    pass_mark: float = 0.0
    same: float | None = None
    other: float | None = None
    """Accuracy on pairs that ask the same, and on those that do not."""
    pairs: int = 0
    """Pairs of the exam that it has answered."""
    seconds: float | None = None
    """What the exam took."""
    wrong: tuple[tuple[str, str, bool], ...] = ()
    """(known question, new question, whether it asks the same) of each that it got wrong."""
    asked: int = 0
    changed: int = 0
    """Decisions that are others than without it."""
    failed: int = 0
    asked_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the server stands."""

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
    """Of the log's entry at the revision."""
    live_edits: int
    pending_proposals: int
    """Proposals that wait for a second person."""
    switched_on: bool
    """Whether the switch of all namespaces is on."""
    switched_off: tuple[str, ...]
    """Namespaces whose own switch is off."""
    log_lag: int
    """Events of the log that are not applied here yet, as far as it has told."""
    log_silence_s: float
    """Seconds since the log last answered: a second or so while all is well."""
    running: int
    waiting: int
    judge: JudgeView
    extra: Mapping[str, Any]
    reported_answers: int = 0
    """Answers that readers reported as wrong, and that are kept."""
