"""The contract that every editor keeps, and the values that pass between editors and the engine."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.domain.scope import ScopeRequest

LearnedModel = TypeVar("LearnedModel", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Site:
    """The place where edits act: a module of one layer's FFN, named by its path inside the model."""

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
    lookahead: bool = False
    """True if an edit can act on several tokens of its target in one pass, as it would act on one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptView:
    """A prompt as an editor sees it. All tensors come from the base model, before any edit acts."""

    features: Mapping[Site, Tensor]
    """The input of each site at the prompt's last token, (D_in,) fp32."""
    observed: Mapping[str, Mapping[Site, Tensor]] = field(default_factory=dict)
    """The results of `Observer.observe` over all T tokens of the prompt, (T,): editor key -> site -> values."""
    words: Sequence[str] = ()
    """The words of the prompt's question, case-folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An edit that answers a prompt. A sequence holds its decision from prefill on."""

    edit_id: str | None
    """The edit that answers. None means that no edit answers, but the editor still acts: Transformer-Patcher as
    published is never quite silent."""
    editor: str
    """The key of the editor that acts."""
    margin: float
    """The distance by which the question lies inside the edit's scope. The largest margin wins among editors."""
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
    """One row of a forward pass, which feeds `count` positions from `first` on.

    In a row whose decision is held, all positions but the first are lookahead: tokens of the edit's target that come
    after those already given. Only editors with the capability `lookahead` see such rows.
    """

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
    """The character offsets in each context's text at which its tokens end."""
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
    themselves show it."""
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
class FixedAdapters:
    """Edits as plain LoRAs, each of which acts at every position of a request."""

    modules: tuple[str, ...]
    """The paths of the modules that the LoRAs are at."""
    rank: int
    """The rank of the LoRAs that the editor fits."""
    of: Callable[[Fitted], Mapping[str, Tensor]]
    """Returns a loaded edit's effect on its own prompt as one LoRA: tensors by their names in PEFT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Operations that a single editor offers beyond the contract. None where an editor does not offer one."""

    observer: Observer | None = None
    still_fits: Callable[[Mapping[str, Any], Any], bool] | None = None
    """(learned, part) -> whether an edit that was fitted beside another part of an edition may be live beside this one.
    Where it is None, every edit may."""
    reserve_rows: Callable[[int], None] | None = None
    """Allocates the buffers that `apply` reads for a number of rows, and keeps them in place, so that they can be
    part of a CUDA graph."""
    read_adapter: Callable[[FitRequest, Path], Fitted] | None = None
    """Reads a LoRA in PEFT's format from a folder as the requested edit. Raises InvalidRequest if it does not fit."""
    fixed_adapters: FixedAdapters | None = None
    """Offers edits as plain LoRAs, for engines that read no states of a prompt."""


class Editor(Protocol):
    """An editing algorithm under one preset, and the action of its edits. The engine thread owns it.

    Only `load` and `drop` change its state. They move rows, which are never visible by themselves: `compile`, a pure
    function of the live edits, says what an edition sees.
    """

    name: str
    preset: str = "serving"
    capabilities: Capabilities
    extras: Extras = Extras()

    @property
    def key(self) -> str:
        """The editor key: name and preset in one word, as decisions and the engine use it."""
        return editor_key(self.name, self.preset)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that the editor reads or changes."""

    @property
    def held_bytes(self) -> int:
        """Memory on the model's device that the editor's rows take, in bytes, spare rows included."""

    def prepare(self) -> Generator[FitProgress, None, None]:
        """Compute what the first fit needs, such as statistics over generic text. Later calls do nothing."""
        yield from ()

    def fit(self, requests: Sequence[FitRequest], part: Any) -> Generator[FitProgress, None, list[Fitted]]:
        """Learn edits, one micro-step a `next`. The base model is never changed.

        `part` is the editor's part of the edition that the edits will join, or None if it has no live edit there.
        Independent editors do not read it.
        """

    def load(self, edit_id: str, fitted: Fitted) -> None:
        """Take an edit's rows into memory. Raises IncompatibleEdit if the tensors do not fit the site."""

    def drop(self, edit_id: str) -> None:
        """Release an edit's rows. No edition in use may see the edit, as after a rejected trial."""

    def compile(self, edit_ids: Sequence[str]) -> Any:
        """Return this editor's part of an edition, a pure function of the live edits, oldest first."""

    def decide(self, prompt: PromptView, part: Any) -> Decision | None:
        """Return the edit that answers this prompt, or None to defer. Only called if the editor is not `scoped`."""
        raise AssertionError(f"the scope index decides for {self.key}")

    def confirm(self, prompt: PromptView, part: Any, decision: Decision) -> Decision | None:
        """Complete a decision of the scope index with the data to act by. Only called if the editor is `scoped`.

        Returns None if the editor has a gate of its own that the prompt does not pass.
        """
        return decision

    def bind(self, rows: Sequence[RowView]) -> None:
        """Set which rows of the next pass receive which edits."""

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        """(B, T, D_in), (B, T, D_out) -> (B, T, D_out). Rows that defer pass through unchanged, bit for bit."""


def editor_key(editor: str, preset: str) -> str:
    """Return `grace` for the default preset `serving`, and `grace/paper` for any other."""
    return editor if preset == "serving" else f"{editor}/{preset}"


def learned_as(kind: type[LearnedModel], edit_id: str, fitted: Fitted) -> LearnedModel:
    """Return the fields of `learned` that a model names. Raises IncompatibleEdit, because others may write to the
    log."""
    try:
        return kind.model_validate({name: fitted.learned[name] for name in kind.model_fields if name in fitted.learned})
    except ValidationError as error:
        raise IncompatibleEdit(f"The learned fields of the edit {edit_id} cannot be read: {error}") from error


def check_shapes(edit_id: str, fitted: Fitted, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises IncompatibleEdit if the edit's tensors do not have these shapes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in fitted.tensors.items()}
    if shapes != expected:
        raise IncompatibleEdit(f"The edit {edit_id} has tensors of the shapes {shapes}; this model takes {expected}.")


def target_of(edit_id: str, fitted: Fitted) -> tuple[int, ...]:
    """Return the token ids of the target that was learned. Raises IncompatibleEdit if they are not a list of ints."""
    target = fitted.learned.get("target_ids")
    if not isinstance(target, list) or not target or not all(type(each) is int for each in target):
        raise IncompatibleEdit(f"The edit {edit_id} cannot be loaded: its target_ids must be a list of token ids.")
    return tuple(target)
