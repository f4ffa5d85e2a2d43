"""What every editor shares: the site it acts at, what it is shown of a prompt, and the contract that it keeps."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.domain.scope import ScopeRequest


@dataclass(frozen=True, slots=True)
class Site:
    """Where an adaptor sits: a module of one layer's FFN, named by its path inside the model."""

    layer: int
    module: str

    def __str__(self) -> str:
        return self.module


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the scheduler, the service and the laws must know of an editor."""

    max_target_tokens: int
    decides: str
    """`request`: once, at prefill; `position`: at every token."""
    changes_earlier_positions: bool
    """Whether a prompt that an edit answers is prefilled again with the edit acting."""
    needs_whole_prompt: bool
    """Whether that second prefill must come in one piece."""
    rollback: str
    """`exact`: at once; `exact_async`: a gate at once, what is left of it in shared weights with a refit that follows;
    `approximate`: a gate."""
    local: bool = True
    """Whether a prompt that no edit answers is answered bit for bit as by the bare model."""
    independent: bool = True
    """Whether what an edit learns depends on nothing but its request: not on its batch, nor on other edits."""
    order_free: bool = True
    """Whether an edition depends on which edits are live, and not on their order."""
    captured: bool = False
    """Whether its adaptor reads fixed buffers only, and so may be part of a CUDA graph."""
    scoped: bool = True
    """Whether the scope index decides which prompts its edits answer; else the editor does, as it was published."""
    continues: bool = False
    """Whether it goes on with an answer that a prompt has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptView:
    """A prompt as an editor sees it: the base model's input of each site (D_in,) at the prompt's last token.

    `observed` is what editors that look at every token made of each, (T,): editor -> site -> values.
    """

    features: Mapping[Site, Tensor]
    observed: Mapping[str, Mapping[Site, Tensor]] = field(default_factory=dict)
    words: Sequence[str] = ()
    """The words of its question, folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An edit in scope of a prompt. Held by the sequence from prefill on. The widest `margin` wins among editors.

    `part` is what the editor made of the edition, for those that act by more than the edit's own rows. No `edit_id`:
    no edit answers, but the editor acts all the same (Transformer-Patcher as published is never quite silent).
    """

    edit_id: str | None
    editor: str
    margin: float
    signals: Mapping[str, Signal]
    part: Any = None
    why: str = ""
    """In words."""


@dataclass(frozen=True, slots=True)
class RowView:
    """One row of a pass: the decision it holds, what it has generated since its prompt, and which positions it feeds:
    `count` from `first` on."""

    decision: Decision | None
    generated: Sequence[int]
    first: int
    count: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRequest:
    """One edit to learn, tokenised exactly as it will be served.

    `contexts` are token ids of the prompt (first), of its `given` paraphrases, and of the prompt after other sentences;
    `made_contexts` of paraphrases that the server made; `counter_contexts` of the counter-examples; `target_ids` end
    with end-of-text. `context_texts` are the contexts as text, and `ends`, by context, where in it each token ends.
    """

    scope: ScopeRequest
    contexts: tuple[tuple[int, ...], ...]
    given: int
    counter_contexts: tuple[tuple[int, ...], ...]
    target_ids: tuple[int, ...]
    subject: str | None
    """As it is given, or as the prompt names it."""
    seed: int
    context_texts: tuple[str, ...] = ()
    ends: tuple[tuple[int, ...], ...] = ()
    made_contexts: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What an edit owns: JSON scalars and tensors.

    Edits of a batch may share tensors: `learned["shared"]` names them, and the one that `brings` them has them.
    """

    learned: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One micro-step of a fit: which of how many at most, and the loss summed over the batch. Of a verification: how
    many of how many prompts were asked."""

    step: int
    steps: int
    loss: float
    share: float | None = None
    """Of the work, from 0 to 1, as far as can be told from the steps so far; None: that of the steps."""

    @property
    def done(self) -> float:
        """The share of the work that is done."""
        return self.share if self.share is not None else min(1.0, self.step / self.steps) if self.steps else 0.0

    def within(self, before: float, mine: float, whole: float) -> "Progress":
        """As a part of something larger, in any unit: so much of it was done before, and this is so much of it."""
        return replace(self, share=(before + self.done * mine) / whole)


