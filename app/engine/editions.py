"""Editions: which edits a request sees, immutable, and what the adaptors made of that."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from app.domain.edit import edit_id_of
from app.domain.generation import Signal
from app.editors.base import Decision, Editor, PromptView
from app.engine.text import Text
from app.scope.scope import Scope, ScopePart


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Edition:
    """The live edits of a namespace at a revision, oldest first, by the ids of the fits that they act by; a trial also
    holds edits that no event has committed.

    Compared by identity: a sequence keeps its edition until it ends, and what was compiled for it lives as long.
    """

    namespace: str
    revision: int
    edit_ids: tuple[str, ...]
    trial: bool = False
    base: "Edition | None" = None
    """What it was made from, which so lives as long: whoever knows that one knows which rows are in use."""

    def without(self, edit_ids: frozenset[str]) -> "Edition":
        kept = tuple(i for i in self.edit_ids if edit_id_of(i) not in edit_ids)
        return Edition(self.namespace, self.revision, kept, self.trial, base=self)

    def replacing(self, names: Mapping[str, str]) -> "Edition":
        """Edits (by id) act by other fits, where they stand: of two that are equally near the newest answers."""
        ids = tuple(names.get(edit_id_of(i), i) for i in self.edit_ids)
        return Edition(self.namespace, self.revision, ids, trial=True, base=self)

    def trying(self, edit_ids: Sequence[str], superseded: frozenset[str]) -> "Edition":
        kept = (i for i in self.edit_ids if edit_id_of(i) not in superseded)
        return Edition(self.namespace, self.revision, (*kept, *edit_ids), trial=True, base=self)


@dataclass(frozen=True, slots=True)
class Asking:
    """What the scope index finds for a prompt: the edit that it asks for, if any; else the one that came nearest;
    and the words of its question, folded."""

    decision: Decision | None = None
    nearest: Decision | None = None
    words: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Latest:
    """What was compiled last for a namespace, to go on from. It keeps no edition alive, and ends with any of its
    edits' rows: loaded again, they stand elsewhere."""

    edit_ids: tuple[str, ...]
    ids: frozenset[str]
    parts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """From one set of edits to the next: those that are gone, and newer ones that have come."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


def _step(before: tuple[str, ...], after: tuple[str, ...]) -> Step | None:
    """None where the order of those that stay is another, or where compiling anew costs no more."""
    if after[: len(before)] == before:
        return Step(after[len(before) :], ())
    kept = set(after)
    removed = tuple(edit_id for edit_id in before if edit_id not in kept)
    gone = set(removed)
    stay = tuple(edit_id for edit_id in before if edit_id not in gone)
    if len(removed) > max(8, len(after) // 4) or after[: len(stay)] != stay:
        return None
    return Step(after[len(stay) :], removed)


class Editions:
    """Compiles editions when a request first needs them, and forgets them with their last request."""

    def __init__(self, editors: Mapping[str, Editor], scope: Scope) -> None:
        self._editors, self._scope = editors, scope
        self._editor_of: dict[str, str] = {}
        self._targets: dict[str, tuple[int, ...]] = {}
        self._scope_parts: WeakKeyDictionary[Edition, ScopePart] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._parts: WeakKeyDictionary[Edition, dict[str, Any]] = WeakKeyDictionary()
        self._latest: dict[str, Latest] = {}  # by namespace

    def own(self, edit_id: str, editor: str, target: Sequence[int] = ()) -> None:
        """`target` in tokens."""
        self._editor_of[edit_id] = editor
        self._targets[edit_id] = tuple(target)

    def target_of(self, edit_id: str | None) -> tuple[int, ...]:
        """In tokens; empty where it is not known."""
        return self._targets.get(edit_id or "", ())

    def disown(self, edit_id: str) -> str:
        self._latest = {name: each for name, each in self._latest.items() if edit_id not in each.ids}
        self._targets.pop(edit_id, None)
        return self._editor_of.pop(edit_id)

    def editor_of(self, edit_id: str) -> str:
        return self._editor_of[edit_id]

    def owned(self) -> list[str]:
        return list(self._editor_of)

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._editor_of

    def parts(self, edition: Edition) -> dict[str, Any]:
        """Editor name -> its part of this edition."""
        if edition not in self._parts:
            latest = self._latest.get(edition.namespace)
            step = None if latest is None else _step(latest.edit_ids, edition.edit_ids)
            if latest is None or step is None:
                parts = self._compiled(edition.edit_ids)
            else:
                parts = self._compiled_after(latest.parts, edition.edit_ids, step)
            self._parts[edition] = parts
            if not edition.trial:
                self._latest[edition.namespace] = Latest(edition.edit_ids, frozenset(edition.edit_ids), parts)
        return self._parts[edition]

    def _compiled(self, edit_ids: Sequence[str]) -> dict[str, Any]:
        return {name: self._editors[name].compile(mine) for name, mine in self._by_editor(edit_ids).items()}

    def _compiled_after(self, parts: dict[str, Any], edit_ids: Sequence[str], step: "Step") -> dict[str, Any]:
        """Parts of editors that have neither come nor gone by this step stay as they are."""
        added, removed = self._by_editor(step.added), self._by_editor(step.removed)
        touched = {*added, *removed}
        if not touched <= parts.keys():
            return self._compiled(edit_ids)
        mine = self._by_editor(edit_ids) if len(parts) > 1 else {name: list(edit_ids) for name in parts}
        after = dict(parts)
        for name in touched:
            if not mine.get(name):
                del after[name]
                continue
            change = (mine[name], added.get(name, []), removed.get(name, []))
            after[name] = self._editors[name].compile_after(parts[name], *change)
        return after

    def _by_editor(self, edit_ids: Sequence[str]) -> dict[str, list[str]]:
        ids: dict[str, list[str]] = {}
        for edit_id in edit_ids:
            ids.setdefault(self._editor_of[edit_id], []).append(edit_id)
        return {name: ids[name] for name in self._editors if name in ids}

    # -- deciding

    def ask(self, turns: Sequence[str], ids: Sequence[int], text: Text, edition: Edition) -> Asking:
        """What the scope index finds. Threads may share it: rows of an edition in use stay."""
        question = self._scope.question(turns)
        part = self._scope_part(edition)
        found, part_of_answer = self._scope.nearest(question, part), 0
        if found is not None and (said := self._begun(found.edit_id, ids)):
            before = self._scope.nearest(self._scope.question((*turns[:-1], text.without_last(ids, said))), part)
            if before is not None and before.edit_id == found.edit_id and before.margin >= 0:
                found, part_of_answer = before, said
        words = question.asked.words
        if found is None:
            return Asking(words=words)
        begun = {"answer_begun": Signal(part_of_answer, 1)} if part_of_answer else {}
        signals = {**found.signals, **begun}
        decision = Decision(
            edit_id=found.edit_id,
            editor=self._editor_of[found.edit_id],
            margin=found.margin,
            signals=signals,
            why=found.why,
            part=part_of_answer or None,
        )
        return Asking(decision if found.margin >= 0 else None, decision, words)

    def _begun(self, edit_id: str, ids: Sequence[int]) -> int:
        """How many tokens of its target, at most all but the last, a prompt ends with, where the editor can go on."""
        continues = self._editors[self._editor_of[edit_id]].capabilities.continues
        target = self._targets[edit_id] if continues else ()
        ends = range(min(len(target) - 1, len(ids)), 0, -1)
        return next((n for n in ends if tuple(ids[-n:]) == tuple(target[:n])), 0)

    def _scope_part(self, edition: Edition) -> ScopePart:
        with self._lock:
            if edition not in self._scope_parts:
                self._scope_parts[edition] = self._scope.compile(edition.namespace, edition.edit_ids)
            return self._scope_parts[edition]

    def decide(self, prompt: PromptView, asking: Asking, edition: Edition) -> Decision | None:
        """At most one edit answers a request: the best margin wins, the newest breaks ties."""
        decisions: list[Decision | None] = []
        for name, part in self.parts(edition).items():
            if not self._editors[name].capabilities.scoped:
                decisions.append(self._editors[name].decide(prompt, part))
            elif asking.decision is not None and asking.decision.editor == name:
                decisions.append(self._editors[name].confirm(prompt, part, asking.decision))
        found = [decision for decision in decisions if decision is not None]
        answers = [decision for decision in found if decision.edit_id is not None]
        if len(answers) < 2:
            return next(iter((*answers, *found)), None)
        age = {edit_id: at for at, edit_id in enumerate(edition.edit_ids)}
        return max(answers, key=lambda decision: (decision.margin, age[decision.edit_id or ""]))
