"""Editions: the immutable set of edits that a request sees, and what the editors compile from it."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from app.domain.edit import edit_id_of
from app.domain.generation import Signal
from app.domain.words import same_text
from app.editors.base import Decision, Editor, PromptView
from app.engine.frames import frames_of, stem_of
from app.engine.openings import TargetOpenings
from app.engine.text import TextCodec
from app.scope.decision import EncodedQuestion
from app.scope.doubt import Doubt, is_uncertain
from app.scope.index import Match, ScopeIndex, ScopePart

DECISIONS_KEPT = 1024
"""The number of prompts whose decisions an edition keeps."""
SILENT_IN = "silent_in"
"""Key, in an edit's learned values, of the frames in which it does not answer."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Edition:
    """The live edits of a namespace at a revision, oldest first, as ids of their fits; a trial also holds uncommitted
    edits.

    Compared by identity: a sequence keeps its edition until it ends, and what was compiled for it lives as long.
    """

    namespace: str
    revision: int
    edit_ids: tuple[str, ...]
    trial: bool = False
    base: "Edition | None" = None
    """The edition that it was derived from. The reference keeps that one alive, so that its rows count as in use."""

    def without(self, edit_ids: frozenset[str]) -> "Edition":
        kept = tuple(i for i in self.edit_ids if edit_id_of(i) not in edit_ids)
        return Edition(self.namespace, self.revision, kept, self.trial, base=self)

    def replacing(self, names: Mapping[str, str]) -> "Edition":
        """A trial in which edits (by id) act by other fits. They keep their places, since the newest of equally near
        edits answers."""
        ids = tuple(names.get(edit_id_of(i), i) for i in self.edit_ids)
        return Edition(self.namespace, self.revision, ids, trial=True, base=self)

    def trying(self, edit_ids: Sequence[str], superseded: frozenset[str]) -> "Edition":
        kept = (i for i in self.edit_ids if edit_id_of(i) not in superseded)
        return Edition(self.namespace, self.revision, (*kept, *edit_ids), trial=True, base=self)


@dataclass(frozen=True, slots=True)
class UncertainDecision:
    """An edit for which the scope decision is uncertain, and what a judge is shown about it."""

    decision: Decision
    doubt: Doubt
    cut: int = 0
    drops_blank: bool = False
    """Like the fields of `ScopeDecision`, for the case that this edit answers."""


@dataclass(frozen=True, slots=True)
class ScopeDecision:
    """The scope decision for a prompt: the edit in scope, if any; the nearest edit; and the folded words of the
    question. If the nearest edit's margin is uncertain, `uncertain` holds all edits with uncertain margins, nearest
    first."""

    decision: Decision | None = None
    nearest: Decision | None = None
    words: Sequence[str] = ()
    cut: int = 0
    """Number of trailing white-space characters of the prompt that are not fed, because the edit's answer supplies
    them."""
    drops_blank: bool = False
    """True if the answer's leading blank is dropped, because the prompt already ends with it."""
    uncertain: tuple[UncertainDecision, ...] = ()


