"""The request that a scope is learned from: the service builds it, the scope index reads it."""

from dataclasses import dataclass

Turns = tuple[str, ...]
"""A conversation: alternating turns of user and model, ending with the question; or a single bare prompt."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Questions that a namespace receives in ordinary use. The operator has declared `others` to be in no scope; some
    of `recent` may be in one."""

    others: tuple[str, ...] = ()
    recent: tuple[str, ...] = ()


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
    """Factor by which the calibrated bound is lowered, in odds: above 1 the scope is wider, below 1 narrower."""
