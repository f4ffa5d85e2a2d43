"""What a scope is learned from, as the service asks for it and the scope index reads it."""

from dataclasses import dataclass

Turns = tuple[str, ...]
"""A conversation, the user's turns and the model's by turns, the question last; or a bare prompt alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeRequest:
    """`keys` are the edit's question, first, and the paraphrases given; `made` those that the server made; `counter`
    are questions that it must leave alone, `misses` near ones that the server made."""

    keys: tuple[Turns, ...]
    made: tuple[Turns, ...] = ()
    counter: tuple[Turns, ...] = ()
    misses: tuple[Turns, ...] = ()
    subject: str | None = None
    """Whom it is about, where that is given: a question must name it, or an alias."""
    aliases: tuple[str, ...] = ()
    namespace: str = "default"