class UncertaintyJudge(Protocol):
    """A second decision on what the scope index is uncertain about."""

    async def settle(self, scope_decision: ScopeDecision) -> ScopeDecision: ...


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A near edit: how it would answer, for which reading of the question, and whether it is barred from answering."""

    decision: Decision
    question: EncodedQuestion
    barred: bool
    cut: int
    blank: bool

    @property
    def uncertain(self) -> bool:
        return not self.barred and is_uncertain(self.decision.margin)


@dataclass(frozen=True, slots=True)
class LatestParts:
    """The parts that were compiled last for a namespace. An editor whose edits have not changed since keeps its part.

    It keeps no edition alive. It is forgotten when the rows of any of its edits are dropped, because rows that are
    loaded again are elsewhere.
    """

    by_editor: Mapping[str, Sequence[str]]
    """The ids of the edits, by editor key, in the order of the edition."""
    ids: frozenset[str]
    parts: Mapping[str, Any]


class Editions:
    """Compiles editions when a request first needs them, and drops them with their last request."""

    def __init__(self, editors: Mapping[str, Editor], scope: ScopeIndex) -> None:
        self._editors, self._scope = editors, scope
        self._editor_of: dict[str, str] = {}
        self._targets: dict[str, tuple[int, ...]] = {}
        self._openings = TargetOpenings()
        self._silent_in: dict[str, frozenset[str]] = {}
        self._scope_parts: WeakKeyDictionary[Edition, ScopePart] = WeakKeyDictionary()
        self._decided: WeakKeyDictionary[Edition, OrderedDict[tuple[str, bool], ScopeDecision]] = WeakKeyDictionary()
        """The latest decisions: an edition decides a prompt alike whenever it is asked."""
        self._lock = threading.Lock()
        self._parts: WeakKeyDictionary[Edition, dict[str, Any]] = WeakKeyDictionary()
        self._latest: dict[str, LatestParts] = {}  # by namespace

    def own(self, edit_id: str, editor: str, target: Sequence[int] = (), silent_in: Iterable[str] = ()) -> None:
        """Registers an edit's editor. `target`: token ids; `silent_in`: frames in which the edit does not answer."""
        self._editor_of[edit_id] = editor
        self._targets[edit_id] = tuple(target)
        self._openings.add(self._targets[edit_id])
        self.mute(edit_id, silent_in)

    def mute(self, edit_id: str, frames: Iterable[str]) -> None:
        """Silences the edit in these frames, and in no others."""
        self._silent_in[edit_id] = frozenset(frames)
        with self._lock:
            self._decided.clear()

    def target_of(self, edit_id: str | None) -> tuple[int, ...]:
        """Token ids of an edit's target; empty if unknown."""
        return self._targets.get(edit_id or "", ())

    def disown(self, edit_id: str) -> str:
        self._latest = {name: each for name, each in self._latest.items() if edit_id not in each.ids}
        self._openings.remove(self._targets.pop(edit_id, ()))
        self._silent_in.pop(edit_id, None)
        return self._editor_of.pop(edit_id)

    def editor_of(self, edit_id: str) -> str:
        return self._editor_of[edit_id]

    def owned(self) -> list[str]:
        return list(self._editor_of)

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._editor_of

    def parts(self, edition: Edition) -> dict[str, Any]:
        """Editor name -> its compiled part of this edition."""
        if edition not in self._parts:
            latest, by_editor = self._latest.get(edition.namespace), self._by_editor(edition.edit_ids)
            parts = {key: self._part(key, edit_ids, latest) for key, edit_ids in by_editor.items()}
            self._parts[edition] = parts
            if not edition.trial:
                self._latest[edition.namespace] = LatestParts(by_editor, frozenset(edition.edit_ids), parts)
        return self._parts[edition]

    def _part(self, key: str, edit_ids: list[str], latest: LatestParts | None) -> Any:
        if latest is not None and latest.by_editor.get(key) == edit_ids:
            return latest.parts[key]
        return self._editors[key].compile(edit_ids)

    def _by_editor(self, edit_ids: Sequence[str]) -> dict[str, list[str]]:
        ids: dict[str, list[str]] = {}
        for edit_id in edit_ids:
            ids.setdefault(self._editor_of[edit_id], []).append(edit_id)
        return {name: ids[name] for name in self._editors if name in ids}

    # -- deciding

    def ask(self, prompt: str, text: TextCodec, edition: Edition, *, nearest: bool = True) -> ScopeDecision:
        """The scope decision for a prompt; without `nearest` it need not name the nearest edit, and takes less time
        where the words alone say that none is in scope. Thread-safe: rows of an edition in use are never dropped."""
        with self._lock:
            decided = self._decided.setdefault(edition, OrderedDict())
            if (known := decided.get((prompt, nearest))) is not None:
                decided.move_to_end((prompt, nearest))
                return known
        scope_decision = self._decide_scope(prompt, text, edition, nearest=nearest)
        with self._lock:
            decided[prompt, nearest] = scope_decision
            while len(decided) > DECISIONS_KEPT:
                decided.popitem(last=False)
        return scope_decision

    def _decide_scope(self, prompt: str, text: TextCodec, edition: Edition, *, nearest: bool) -> ScopeDecision:
        parsed, part = self._scope.parsed(text.turns(prompt)), self._scope_part(edition)
        words = parsed.words
        if not nearest and self._scope.rules_out_all(parsed, part) and not self._may_end_in_target(prompt, text):
            return ScopeDecision(words=words)
        question = self._scope.encoded(parsed)
        ranked = self._scope.ranked(question, part)
        if not ranked:
            return ScopeDecision(words=words)
        first = self._candidate(prompt, text, question, ranked[0], part)
        candidates = [first] if first.uncertain else []
        if candidates:
            others = [match for match in ranked[1:] if is_uncertain(match.margin)]
            candidates += [self._candidate(prompt, text, question, match, part) for match in others]
        uncertain = tuple(self._doubted(each) for each in candidates if each.uncertain)
        if first.barred or first.decision.margin < 0:
            return ScopeDecision(None, first.decision, words, uncertain=uncertain)
        return ScopeDecision(first.decision, first.decision, words, first.cut, first.blank, uncertain)

    def _may_end_in_target(self, prompt: str, text: TextCodec) -> bool:
        """True if some edit's target may have begun at the end of a prompt, which is then asked about without it."""
        return not text.begun(prompt) and self._openings.end(text.encode(stem_of(prompt, text)))

    def _doubted(self, candidate: _Candidate) -> UncertainDecision:
        doubt = self._scope.doubt(candidate.question, candidate.decision.edit_id or "")
        return UncertainDecision(candidate.decision, doubt, candidate.cut, candidate.blank)

    def _candidate(
        self, prompt: str, text: TextCodec, question: EncodedQuestion, match: Match, part: ScopePart
    ) -> _Candidate:
        """An edit's way to answer a prompt, and what bars it beyond the scope index's decision."""
        edit_id, turns = match.edit_id, text.turns(prompt)
        stem, opened, against = stem_of(prompt, text), text.begun(prompt), ""
        ids = text.encode(stem)
        begun = self._begun_tokens(edit_id, ids)
        if opened:  # the answer has begun: the edit can only continue its own target
            target = self._targets.get(edit_id, ())[:begun]
            begun = begun if begun and same_text(text.continuation(target), opened) else 0
            against = "" if begun else "; but the answer is begun otherwise"
        elif begun:
            without = self._scope.question((*turns[:-1], text.without_last(ids, begun)))
            before = self._scope.nearest(without, part)
            if before is not None and before.edit_id == edit_id and before.margin >= 0:
                question, match = without, before
            else:
                begun = 0
        if silent := self._silent_in.get(edit_id, frozenset()) & frames_of(prompt, text):
            against = f"; but its target was not given when it was tried in this frame ({', '.join(sorted(silent))})"
        decision = Decision(
            edit_id=edit_id,
            editor=self._editor_of[edit_id],
            margin=match.margin,
            signals={**match.signals, **({"answer_begun": Signal(begun, 1)} if begun else {})},
            why=match.why + against,
            begun_tokens=begun,
        )
        blank = prompt[-1:].isspace() and text.continuation(self._targets.get(edit_id, ())[begun:])[:1].isspace()
        return _Candidate(decision, question, bool(against), len(prompt) - len(stem) if blank else 0, blank)

    def _begun_tokens(self, edit_id: str, ids: Sequence[int]) -> int:
        """Number of leading tokens of an edit's target that a prompt ends with, at most all but the last; 0 if its
        editor cannot continue a target."""
        continues = self._editors[self._editor_of[edit_id]].capabilities.continues
        target = self._targets[edit_id] if continues else ()
        ends = range(min(len(target) - 1, len(ids)), 0, -1)
        return next((n for n in ends if tuple(ids[-n:]) == tuple(target[:n])), 0)

    def _scope_part(self, edition: Edition) -> ScopePart:
        with self._lock:
            if edition not in self._scope_parts:
                self._scope_parts[edition] = self._scope.compile(edition.namespace, edition.edit_ids)
            return self._scope_parts[edition]

    def decide(self, prompt: PromptView, scope_decision: ScopeDecision, edition: Edition) -> Decision | None:
        """The edit that answers, if any: the best margin wins, the newest breaks ties."""
        decisions: list[Decision | None] = []
        for name, part in self.parts(edition).items():
            if not self._editors[name].capabilities.scoped:
                decisions.append(self._editors[name].decide(prompt, part))
            elif scope_decision.decision is not None and scope_decision.decision.editor == name:
                decisions.append(self._editors[name].confirm(prompt, part, scope_decision.decision))
        taken = [decision for decision in decisions if decision is not None]
        answers = [decision for decision in taken if decision.edit_id is not None]
        if len(answers) < 2:
            return next(iter((*answers, *taken)), None)
        age = {edit_id: at for at, edit_id in enumerate(edition.edit_ids)}
        return max(answers, key=lambda decision: (decision.margin, age[decision.edit_id or ""]))
