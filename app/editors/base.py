"""The contract that every editor keeps, and the values that pass between editors and the engine."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.domain.scope import ScopeRequest


@dataclass(frozen=True, slots=True)
class Site:
    """The place where an adaptor acts: a module of one layer's FFN, named by its path inside the model."""

    layer: int
    module: str

    def __str__(self) -> str:
        return self.module


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The properties of an editor that the scheduler, the service and the laws depend on."""

    max_target_tokens: int
    """The longest target that the editor can learn, in tokens, without end-of-text."""
    changes_earlier_positions: bool
    """True if a prompt that an edit answers is prefilled again with the edit acting."""
    rollback: str
    """The promise of a rollback. `exact`: the edit is gone at once. `exact_async`: a gate closes at once, and a refit
    that follows removes the rest from shared weights. `approximate`: only a gate closes."""
    needs_whole_prompt: bool = False
    """True if the second prefill must run in one piece."""
    local: bool = True
    """True if a prompt that no edit answers is answered bit for bit as by the bare model."""
    independent: bool = True
    """True if an edit learns from its request alone, and neither from its batch nor from other edits."""
    order_free: bool = True
    """True if an edition depends only on which edits are live, and not on their order."""
    scoped: bool = True
    """True if the scope index decides which prompts the edits answer. Otherwise the editor decides, as published."""
    continues: bool = False
    """True if an edit can continue an answer that the prompt has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptView:
    """A prompt as an editor sees it. All tensors come from the base model, before any edit acts."""

    features: Mapping[Site, Tensor]
    """The input of each site at the prompt's last token, (D_in,) fp32."""
    observed: Mapping[str, Mapping[Site, Tensor]] = field(default_factory=dict)
    """The results of `Observer.observe` over all T tokens of the prompt, (T,): adaptor key -> site -> values."""
    words: Sequence[str] = ()
    """The words of the prompt's question, case-folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An edit that answers a prompt. A sequence holds its decision from prefill on."""

    edit_id: str | None
    """The edit that answers. None means that no edit answers, but the editor still acts: Transformer-Patcher as
    published is never quite silent."""
    editor: str
    """The adaptor key of the editor that acts."""
    margin: float
    """How far inside its scope the edit lies. The largest margin wins among editors."""
    signals: Mapping[str, Signal]
    """The measured values behind the decision, with their thresholds."""
    begun_tokens: int = 0
    """The number of the target's first tokens that the prompt ends with. The edit continues after them."""
    state: Any = None
    """The editor's own data for this row, where it acts by more than the edit's rows."""
    why: str = ""
    """The reason in words, for people."""


