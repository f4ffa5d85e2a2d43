"""Continuous batching, one step at a time: admit, run a batch, decide, sample, end what is finished.

It knows nothing of threads, logs or HTTP. `owner` drives it on the thread that owns the model; tests drive it directly.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from app.domain.errors import ErrataError, InvalidRequest, RequestCancelled
from app.domain.generation import GenerationParameters
from app.editors.base import Editor, Observer, PromptView, Site
from app.editors.fitting.hooks import SiteHooks
from app.engine.detokenizer import Detokenizer
from app.engine.editions import Edition
from app.engine.graphs import Record
from app.engine.kv_cache import SPARE
from app.engine.model import HostedModel
from app.engine.onednn import release_dense
from app.engine.outcome import ranked_of
from app.engine.request_limits import check_request
from app.engine.runner import Runner, TokenObserver
from app.engine.sampler import Sampler, choose_all
from app.engine.scheduler import Batch, Scheduler
from app.engine.sequence import Emit, Phase, PreparedRequest, Sequence
from app.engine.serving_engine import ServingEngine
from app.scope.index import ScopeIndex


class Engine(ServingEngine):
    """The frozen model, run by transformers in this process, with its slots."""

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
        scope: ScopeIndex,
        fit_share: float,
        record: Record | None = None,
    ) -> None:
        super().__init__(hosted, editors, scope, slots=slots, fit_share=fit_share)
        self.scheduler = Scheduler(
            slots=slots,
            chunk_tokens=chunk_tokens,
            batch_tokens=batch_tokens,
            queue_limit=queue_limit,
            room_tokens=room_tokens,
        )
        self._runner = Runner(hosted, hooks, editors, slots, record)

    def start(self, wake: Callable[[], None]) -> None:
        """Does nothing: all work arrives through the owner, which then is awake."""

    def stop(self) -> None:
        """Does nothing: the model runs on the owner's thread alone."""

    @property
    def failure(self) -> str | None:
        return None

    @property
    def idle(self) -> bool:
        return self.scheduler.idle and not self._fits

    @property
    def running(self) -> int:
        return len(self.scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self.scheduler.waiting)

    # -- taking work

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
        """Queues a request pinned to the edition of `revision`. Its timeout runs from `began`, on the clock of
        `time.monotonic`; None: from now. Raises InvalidRequest or QueueFull."""
        prepared = prepared or self.prepare(prompt, edition, parameters.json_schema)
        ids, decision = prepared.ids, prepared.scope_decision
        check_request(ids, parameters, self.hosted)
        grammar = None if prepared.grammar is None else prepared.grammar.begin()
        sampler = Sampler(parameters, grammar)
        sequence = Sequence(
            text=prompt,
            prompt=prepared.fed,
            uncut=ids if decision.cut else (),
            parameters=parameters,
            edition=edition,
            revision=revision,
            emit=emit,
            sampler=sampler,
            answer=Detokenizer(self.text.decode, parameters.stop, prepared.fed, drops_blank=decision.drops_blank),
            seed=sampler.seed,
            grammar=grammar,
            due=parameters.due(time.monotonic() if began is None else began),
            scope_decision=decision,
        )
        self.scheduler.add(sequence)
        return sequence

    # -- the step

    def step(self) -> None:
        """Runs one forward pass for requests, if any wait, and one micro-step of a fit, if one is due."""
        began = time.perf_counter()
        self._drop_cancelled()
        batch = self.scheduler.next()
        self._sync_slots()
        if batch is not None:
            self.counters.steps += 1
            {Phase.PREFILL: self._prefill, Phase.LOOKAHEAD: self._decode_ahead, Phase.DECODE: self._decode}[
                batch.phase
            ](batch)
        if batch is not None:
            self._fits.budget.served(time.perf_counter() - began)
        if self._fits and (batch is None or self._fits.budget.due):
            began = time.perf_counter()
            self._fits.step()
            self._fits.budget.fitted(time.perf_counter() - began if batch is not None else 0.0)

    def _sync_slots(self, spare: int = SPARE) -> None:
        """Carries out pending slot moves and releases the memory of tokens that no sequence holds."""
        while self.scheduler.moves:
            move = self.scheduler.moves.pop(0)
            self._runner.move(move.source, move.target, move.tokens)
        self._runner.cache.release({each.slot: each.computed for each in self.scheduler.running}, spare)

    def release_memory(self) -> None:
        """Releases, between two steps, memory that ended sequences and fits still hold."""
        self._sync_slots(spare=0)
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
        for sequence in batch.sequences:
            sequence.check()

    def _watches(self, batch: Batch) -> list[TokenObserver]:
        """Watches for the undecided rows, one per editor and site that observes every token of a prompt."""
        watches: list[TokenObserver] = []
        for row, (sequence, piece) in enumerate(zip(batch.sequences, batch.pieces, strict=True)):
            if sequence.decided or not sequence.edition.edit_ids:
                continue
            for key, part in self.editions.parts(sequence.edition).items():
                if (observer := self.editors[key].extras.observer) is None:
                    continue
                for site in observer.sites:
                    seen = sequence.observed.setdefault(key, {}).setdefault(site, [])
                    watches.append(TokenObserver(row, len(piece), site, partial(_note, observer, site, part, seen)))
        return watches

    def _decide(self, sequence: Sequence, features: Mapping[Site, Tensor]) -> bool:
        """Decides, once, which edit answers. -> whether the logits at hand give the first token."""
        decision = None
        if sequence.edition.edit_ids:
            observed = {
                key: {site: torch.cat(seen) for site, seen in sites.items()} for key, sites in sequence.observed.items()
            }
            view = PromptView(features=features, observed=observed, words=sequence.scope_decision.words)
            decision = self.editions.decide(view, sequence.scope_decision, sequence.edition)
            if decision is not None and (deferred := self._deferred(decision, sequence.grammar)) is not None:
                sequence.nearest, decision = deferred, None
            if decision is None and sequence.uncut:
                sequence.restart_unedited(Detokenizer(self.text.decode, sequence.parameters.stop, sequence.uncut))
                return False
            if decision is None and sequence.parameters.explain:
                sequence.nearest = sequence.nearest or sequence.scope_decision.nearest
        if decision is None:
            return sequence.decide(None, None)
        capabilities = self.editors[decision.editor].capabilities
        return sequence.decide(decision, capabilities, self.editions.target_of(decision.edit_id))

    def _decode(self, batch: Batch) -> None:
        slots, starts = [s.slot for s in batch.sequences], [s.computed for s in batch.sequences]
        rows = [s.row(1) for s in batch.sequences]
        logits = self._runner.decode(slots, starts, batch.pieces, rows)
        for sequence in batch.sequences:
            sequence.computed += 1
        self._sample(logits, batch.sequences)
        for sequence in batch.sequences:
            sequence.check()

    def _decode_ahead(self, batch: Batch) -> None:
        """Feeds tokens ahead, and chooses tokens position by position until one is not the token that was fed next.

        Lookahead changes no answer: a token is chosen as in a decode step, given only tokens chosen before it.
        """
        slots, starts = [s.slot for s in batch.sequences], [s.computed for s in batch.sequences]
        rows = [s.row(len(piece)) for s, piece in zip(batch.sequences, batch.pieces, strict=True)]
        logits = self._runner.decode_ahead(slots, starts, batch.pieces, rows)
        for sequence, piece in zip(batch.sequences, batch.pieces, strict=True):
            sequence.computed += len(piece)  # whoever moves to another slot meanwhile takes all of it along
        going, given = list(range(len(batch.sequences))), 0
        while going:
            self._sample(logits[going, given], [batch.sequences[row] for row in going])
            given += 1
            going = [row for row in going if batch.sequences[row].take(batch.pieces[row], given)]
        for sequence in batch.sequences:
            if sequence.phase is Phase.LOOKAHEAD:
                sequence.end_pass()
            sequence.check()

    def _sample(self, logits: Any, sequences: list[Sequence]) -> None:
        ids, logprobs, likeliest = choose_all(
            logits, [s.sampler for s in sequences], [s.prompt for s in sequences], [s.generated for s in sequences]
        )
        chosen = zip(sequences, ids, logprobs, likeliest, strict=True)
        for row, (sequence, token_id, logprob, first) in enumerate(chosen):
            if sequence.sampler.problem is not None:  # its token was chosen without the schema and must not be shown
                self.end(sequence, InvalidRequest(f"`response_format` asks for too much: {sequence.sampler.problem}."))
                continue
            sequence.generated.append(token_id)
            self.counters.generated_tokens += 1
            ranked = ranked_of(self.text, logits[row], token_id, sequence.parameters.top_logprobs)
            self._show(sequence, token_id, logprob, first, ranked)

    # -- ending early

    def _drop_cancelled(self) -> None:
        under_way = (*self.scheduler.waiting, *self.scheduler.running)
        for sequence in [s for s in under_way if s.cancelled]:
            self.end(sequence, RequestCancelled("The request was cancelled."))
        now = time.monotonic()
        for sequence in [s for s in under_way if s.due is not None and s.due <= now]:
            self.end(sequence, sequence.parameters.too_late(len(sequence.generated)))

    def end(self, sequence: Sequence, error: ErrataError) -> None:
        """Ends a sequence with an error and frees its slot; an ended sequence is left alone."""
        if sequence.phase is not Phase.DONE:
            self.scheduler.remove(sequence)
            sequence.emit(error)

    def _forget(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)

    def end_all(self, error: ErrataError) -> None:
        for sequence in (*self.scheduler.waiting, *self.scheduler.running):
            self.end(sequence, error)
        self._fits.end_all(error)


def _note(observer: Observer, site: Site, part: Any, seen: list[Tensor], h_in: Tensor) -> None:
    seen.append(observer.observe(site, h_in, part))
