"""A request under way: what it was asked, the edition it is pinned to, how far it has come."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from app.domain.errors import ErrataError
from app.domain.generation import FinishReason, Generation, GenerationParameters, Token
from app.editors.base import Decision
from app.engine.editions import Edition

Emit = Callable[[Token | Generation | ErrataError], None]
"""Called on the engine's thread: any number of Tokens, then exactly one Generation or error."""


class Phase(Enum):
    WAITING = auto()
    PREFILL = auto()
    DECODE = auto()
    DONE = auto()


@dataclass(eq=False, slots=True)
class Sequence:
    """`computed` counts the leading tokens whose keys and values stand in the slot.

    A hit is taken one token back after its unedited prefill: its last prompt token is fed again as the first decode
    step, with the edit acting. So decisions read base activations, and prefill knows nothing of edits.
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
    finish_reason: FinishReason | None = None
    cancelled: bool = False

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.generated)

    def piece(self, limit: int) -> tuple[int, ...]:
        """The next tokens to feed, at most `limit`."""
        if self.computed >= len(self.prompt):
            return tuple(self.generated[self.computed - len(self.prompt) : self.computed - len(self.prompt) + limit])
        return self.prompt[self.computed : self.computed + limit]

    def finished_prefill(self, decision: Decision | None) -> bool:
        """Take the decision, once. Returns whether the prefill's own logits already give the first token."""
        assert self.phase is Phase.PREFILL
        assert self.computed == len(self.prompt)
        self.phase = Phase.DECODE
        self.decision = decision
        if decision is None:
            return True
        self.computed -= 1
        return False

    def check(self) -> None:
        assert 0 <= self.computed <= self.length
        assert self.phase is not Phase.DECODE or self.computed == self.length - 1, "one token a decode step"
