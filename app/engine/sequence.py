"""A request in progress: its parameters, the edition it is pinned to, and how far it has come."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from torch import Tensor

from app.domain.errors import ErrataError
from app.domain.generation import Generation, GenerationParameters, Token
from app.editors.base import Capabilities, Decision, RowView, Site
from app.engine.editions import Edition, ScopeDecision
from app.engine.grammar import Grammar

Emit = Callable[[Token | Generation | ErrataError], None]
"""A callback on the engine's thread, for any number of Tokens, then exactly one Generation or error."""


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """The parts of a request that are prepared off the engine's thread."""

    ids: tuple[int, ...]
    fed: tuple[int, ...]
    """Token ids to feed: `ids` without the trailing white space that the answer of the edit in scope supplies."""
    scope_decision: ScopeDecision
    grammar: Grammar | None = None


class Phase(Enum):
    WAITING = auto()
    PREFILL = auto()
    LOOKAHEAD = auto()
    DECODE = auto()
    DONE = auto()


@dataclass(eq=False, slots=True)
class Sequence:
    """A running request. `computed` counts the leading tokens whose keys and values are in the slot.

    Decisions read base activations, so the prompt is prefilled unedited and a hit is then taken back. Usually that is
    one token, fed again with the edit acting. If its editor changes earlier positions, it is the whole prompt; with
    `whole` the second prefill runs in one piece.

    The answer of an edit is known before it is given. If its editor supports lookahead, the target is fed together
    with that last token, and as much of it is taken as the model says.
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
    grammar: Grammar | None = None
    """The state of the answer within its schema."""
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
    cancelled: bool = False
    scope_decision: ScopeDecision = field(default_factory=ScopeDecision)
    expected: tuple[int, ...] = ()
    """The tokens that the answer is expected to be, or empty."""
    uncut: tuple[int, ...] = ()
    """The complete prompt, if `prompt` lacks the trailing white space that the edit's answer supplies; else empty."""
    due: float | None = None
    """Deadline on the clock of `time.monotonic`; after it the sequence ends with DeadlineExceeded."""

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.generated)

    @property
    def most_tokens(self) -> int:
        """Maximum number of tokens whose keys and values it may come to hold."""
        return self.prompt_tokens + self.parameters.max_new_tokens

    @property
    def prompt_tokens(self) -> int:
        return max(len(self.prompt), len(self.uncut))

    def piece(self, limit: int) -> tuple[int, ...]:
        """The next tokens to feed, at most `limit` unless `whole`."""
        if self.phase is Phase.LOOKAHEAD:
            given = len(self.generated)
            return (self._last, *self.expected[given : given + min(limit, self._most_ahead) - 1])
        if self.whole:
            limit = len(self.prompt)
        if self.computed >= len(self.prompt):
            return tuple(self.generated[self.computed - len(self.prompt) : self.computed - len(self.prompt) + limit])
        return self.prompt[self.computed : self.computed + limit]

    @property
    def _last(self) -> int:
        return (self.generated or self.prompt)[-1]

    @property
    def _most_ahead(self) -> int:
        """Number of tokens that one more pass may give, with lookahead: as many as are expected and allowed."""
        return min(len(self.expected), self.parameters.max_new_tokens) - len(self.generated)

    def take(self, fed: tuple[int, ...], given: int) -> bool:
        """Notes that a pass with lookahead has given `given` tokens. -> whether its next position holds."""
        return self.phase is Phase.LOOKAHEAD and given < len(fed) and self.generated[-1] == fed[given]

    def end_pass(self) -> None:
        """After a pass with lookahead: further tokens are fed ahead as long as the answer is the one expected."""
        self.computed = self.length - 1
        as_expected = tuple(self.generated) == self.expected[: len(self.generated)]
        self.phase = Phase.LOOKAHEAD if as_expected and self._most_ahead > 1 else Phase.DECODE

    def decide(
        self, decision: Decision | None, capabilities: Capabilities | None, target: tuple[int, ...] = ()
    ) -> bool:
        """Records the decision, once, and the edit's target. -> whether the prefill's logits already give the first
        token."""
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
            self.expected = target[decision.begun_tokens :] if capabilities.lookahead else ()
            self.phase = Phase.LOOKAHEAD if self._most_ahead > 1 else Phase.DECODE
        return False

    def restart_unedited(self, answer: Any) -> None:
        """No edit answers after all: prefills the prompt again exactly as it was sent, for a new answer."""
        assert self.phase is Phase.PREFILL
        assert not self.generated
        self.prompt, self.uncut, self.answer = self.uncut, (), answer
        self.scope_decision = replace(self.scope_decision, decision=None, cut=0, drops_blank=False)
        self.computed = 0
        self.observed.clear()

    def row(self, count: int) -> RowView:
        """The sequence as editors see it in a pass that feeds `count` tokens."""
        return RowView(self.decision, self.generated, self.computed, count, len(self.prompt))

    def check(self) -> None:
        assert self.phase is Phase.DONE or 0 <= self.computed <= self.length
        assert self.phase not in (Phase.LOOKAHEAD, Phase.DECODE) or self.computed == self.length - 1, (
            "one token is not fed"
        )
