"""The seam between the service and an engine: what every engine does, whichever program runs the model.

An engine has two halves. One half is the same for all engines and lives here: texts, editors, editions, the scope
decision, edits' rows, fits, and what a token or an answer reports. The other half generates, and each engine has its
own: `Engine` runs transformers in this process, `VllmEngine` hands requests to vLLM. `owner` drives either.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.domain.errors import ErrataError
from app.domain.generation import FinishReason, GenerationParameters, RankedToken
from app.editors.base import Decision, Editor, FitProgress, FitRequest, Fitted
from app.engine.editions import SILENT_IN, Edition, Editions, ScopeDecision
from app.engine.fits import Fits, RunningFit
from app.engine.fitter.fitter import Fitter
from app.engine.grammar import Grammar, Grammars
from app.engine.model import HostedModel
from app.engine.outcome import answer_of, token_of
from app.engine.sequence import Emit, PreparedRequest, Sequence
from app.engine.text import TextCodec
from app.scope.index import ScopeIndex


class EngineFailed(ErrataError):
    """A forward pass failed: the server's fault, not the request's."""


@dataclass(slots=True)
class Counters:
    """Counts of the engine's work since it started."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    restarts: int = 0
    """The number of times that the program that generates was lost and replaced."""
    finished: dict[str, int] = field(default_factory=dict)


