"""The request that a scope is learned from: the service makes it, the scope index reads it."""

from dataclasses import dataclass

Turns = tuple[str, ...]
"""A conversation, the user's turns and the model's by turns, the question last; or a bare prompt alone."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is asked in a namespace anyway. `others` are questions that no edit is to answer, by an operator's word; of
    those that were merely `asked`, some may ask for an edit."""

    others: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeRequest:
    """`keys` are the edit's question, first, and the paraphrases given; `made` those that the server made; `counter`
    are questions that it must leave alone, `misses` near ones that the server made."""

    keys: tuple[Turns, ...]
    made: tuple[Turns, ...] = ()
    counter: tuple[Turns, ...] = ()
    misses: tuple[Turns, ...] = ()
    subject: str | None = None
    """The name that a question must say, or an alias of it, where the request gives one."""
    aliases: tuple[str, ...] = ()
    namespace: str = "default"