class Editor(Protocol):
    """An editing algorithm under one preset, with the adaptor that applies its edits. Owned by the engine thread.

    State changes only through `load` and `drop` (rows, never visible by themselves) and `compile`, a pure function of
    the live edits that says what an edition sees. Editors derive from `Plain`, which has what most of them share.
    """

    name: str
    preset: str
    capabilities: Capabilities

    @property
    def key(self) -> str:
        """Name and preset in one word, as decisions and the engine know it."""
        ...

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it reads or acts."""
        ...

    @property
    def observed(self) -> tuple[Site, ...]:
        """Where `observe` wants every token of a prompt."""
        ...

    @property
    def held_bytes(self) -> int:
        """Of memory on the model's device, taken by rows, spare ones included."""
        ...

    def prepare(self) -> Generator[Progress, None, None]:
        """What a first fit would have to compute before all else: statistics over generic text. Later, nothing."""
        ...

    def fit(self, requests: Sequence[FitRequest], part: Any) -> Generator[Progress, None, list[Fitted]]:
        """Learn edits, a micro-step a `next`; the base model is never changed.

        `part` is what is live where they shall be, None if nothing is; who is `independent` does not look at it.
        """
        ...

    def still_fits(self, learned: Mapping[str, Any], part: Any) -> bool:
        """Whether what was learned beside another part of an edition may stand beside this one."""
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

    def compile_after(self, part: Any, edit_ids: Sequence[str], added: Sequence[str], removed: Sequence[str]) -> Any:
        """What `compile` makes of `edit_ids`, from a part that differs from it by edits that are gone and newer ones
        that have come: an edit among a hundred thousand shall not cost what they all cost."""
        ...

    def observe(self, site: Site, h_in: Tensor, part: Any) -> Tensor:
        """(T, D_in) base activations of a piece of a prompt -> (T,), kept for `decide`."""
        ...

    def decide(self, prompt: PromptView, part: Any) -> Decision | None:
        """The edit that answers this prompt under this part of an edition, or None to defer: only asked of those that
        are not `scoped`."""
        ...

    def confirm(self, prompt: PromptView, part: Any, decision: Decision) -> Decision | None:
        """A decision of the scope index with the part that it is to act by; None where the editor has a gate of its
        own that the prompt does not pass. Only asked of those that are `scoped`."""
        ...

    def reserve(self, rows: int) -> None:
        """Take buffers for so many rows; only asked of those that may be captured."""
        ...

    def bind(self, rows: Sequence[RowView]) -> None:
        """Set what the next pass's rows receive."""
        ...

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        """(B, T, D_in), (B, T, D_out) -> (B, T, D_out). Rows that defer pass through unchanged, bit for bit."""
        ...


class Plain(ABC):
    """What most editors share: a name, no tokens to observe, edits that stand beside any others."""

    name: str
    preset: str = "serving"

    @property
    def key(self) -> str:
        return adaptor_key(self.name, self.preset)

    @property
    def observed(self) -> tuple[Site, ...]:
        return ()

    def observe(self, site: Site, h_in: Tensor, part: Any) -> Tensor:
        raise AssertionError(f"{self.key} observes no site, and is asked what it makes of {site}")

    def still_fits(self, learned: Mapping[str, Any], part: Any) -> bool:
        return True

    def prepare(self) -> Generator[Progress, None, None]:
        yield from ()

    def reserve(self, rows: int) -> None:
        raise AssertionError(f"{self.key} has no fixed buffers")

    @abstractmethod
    def compile(self, edit_ids: Sequence[str]) -> Any: ...

    def compile_after(self, part: Any, edit_ids: Sequence[str], added: Sequence[str], removed: Sequence[str]) -> Any:
        return self.compile(edit_ids)

    def decide(self, prompt: PromptView, part: Any) -> Decision | None:
        raise AssertionError(f"the scope index decides for {self.key}")

    def confirm(self, prompt: PromptView, part: Any, decision: Decision) -> Decision | None:
        return decision


def adaptor_key(editor: str, preset: str) -> str:
    """`grace`, `grace/paper`: the default preset goes without saying."""
    return editor if preset == "serving" else f"{editor}/{preset}"


def target_of(edit_id: str, fitted: Fitted) -> tuple[int, ...]:
    """The target's tokens that a fit was learned for. Raises IncompatibleEdit for what a log should not hold."""
    target = fitted.learned.get("target_ids")
    if not isinstance(target, list) or not target or not all(type(each) is int for each in target):
        raise IncompatibleEdit(f"What the edit {edit_id} learned cannot be read: target_ids must be a list of numbers.")
    return tuple(target)
