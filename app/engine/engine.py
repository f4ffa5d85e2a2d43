"""Continuous batching, one step at a time: admit, run one batch, decide, sample, end what is finished.

Knows nothing of threads, logs or HTTP. `owner` drives it on the thread that owns the model; tests drive it directly.
"""

import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from app.domain.errors import DeadlineExceeded, ErrataError, InvalidRequest, RequestCancelled
from app.domain.generation import FinishReason, GenerationParameters, Ranked
from app.editors.base import Decision, Editor, FitRequest, Fitted, Progress, PromptView, Site
from app.editors.fitting.hooks import SiteHooks
from app.engine.admitting import check_asked
from app.engine.detokenizer import Detokenizer
from app.engine.editions import SILENT_IN, Asking, Edition, Editions
from app.engine.fits import Fits, Fitting
from app.engine.grammar import Grammars
from app.engine.graphs import Record
from app.engine.kv_cache import SPARE
from app.engine.model import HostedModel
from app.engine.onednn import release_dense
from app.engine.outcome import answer_of, ranked_of, token_of
from app.engine.runner import Runner, Watch
from app.engine.sampler import Sampler, choose_all
from app.engine.scheduler import Batch, Scheduler
from app.engine.sequence import Emit, Phase, Ready, Sequence
from app.engine.text import Text
from app.scope.scope import Scope

DEFERS = "it defers, for its target does not fit the schema of the answer"


