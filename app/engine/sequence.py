"""A request under way: what it was asked, the edition it is pinned to, how far it has come."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from torch import Tensor

from app.domain.errors import ErrataError
from app.domain.generation import FinishReason, Generation, GenerationParameters, Token
from app.editors.base import Capabilities, Decision, RowView, Site
from app.engine.editions import Asking, Edition
from app.engine.grammar import Grammar

Emit = Callable[[Token | Generation | ErrataError], None]
"""Called on the engine's thread: any number of Tokens, then exactly one Generation or error."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What is made of a request on another thread than the engine's."""

    ids: tuple[int, ...]
    fed: tuple[int, ...]
    """The same without white space at the end that the answer of the edit in whose scope it is brings."""
    asking: Asking
    grammar: Grammar | None = None


class Phase(Enum):
    WAITING = auto()
    PREFILL = auto()
    DECODE = auto()
    DONE = auto()


@dataclass(eq=False, slots=True)
class Sequence:
    """`computed` counts the leading tokens whose keys and values stand in the slot.

    A hit is taken back after its unedited prefill, so that decisions read base activations: by one token, which is fed
    again as the first decode step with the edit acting; or, where its editor changes earlier positions, to the prompt's
    beginning. Its second prefill comes in one piece where `whole`.
    """

    text: str
    prompt: tuple[int, ...]
    parameters: GenerationParameters
    edition: Edition
    revision: int
    emit: Emit
    sampler: Any
    answer: Any
    seed: int | None = None
    generated: list[int] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    phase: Phase = Phase.WAITING
    slot: int = -1
    computed: int = 0
    decision: Decision | None = None
    nearest: Decision | None = None
    decided: bool = False
    whole: bool = False
    observed: dict[str, dict[Site, list[Tensor]]] = field(default_factory=dict)
    finish_reason: FinishReason | None = None
    cancelled: bool = False
    asking: Asking = field(default_factory=Asking)
    uncut: tuple[int, ...] = ()
    """Where `prompt` lacks the white space at its end, because an edit's answer brings it: all of it."""
    due: float | None = None
    """Of `time.monotonic`: when it is ended with DeadlineExceeded."""

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.generated)

    @property
    def most_tokens(self) -> int:
        """The most tokens whose keys and values it may come to hold."""
        return self.prompt_tokens + self.parameters.max_new_tokens

    @property
    def prompt_tokens(self) -> int:
        return max(len(self.prompt), len(self.uncut))

    def piece(self, limit: int) -> tuple[int, ...]:
        """The next tokens to feed, at most `limit`."""
        if self.whole:
            limit = len(self.prompt)
        if self.computed >= len(self.prompt):
            return tuple(self.generated[self.computed - len(self.prompt) : self.computed - len(self.prompt) + limit])
        return self.prompt[self.computed : self.computed + limit]

    def decide(self, decision: Decision | None, capabilities: Capabilities | None) -> bool:
        """Take the decision, once. Returns whether the prefill's own logits already give the first token."""
        assert self.phase is Phase.PREFILL
        assert self.computed == len(self.prompt)
        assert not self.decided
        self.decision, self.decided = decision, True
        self.observed.clear()
        if decision is None:
            self.phase = Phase.DECODE
            return True
        assert capabilities is not None
        if capabilities.changes_earlier_positions:
            self.computed, self.whole = 0, capabilities.needs_whole_prompt
        else:
            self.computed -= 1
            self.phase = Phase.DECODE
        return False

    def begin_anew(self, answer: Any) -> None:
        """No edit answers after all: the prompt is prefilled as it was sent, for an answer that begins anew."""
        assert self.phase is Phase.PREFILL
        assert not self.generated
        self.prompt, self.uncut, self.answer = self.uncut, (), answer
        self.asking = replace(self.asking, decision=None, cut=0, drops_blank=False)
        self.computed = 0
        self.observed.clear()

    def row(self, count: int) -> RowView:
        """What editors are shown of it in a pass that feeds `count` tokens."""
        return RowView(self.decision, self.generated, self.computed, count, len(self.prompt))

    def check(self) -> None:
        assert 0 <= self.computed <= self.length
        assert self.phase is not Phase.DECODE or self.computed == self.length - 1, "one token a decode step"
