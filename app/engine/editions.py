"""Editions: which edits a request sees, immutable, and what the adaptors made of that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from app.domain.edit import edit_id_of
from app.editors.base import Decision, Editor, PromptView


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

    def trying(self, edit_ids: Sequence[str], superseded: frozenset[str]) -> "Edition":
        kept = (i for i in self.edit_ids if edit_id_of(i) not in superseded)
        return Edition(self.namespace, self.revision, (*kept, *edit_ids), trial=True, base=self)


class Editions:
    """Compiles editions when a request first needs them, and forgets them with their last request."""

    def __init__(self, editors: Mapping[str, Editor]) -> None:
        self._editors = editors
        self._editor_of: dict[str, str] = {}
        self._parts: WeakKeyDictionary[Edition, dict[str, Any]] = WeakKeyDictionary()

    def own(self, edit_id: str, editor: str) -> None:
        self._editor_of[edit_id] = editor

    def disown(self, edit_id: str) -> str:
        return self._editor_of.pop(edit_id)

    def owned(self) -> list[str]:
        return list(self._editor_of)

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._editor_of

    def parts(self, edition: Edition) -> dict[str, Any]:
        """Editor name -> its part of this edition."""
        if edition not in self._parts:
            ids: dict[str, list[str]] = {name: [] for name in self._editors}
            for edit_id in edition.edit_ids:
                ids[self._editor_of[edit_id]].append(edit_id)
            self._parts[edition] = {name: self._editors[name].compile(mine) for name, mine in ids.items() if mine}
        return self._parts[edition]

    def nearest(self, prompt: PromptView, edition: Edition) -> Decision | None:
        """Where no edit answers, the one nearest to it."""
        found = [self._editors[name].nearest(prompt, part) for name, part in self.parts(edition).items()]
        return max((each for each in found if each is not None), key=lambda each: each.margin, default=None)

    def decide(self, prompt: PromptView, edition: Edition) -> Decision | None:
        """At most one edit answers a request: the best margin wins, the newest breaks ties."""
        decisions = [self._editors[name].decide(prompt, part) for name, part in self.parts(edition).items()]
        found = [decision for decision in decisions if decision is not None]
        answers = [decision for decision in found if decision.edit_id is not None]
        if len(answers) < 2:
            return next(iter((*answers, *found)), None)
        age = {edit_id: at for at, edit_id in enumerate(edition.edit_ids)}
        return max(answers, key=lambda decision: (decision.margin, age[decision.edit_id or ""]))
