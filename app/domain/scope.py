"""The request that a scope is learned from: the service builds it, the scope index reads it."""

from dataclasses import dataclass

Turns = tuple[str, ...]
"""A conversation: alternating turns of user and model, ending with the question; or a single bare prompt."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Questions that a namespace receives anyway. The operator has declared that no edit answers `others`; some of
    those merely `asked` may ask for an edit."""

    others: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeRequest:
    """Texts that define a scope. `keys` holds the edit's question, first, and the given paraphrases; `made` holds
    generated paraphrases. `counter` holds questions that the edit must leave alone; `misses` holds generated near
    misses."""

    keys: tuple[Turns, ...]
    made: tuple[Turns, ...] = ()
    counter: tuple[Turns, ...] = ()
    misses: tuple[Turns, ...] = ()
    subject: str | None = None
    """Name that a question must contain, itself or as an alias; None: no name is required."""
    aliases: tuple[str, ...] = ()
    namespace: str = "default"
    widen: float = 1.0
    """The factor on the odds at which a question counts as the same, on top of what is calibrated."""
