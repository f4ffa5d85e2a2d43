"""The seam between the engine and a vLLM: one life of it, whether this server started it or it runs elsewhere."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Item = list[Any]
"""[request, "tokens", [[token id, log probability, rank, [[id, log probability] of the likeliest]], ...]],
[request, "states", type, bytes], [request, "ended", reason], [request, "late"], [request, "refused", why] or
[request, "failed", message]. A token has the log probability None, and the rank 0, where none was asked for."""
Take = Callable[[list[Item]], None]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of what the workers hold: the name of their method without `errata_`, its arguments, and after them
    the bytes of an edit's value, if there are any."""

    do: str
    arguments: list[Any]
    value: bytes = b""


class VllmSession(ABC):
    """One life of a vLLM: from its start, or from the connection to it, until it is lost.

    The workers hold no edit's rows at first. Calls that arrive after the loss do nothing. `add`, `abort` and `change`
    are called by the engine's thread alone, and do not wait for vLLM.
    """

    @abstractmethod
    def begin(self) -> None:
        """Wait until it can serve. Raises UnsupportedModel, with vLLM's own reason."""

    @abstractmethod
    def listen(self, take: Take) -> str:
        """Hand on what it tells until it is lost or ended; returns why. An empty list is a sign of life."""

    @abstractmethod
    def add(
        self, request: int, prompt: list[int], parameters: dict[str, Any], salt: str | None, timeout_s: float | None
    ) -> None:
        """Have a request answered, whose number was not used before."""

    @abstractmethod
    def abort(self, request: int) -> None:
        """End a request, unless it has ended."""

    @abstractmethod
    def change(self, change: Change) -> None:
        """Have every worker change what it holds, before it runs any request that is added later."""

    @abstractmethod
    def pulse(self) -> None:
        """Ask the workers for a sign of life. They answer between two steps."""

    @abstractmethod
    def end(self, grace_s: float) -> None:
        """End it, from any thread and at any time; a vLLM of this server's own within `grace_s` seconds."""