@dataclass(slots=True)
class Counters:
    """What the engine has done since it started."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    fit_steps: int = 0
    finished: dict[str, int] = field(default_factory=dict)


class Engine:
    """The frozen model with its slots and editors. Not thread-safe: one owner calls it."""

    def __init__(
        self,
        hosted: HostedModel,
        hooks: SiteHooks,
        editors: Mapping[str, Editor],
        *,
        slots: int,
        chunk_tokens: int = 256,
        batch_tokens: int = 2048,
        queue_limit: int = 1024,
        room_tokens: int | None = None,
        scope: Scope,
        fit_share: float = 0.5,
        record: Record | None = None,
    ) -> None:
        self.hosted, self.editors = hosted, editors
        self.text = Text(hosted.tokenizer, min(hosted.eos_ids, default=None), hosted.max_tokens)
        self.grammars = Grammars(hosted.tokenizer, hosted.eos_ids, hosted.vocabulary)
        self.scope = scope
        self.editions = Editions(editors, scope)
        self.scheduler = Scheduler(
            slots=slots,
            chunk_tokens=chunk_tokens,
            batch_tokens=batch_tokens,
            queue_limit=queue_limit,
            room_tokens=room_tokens,
        )
        self.counters = Counters()
        self._runner = Runner(hosted, hooks, editors, slots, record)
        self._fits = Fits(fit_share)

    @property
    def idle(self) -> bool:
        return self.scheduler.idle and not self._fits

    # -- edits' rows

    def load(self, edit_id: str, editor: str, fitted: Fitted) -> None:
        """Take an edit's rows into memory; no request sees them before an edition names the edit."""
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
        """Give an edit's rows back: only for one that no edition in use sees."""
        editor = self.editors[self.editions.disown(edit_id)]
        editor.drop(edit_id)
        if editor.capabilities.scoped:
            self.scope.drop(edit_id)

    def fit(
        self, editor: str, requests: Iterable[FitRequest], beside: Edition
    ) -> Generator[Progress, None, list[Fitted]]:
        """A fit's micro-steps. `beside` are the live edits among which the new ones shall stand."""
        return self.editors[editor].fit(list(requests), self.editions.parts(beside).get(editor))

    def with_scope(self, editor: str, fitted: Fitted, request: FitRequest) -> Fitted:
        """A fit with the scope that its request asks for, if its editor is scoped. It touches none of the engine's
        state, and takes a while: for other threads."""
        return self.rescope(fitted, request) if self.editors[editor].capabilities.scoped else fitted

    def still_fits(self, editor: str, learned: Mapping[str, Any], beside: Edition) -> bool:
        """Whether what was fitted beside another edition may stand beside this one."""
        return self.editors[editor].still_fits(learned, self.editions.parts(beside).get(editor))

    def rescope(self, fitted: Fitted, request: FitRequest) -> Fitted:
        """The same fit under the scope that the request asks for now, widened as it was."""
        stood = fitted.learned.get("scope", {})
        scope = self.scope.learn(request.scope, widened=float(stood.get("widened", 1.0)))
        return Fitted(learned={**fitted.learned, "scope": scope.model_dump()}, tensors=fitted.tensors)

    # -- taking work

    def ready(self, prompt: str, edition: Edition, schema: str | None = None) -> Ready:
        """What is known of a request before it is queued. It takes time that grows with the prompt, and needs none of
        the engine's state: whoever adds a request has it made ready first, on another thread. Raises InvalidRequest."""
        grammar = None if schema is None else self.grammars.compiled(schema)
        ids, asking = self.text.encode(prompt), self.ask(prompt, edition)
        fed = self.text.encode(prompt[: -asking.cut]) if asking.cut else ids
        return Ready(ids=ids, fed=fed, asking=asking, grammar=grammar)

    def ask(self, prompt: str, edition: Edition) -> Asking:
        """Which edit the scope index names for a prompt."""
        if not edition.edit_ids:
            return Asking()
        self.text.encode(prompt)  # first: of a prompt that is too long nothing else is read
        return self.editions.ask(prompt, self.text, edition)

    def add(
        self,
        prompt: str,
        parameters: GenerationParameters,
        edition: Edition,
        revision: int,
        emit: Emit,
        ready: Ready | None = None,
    ) -> Sequence:
        """Queue a request pinned to an edition, that of `revision`. Raises InvalidRequest or QueueFull."""
        ready = ready or self.ready(prompt, edition, parameters.json_schema)
        ids = ready.ids
        check_asked(ids, parameters, self.hosted)
        sampler = Sampler(parameters, None if ready.grammar is None else ready.grammar.begin())
        sequence = Sequence(
            text=prompt,
            prompt=ready.fed,
            uncut=ids if ready.asking.cut else (),
            parameters=parameters,
            edition=edition,
            revision=revision,
            emit=emit,
            sampler=sampler,
            answer=Detokenizer(self.text.decode, parameters.stop, ready.fed, drops_blank=ready.asking.drops_blank),
            seed=sampler.seed,
            due=None if parameters.timeout_s is None else time.monotonic() + parameters.timeout_s,
            asking=ready.asking,
        )
        self.scheduler.add(sequence)
        return sequence

    def add_fit(self, fitting: Fitting) -> None:
        self._fits.add(fitting)

    # -- the step

    def step(self) -> None:
        """One forward pass for requests, if any wait for one, and a micro-step of a fit, if one is due."""
        began = time.perf_counter()
        self._drop_cancelled()
        batch = self.scheduler.next()
        self._settle()
        if batch is not None:
            self.counters.steps += 1
            if batch.phase is Phase.PREFILL:
                self._prefill(batch)
            else:
                self._decode(batch)
        if batch is not None:
            self._fits.budget.served(time.perf_counter() - began)
        if self._fits and (batch is None or self._fits.budget.due):
            began = time.perf_counter()
            self.counters.fit_steps += self._fits.step()
            self._fits.budget.fitted(time.perf_counter() - began if batch is not None else 0.0)

    def _settle(self, spare: int = SPARE) -> None:
        """Sequences stand in their slots, and what others left there gives its memory back."""
        while self.scheduler.moves:
            move = self.scheduler.moves.pop(0)
            self._runner.move(move.source, move.target, move.tokens)
        self._runner.cache.release({each.slot: each.computed for each in self.scheduler.running}, spare)

    def give_back_memory(self) -> None:
        """Between two steps: what ended sequences and fits held of memory goes back to the system."""
        self._settle(spare=0)
        if not self._fits:
            release_dense(self.hosted.model)

    def _prefill(self, batch: Batch) -> None:
        slots, starts = [s.slot for s in batch.sequences], [s.computed for s in batch.sequences]
        rows = [s.row(len(piece)) for s, piece in zip(batch.sequences, batch.pieces, strict=True)]
        logits, features = self._runner.prefill(slots, starts, batch.pieces, rows, self._watches(batch))
        ready: list[int] = []
        for row, (sequence, piece) in enumerate(zip(batch.sequences, batch.pieces, strict=True)):
            sequence.computed += len(piece)
            self.counters.prompt_tokens += 0 if sequence.decided else len(piece)
            if sequence.computed < len(sequence.prompt):
                continue
            if sequence.decided:
                sequence.phase = Phase.DECODE
                ready.append(row)
            elif self._decide(sequence, {site: x[row] for site, x in features.items()}):
                ready.append(row)
        if ready:
            self._sample(logits[ready], [batch.sequences[row] for row in ready])

    def _watches(self, batch: Batch) -> list[Watch]:
        """What editors that look at every token of a prompt want of the rows that are not decided yet."""
        watches: list[Watch] = []
        for row, (sequence, piece) in enumerate(zip(batch.sequences, batch.pieces, strict=True)):
            if sequence.decided or not sequence.edition.edit_ids:
                continue
            for key, part in self.editions.parts(sequence.edition).items():
                for site in self.editors[key].observed:
                    seen = sequence.observed.setdefault(key, {}).setdefault(site, [])
                    watches.append(Watch(row, len(piece), site, partial(self._observe, key, site, part, seen)))
        return watches

    def _observe(self, key: str, site: Site, part: Any, seen: list[Tensor], h_in: Tensor) -> None:
        seen.append(self.editors[key].observe(site, h_in, part))

    def _decide(self, sequence: Sequence, features: Mapping[Site, Tensor]) -> bool:
        """Which edit answers, once. -> whether the logits at hand give the first token."""
        decision = None
        if sequence.edition.edit_ids:
            observed = {
                key: {site: torch.cat(seen) for site, seen in sites.items()} for key, sites in sequence.observed.items()
            }
            view = PromptView(features=features, observed=observed, words=sequence.asking.words)
            decision = self.editions.decide(view, sequence.asking, sequence.edition)
            if decision is not None and not self._may_say(sequence, decision):
                sequence.nearest, decision = replace(decision, why=f"{decision.why}; {DEFERS}"), None
            if decision is None and sequence.uncut:
                sequence.begin_anew(Detokenizer(self.text.decode, sequence.parameters.stop, sequence.uncut))
                return False
            if decision is None and sequence.parameters.explain:
                sequence.nearest = sequence.nearest or sequence.asking.nearest
        return sequence.decide(decision, None if decision is None else self.editors[decision.editor].capabilities)

    def _may_say(self, sequence: Sequence, decision: Decision) -> bool:
        """Whether the answer may be the edit's target: one that is held to a schema may not be anything."""
        grammar = sequence.sampler.grammar
        return grammar is None or grammar.takes(self.editions.target_of(decision.edit_id)[decision.part or 0 :])

    def _decode(self, batch: Batch) -> None:
        slots, starts = [s.slot for s in batch.sequences], [s.computed for s in batch.sequences]
        rows = [s.row(1) for s in batch.sequences]
        logits = self._runner.decode(slots, starts, batch.pieces, rows)
        for sequence in batch.sequences:
            sequence.computed += 1
        self._sample(logits, batch.sequences)

    def _sample(self, logits: Any, sequences: list[Sequence]) -> None:
        ids, logprobs, likeliest = choose_all(
            logits, [s.sampler for s in sequences], [s.prompt for s in sequences], [s.generated for s in sequences]
        )
        chosen = zip(sequences, ids, logprobs, likeliest, strict=True)
        for row, (sequence, token_id, logprob, first) in enumerate(chosen):
            if sequence.sampler.problem is not None:  # its token was chosen without the schema: nobody is to see it
                self.end(sequence, InvalidRequest(f"`response_format` asks for too much: {sequence.sampler.problem}."))
                continue
            sequence.generated.append(token_id)
            self.counters.generated_tokens += 1
            ranked = ranked_of(self.text, logits[row], token_id, sequence.parameters.top_logprobs)
            self._show(sequence, token_id, logprob, first, ranked)
            sequence.check()

    def _show(
        self, sequence: Sequence, token_id: int, logprob: float, likeliest: bool, ranked: tuple[Ranked, ...]
    ) -> None:
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
        self.scheduler.remove(sequence)
        self.counters.finished[reason] = self.counters.finished.get(reason, 0) + 1
        target = () if sequence.decision is None else self.editions.target_of(sequence.decision.edit_id)
        sequence.emit(answer_of(sequence, reason, target, self.text, self.hosted.eos_ids))

    # -- ending early

    def _drop_cancelled(self) -> None:
        under_way = (*self.scheduler.waiting, *self.scheduler.running)
        for sequence in [s for s in under_way if s.cancelled]:
            self.end(sequence, RequestCancelled("The request was cancelled."))
        now = time.monotonic()
        for sequence in [s for s in under_way if s.due is not None and s.due <= now]:
            self.end(
                sequence,
                DeadlineExceeded(
                    f"The answer was not whole within {sequence.parameters.timeout_s:g} s: ask for fewer tokens, or "
                    "give more time.",
                    generated_tokens=len(sequence.generated),
                ),
            )

    def end(self, sequence: Sequence, error: ErrataError) -> None:
        """End a sequence with an error; its slot is free. One that has ended already stays as it is."""
        if sequence.phase is not Phase.DONE:
            self.scheduler.remove(sequence)
            sequence.emit(error)

    def end_all(self, error: ErrataError) -> None:
        for sequence in (*self.scheduler.waiting, *self.scheduler.running):
            self.end(sequence, error)
        self._fits.end_all(error)