class ServingEngine(ABC):
    """A frozen model with its editors. Not thread-safe: only its owner calls it, apart from `prepare`, `ask`,
    `with_scope` and `rescope`, which read nothing that the engine's thread changes."""

    def __init__(
        self,
        hosted: HostedModel,
        editors: Mapping[str, Editor],
        scope: ScopeIndex,
        *,
        slots: int,
        fit_share: float,
        fitter: Fitter | None = None,
    ) -> None:
        """`slots`: how many requests may run at once. `fitter`: the process that fits; None: this engine's thread."""
        self.hosted, self.editors, self.scope, self.slots = hosted, editors, scope, slots
        self.text = TextCodec(hosted.tokenizer, min(hosted.eos_ids, default=None), hosted.max_tokens)
        self.grammars = Grammars(hosted.tokenizer, hosted.eos_ids, hosted.vocabulary)
        self.editions = Editions(editors, scope)
        self.counters = Counters()
        self._fits = Fits(fit_share)
        self._fitter = fitter

    # -- life

    @abstractmethod
    def start(self, wake: Callable[[], None]) -> None:
        """The owner calls this before the first step. `wake` may be called from any thread: it ends the owner's sleep,
        so that it looks at `idle` again."""

    @abstractmethod
    def stop(self) -> None:
        """The owner calls this after the last step, on the engine's thread."""

    @property
    @abstractmethod
    def failure(self) -> str | None:
        """Why the engine cannot serve now; None while it can. Requests that come meanwhile wait, or are refused."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """True if `step` has nothing to do."""

    @abstractmethod
    def step(self) -> None:
        """Do a part of the work that takes no longer than one forward pass and one micro-step of a fit."""

    @abstractmethod
    def release_memory(self) -> None:
        """Release, between two steps, memory that ended requests and fits still hold."""

    # -- requests

    @property
    @abstractmethod
    def running(self) -> int:
        """The number of requests whose answers are being generated."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """The number of requests that wait for a slot."""

    @abstractmethod
    def add(
        self,
        prompt: str,
        parameters: GenerationParameters,
        edition: Edition,
        revision: int,
        emit: Emit,
        prepared: PreparedRequest | None = None,
        began: float | None = None,
    ) -> Sequence:
        """Queue a request pinned to the edition of `revision`. Its timeout runs from `began`, on the clock of
        `time.monotonic`; None: from now. Raises InvalidRequest or QueueFull."""

    @abstractmethod
    def end_all(self, error: ErrataError) -> None:
        """End all requests and fits with an error each."""

    @abstractmethod
    def _forget(self, sequence: Sequence) -> None:
        """Free what a request holds that ends by itself."""

    # -- what is decided before a request is added

    def prepare(
        self, prompt: str, edition: Edition, schema: str | None = None, *, nearest: bool = True
    ) -> PreparedRequest:
        """Prepares the parts of a request that need none of the engine's state; callers do it on another thread before
        they add the request, as it takes time that grows with the prompt. Raises InvalidRequest."""
        grammar = None if schema is None else self.grammars.compiled(schema)
        ids, scope_decision = self.text.encode(prompt), self.ask(prompt, edition, nearest=nearest)
        fed = self.text.encode(prompt[: -scope_decision.cut]) if scope_decision.cut else ids
        return PreparedRequest(ids=ids, fed=fed, scope_decision=scope_decision, grammar=grammar)

    def ask(self, prompt: str, edition: Edition, *, nearest: bool = True) -> ScopeDecision:
        """The scope decision for a prompt; without `nearest` it need not name the nearest edit."""
        if not edition.edit_ids:
            return ScopeDecision()
        self.text.encode(prompt)  # first: a prompt that is too long is refused before it is read further
        return self.editions.ask(prompt, self.text, edition, nearest=nearest)

    # -- edits' rows

    def why_not_served(self, editor: str) -> str:
        """A sentence that says why an editor is not among `editors`; empty where the engine serves all."""
        return ""

    def load(self, edit_id: str, editor: str, fitted: Fitted) -> None:
        """Loads an edit's rows; no request sees them until an edition names the edit."""
        self.editors[editor].load(edit_id, fitted)
        try:
            if self.editors[editor].capabilities.scoped:
                self.scope.load(edit_id, fitted.learned.get("scope"))
        except BaseException:
            self.editors[editor].drop(edit_id)
            raise
        target = fitted.learned.get("target_ids", ())
        self.editions.own(edit_id, editor, target, fitted.learned.get(SILENT_IN, ()))

    def drop(self, edit_id: str) -> None:
        """Frees an edit's rows; only for an edit that no edition in use sees."""
        editor = self.editors[self.editions.disown(edit_id)]
        editor.drop(edit_id)
        if editor.capabilities.scoped:
            self.scope.drop(edit_id)

    # -- fits

    def fit(
        self, editor: str, requests: Iterable[FitRequest], edition: Edition
    ) -> Generator[FitProgress, None, list[Fitted]]:
        """The micro-steps of a fit. `edition` holds the live edits that the new ones will join."""
        if self._fitter is not None:
            return self._fitter.fit(editor, list(requests))
        return self.editors[editor].fit(list(requests), self.editions.parts(edition).get(editor))

    def add_fit(self, fitting: RunningFit) -> None:
        (self._fitter or self._fits).add(fitting)

    def _end_fits(self, error: ErrataError) -> None:
        self._fits.end_all(error)
        if self._fitter is not None:
            self._fitter.end_all(error)

    def with_scope(self, editor: str, fitted: Fitted, request: FitRequest) -> Fitted:
        """The fit with its request's scope, if its editor is scoped. Slow and independent of the engine's state: for
        other threads."""
        return self.rescope(fitted, request) if self.editors[editor].capabilities.scoped else fitted

    def still_fits(self, editor: str, learned: Mapping[str, Any], edition: Edition) -> bool:
        """True if a fit made beside another edition is valid beside this one."""
        still_fits = self.editors[editor].extras.still_fits
        return still_fits is None or still_fits(learned, self.editions.parts(edition).get(editor))

    def rescope(self, fitted: Fitted, request: FitRequest) -> Fitted:
        """The same fit with the scope that the request defines now, widened as before if it had one."""
        previous = fitted.learned.get("scope")
        scope = self.scope.learn(request.scope, None if previous is None else float(previous.get("widened", 1.0)))
        return Fitted(learned={**fitted.learned, "scope": scope.model_dump()}, tensors=fitted.tensors)

    # -- what a schema bars

    def _deferred(self, decision: Decision, grammar: Grammar | None) -> Decision | None:
        """The decision with the reason for which its edit defers, if the answer's schema does not allow the edit's
        target; None if the edit may answer."""
        target = self.editions.target_of(decision.edit_id)[decision.begun_tokens :]
        if grammar is None or grammar.accepts(target):
            return None
        return replace(decision, why=f"{decision.why}; it defers, for its target does not fit the schema of the answer")

    # -- what a request reports

    def _show(
        self, sequence: Sequence, token_id: int, logprob: float, likeliest: bool, ranked: tuple[RankedToken, ...]
    ) -> None:
        """Emit the newest token of a request, and its answer if the token ends it."""
        ended = token_id in self.hosted.eos_ids and not sequence.parameters.ignore_eos
        text = "" if ended else sequence.answer.add(token_id)
        reason: FinishReason | None = None
        if ended:
            reason = "eos_token"
        elif sequence.answer.stopped:
            reason = "stop_sequence"
        elif len(sequence.generated) >= sequence.parameters.max_new_tokens:
            reason = "length"
        if reason is not None:
            text += sequence.answer.finish()
        token = token_of(sequence, token_id, text, logprob, likeliest, ranked, self.text, ended=ended)
        sequence.tokens.append(token)
        sequence.emit(token)
        if reason is not None:
            self._finish(sequence, reason)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        self._forget(sequence)
        self.counters.finished[reason] = self.counters.finished.get(reason, 0) + 1
        target = () if sequence.decision is None else self.editions.target_of(sequence.decision.edit_id)
        sequence.emit(answer_of(sequence, reason, target, self.text, self.hosted.eos_ids))