@dataclass(frozen=True, slots=True)
class RowView:
    """One row of a forward pass, which feeds `count` positions from `first` on."""

    decision: Decision | None
    generated: Sequence[int]
    """The token ids that were generated since the prompt."""
    first: int
    count: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRequest:
    """One edit to learn. Every text is tokenised exactly as it will be served."""

    scope: ScopeRequest
    contexts: tuple[tuple[int, ...], ...]
    """Token ids of the prompt, then of its `given` paraphrases, then of the prompt after other sentences."""
    given: int
    """The number of paraphrases that came with the request."""
    counter_contexts: tuple[tuple[int, ...], ...]
    """Token ids of the counter-examples."""
    target_ids: tuple[int, ...]
    """Token ids of the target, ending with end-of-text."""
    subject: str | None
    """The subject as the request gives it, or as the prompt names it."""
    seed: int
    context_texts: tuple[str, ...] = ()
    """The contexts as text."""
    ends: tuple[tuple[int, ...], ...] = ()
    """For each context, the character offset in its text at which each token ends."""
    made_contexts: tuple[tuple[int, ...], ...] = ()
    """Token ids of paraphrases that the server made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The data that an edit owns after its fit: JSON scalars and tensors.

    Edits of one batch may share tensors: `learned["shared"]` names them, and the edit whose `learned["brings"]` is true
    carries them.
    """

    learned: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitProgress:
    """One micro-step of a fit: its number, the greatest possible number of steps, and the loss summed over the batch.

    In a verification the numbers count prompts: those that have been asked, of all that will be.
    """

    step: int
    steps: int
    loss: float
    share: float | None = None
    """The share of the work that is done, from 0 to 1, as estimated from the steps so far. None means that the steps
    themselves tell it."""
    timed: bool = True
    """True if the time that is left can be estimated from the share."""

    @property
    def done(self) -> float:
        """The share of the work that is done, from 0 to 1."""
        return self.share if self.share is not None else min(1.0, self.step / self.steps) if self.steps else 0.0

    def within(self, before: float, own: float, whole: float) -> "FitProgress":
        """Return this progress as a part of a larger work of size `whole`, of which `before` was done earlier and `own`
        is the size of this part."""
        return replace(self, share=(before + self.done * own) / whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Sees every token of a prompt before the decision: (T, D_in) base activations at a site -> (T,) values.

    `observe(site, h_in, part)` is called for one piece of the prompt at a time; the engine joins the values.
    """

    sites: tuple[Site, ...]
    observe: Callable[[Site, Tensor, Any], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Operations that a single editor offers beyond the contract. None where an editor does not offer one."""

    observer: Observer | None = None
    still_fits: Callable[[Mapping[str, Any], Any], bool] | None = None
    """(learned, part) -> whether an edit that was fitted beside another part of an edition may stand beside this one.
    Where it is None, every edit may."""
    reserve_rows: Callable[[int], None] | None = None
    """Allocates the buffers that `apply` reads for a number of rows, and keeps them in place, so that the adaptor can
    be part of a CUDA graph."""
    read_adapter: Callable[[FitRequest, Path], Fitted] | None = None
    """Reads a LoRA in PEFT's format from a folder as the requested edit. Raises InvalidRequest if it does not fit."""


class Editor(Protocol):
    """An editing algorithm under one preset, with the adaptor that applies its edits. The engine thread owns it.

    Only `load` and `drop` change its state. They move rows, which are never visible by themselves: `compile`, a pure
    function of the live edits, says what an edition sees. Editors derive from `EditorBase`.
    """

    name: str
    preset: str
    capabilities: Capabilities
    extras: Extras

    @property
    def key(self) -> str:
        """The adaptor key: name and preset in one word, as decisions and the engine use it."""
        ...

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that the editor reads or changes."""
        ...

    @property
    def held_bytes(self) -> int:
        """Memory on the model's device that the editor's rows take, in bytes, spare rows included."""
        ...

    def prepare(self) -> Generator[FitProgress, None, None]:
        """Compute what the first fit needs, such as statistics over generic text. Later calls do nothing."""
        ...

    def fit(self, requests: Sequence[FitRequest], part: Any) -> Generator[FitProgress, None, list[Fitted]]:
        """Learn edits, one micro-step a `next`. The base model is never changed.

        `part` is the editor's part of the edition that the edits will join, or None if it has no live edit there.
        Independent editors do not read it.
        """
        ...

    def load(self, edit_id: str, fitted: Fitted) -> None:
        """Take an edit's rows into memory. Raises IncompatibleEdit if the tensors do not fit the site."""
        ...

    def drop(self, edit_id: str) -> None:
        """Release an edit's rows. No edition in use may see the edit, as after a rejected trial."""
        ...

    def compile(self, edit_ids: Sequence[str]) -> Any:
        """Return this editor's part of an edition, a pure function of the live edits, oldest first."""
        ...

    def decide(self, prompt: PromptView, part: Any) -> Decision | None:
        """Return the edit that answers this prompt, or None to defer. Only called if the editor is not `scoped`."""
        ...

    def confirm(self, prompt: PromptView, part: Any, decision: Decision) -> Decision | None:
        """Complete a decision of the scope index with the data to act by. Only called if the editor is `scoped`.

        Returns None if the editor has a gate of its own that the prompt does not pass.
        """
        ...

    def bind(self, rows: Sequence[RowView]) -> None:
        """Set which rows of the next pass receive which edits."""
        ...

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        """(B, T, D_in), (B, T, D_out) -> (B, T, D_out). Rows that defer pass through unchanged, bit for bit."""
        ...


class EditorBase(ABC):
    """The defaults of the contract: the preset `serving`, nothing to prepare, no gate and no extras."""

    name: str
    preset: str = "serving"
    extras: Extras = Extras()

    @property
    def key(self) -> str:
        return editor_key(self.name, self.preset)

    def prepare(self) -> Generator[FitProgress, None, None]:
        yield from ()

    @abstractmethod
    def compile(self, edit_ids: Sequence[str]) -> Any: ...

    def decide(self, prompt: PromptView, part: Any) -> Decision | None:
        raise AssertionError(f"the scope index decides for {self.key}")

    def confirm(self, prompt: PromptView, part: Any, decision: Decision) -> Decision | None:
        return decision


def editor_key(editor: str, preset: str) -> str:
    """Return `grace` for the default preset `serving`, and `grace/paper` for any other."""
    return editor if preset == "serving" else f"{editor}/{preset}"


def target_of(edit_id: str, fitted: Fitted) -> tuple[int, ...]:
    """Return the token ids of the target that was learned. Raises IncompatibleEdit if they are not a list of ints."""
    target = fitted.learned.get("target_ids")
    if not isinstance(target, list) or not target or not all(type(each) is int for each in target):
        raise IncompatibleEdit(f"The edit {edit_id} cannot be loaded: its target_ids must be a list of token ids.")
    return tuple(target)
