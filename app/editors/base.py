"""What every editor shares: the site it acts at, what it is shown of a prompt, and the contract that it keeps."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from app.domain.generation import Signal


@dataclass(frozen=True, slots=True)
class Site:
    """Where an adaptor sits: the FFN block of one layer; its module's path inside the model."""

    layer: int
    module: str

    def __str__(self) -> str:
        return self.module


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the scheduler and the laws must know of an editor."""

    max_target_tokens: int
    decides: str
    """`request`: once, at prefill; `position`: at every token."""
    changes_earlier_positions: bool
    needs_whole_prompt: bool
    rollback: str
    """`exact`, `exact_async` or `approximate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptView:
    """A prompt as a scope decision sees it: its text, and base activations at its last token, (D_in,) for each site."""

    text: str
    features: Mapping[Site, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An edit in scope of a prompt. Held by the sequence from prefill on. The widest `margin` wins among editors."""

    edit_id: str
    editor: str
    margin: float
    signals: Mapping[str, Signal]


@dataclass(frozen=True, slots=True)
class RowView:
    """One row of a decode step: the decision it holds, and the tokens it has generated since its prompt."""

    decision: Decision | None
    generated: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRequest:
    """One edit to learn, tokenised exactly as it will be served.

    `contexts` are token ids of the prompt (first), its paraphrases and made variants; `texts` are the same as text,
    without the made variants; `counter_contexts` are the counter-examples' ids; `target_ids` end with end-of-text.
    """

    texts: tuple[str, ...]
    contexts: tuple[tuple[int, ...], ...]
    counter_contexts: tuple[tuple[int, ...], ...]
    target_ids: tuple[int, ...]
    subject: str | None
    aliases: tuple[str, ...]
    counter_examples: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What an edit owns: JSON scalars and tensors. Independent of every other edit."""

    learned: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One micro-step of a fit: which of how many at most, and the loss summed over the batch."""

    step: int
    steps: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BankPrompt:
    """A generic prompt that ships, for calibration: what asks the same thing has the same subject and relation."""

    relation: str
    subject: str
    text: str
    words: frozenset[str] = field(default_factory=frozenset)
    """The words of its phrasing, its subject left out."""


class Editor(Protocol):
    """An editing algorithm together with the adaptor that applies its edits. Owned by the engine thread.

    State changes only through `load` and `drop` (rows, never visible by themselves) and `compile`, a pure function of
    the live edits that says which rows an edition sees.
    """

    name: str
    presets: tuple[str, ...]
    capabilities: Capabilities

    @property
    def sites(self) -> tuple[Site, ...]: ...

    @property
    def held_bytes(self) -> int:
        """Of memory on the model's device, taken by rows, spare ones included."""
        ...

    def fit(self, requests: Sequence[FitRequest]) -> Generator[Progress, None, list[Fitted]]:
        """Learn edits, a micro-step a `next`; the base model is never changed. Rows of the batch are independent."""
        ...

    def load(self, edit_id: str, fitted: Fitted) -> None:
        """Take an edit's rows into memory. Raises IncompatibleEdit where the tensors do not fit the site."""
        ...

    def drop(self, edit_id: str) -> None:
        """Give an edit's rows back: only for one that no edition in use sees (a rejected trial)."""
        ...

    def compile(self, edit_ids: Sequence[str]) -> Any:
        """This editor's part of an edition: a pure function of the live edits, oldest first, whatever their history."""
        ...

    def decide(self, prompt: PromptView, part: Any) -> Decision | None:
        """The edit that answers this prompt under this part of an edition, or None to defer."""
        ...

    def bind(self, rows: Sequence[RowView]) -> None:
        """Set what the next decode step's rows receive."""
        ...

    def apply(self, h_in: Tensor, h_out: Tensor) -> Tensor:
        """(B, T, D_in), (B, T, D_out) -> (B, T, D_out). Rows that defer pass through unchanged, bit for bit."""
        ...
