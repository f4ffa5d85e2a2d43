"""The engine over vLLM: this process decides, fits and reports, and vLLM's process generates.

The scope decision is made from the text alone, before a request is sent. vLLM therefore needs no hook that reads
states: a request names its edit, and the workers add that edit's rows. Fits run in this process, through transformers.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from app.domain.errors import ErrataError, QueueFull, RequestCancelled
from app.domain.generation import GenerationParameters, RankedToken
from app.editors.base import Editor, Fitted, PromptView
from app.engine.detokenizer import Detokenizer
from app.engine.editions import Edition
from app.engine.model import HostedModel
from app.engine.onednn import release_dense
from app.engine.outcome import shown_as
from app.engine.request_limits import check_request
from app.engine.sequence import Emit, Phase, PreparedRequest, Sequence
from app.engine.serving_engine import EngineFailed, ServingEngine
from app.engine.vllm.inside.errata_vllm.rows import cache_salt, value_digest
from app.engine.vllm.process import VllmProcess
from app.engine.vllm.sampling_arguments import check_parameters, drawn_seed, sampling_arguments
from app.scope.index import ScopeIndex

_log = logging.getLogger(__name__)
EDITORS = ("grace",)
"""The adaptor keys that this engine serves: their edits are rows at one site, chosen by the scope index."""


class VllmEngine(ServingEngine):
    """Requests run in vLLM, whose scheduler has the slots. A request is `waiting` until its first token."""

    def __init__(
        self,
        hosted: HostedModel,
        editors: Mapping[str, Editor],
        scope: ScopeIndex,
        *,
        slots: int,
        queue_limit: int,
        fit_share: float,
        process: VllmProcess,
    ) -> None:
        served = {key: editor for key, editor in editors.items() if key in EDITORS}
        super().__init__(hosted, served, scope, slots=slots, fit_share=fit_share)
        self._process, self._queue_limit = process, queue_limit
        self._requests: dict[int, Sequence] = {}
        self._number_of: dict[Sequence, int] = {}
        self._sent = 0
        self._digests: dict[str, str] = {}
        self._failure: str | None = None

    # -- life

    def start(self, wake: Callable[[], None]) -> None:
        self._process.start(wake)

    def stop(self) -> None:
        self._process.stop()

    @property
    def failure(self) -> str | None:
        return self._failure

    @property
    def idle(self) -> bool:
        return self._process.received.empty() and not self._fits

    @property
    def running(self) -> int:
        return sum(bool(each.generated) for each in self._requests.values())

    @property
    def waiting(self) -> int:
        return len(self._requests) - self.running

    def release_memory(self) -> None:
        if not self._fits:
            release_dense(self.hosted.model)

    # -- rows

    def load(self, edit_id: str, editor: str, fitted: Fitted) -> None:
        super().load(edit_id, editor, fitted)
        target = list(self.editions.target_of(edit_id))
        value = np.ascontiguousarray(fitted.tensors["value"].float().cpu().numpy(), dtype="<f4").tobytes()
        self._digests[edit_id] = value_digest(target, value)
        self._process.load(edit_id, target, value)

    def drop(self, edit_id: str) -> None:
        super().drop(edit_id)
        del self._digests[edit_id]
        self._process.drop(edit_id)

    # -- requests

    def add(
        self,
        prompt: str,
        parameters: GenerationParameters,
        edition: Edition,
        revision: int,
        emit: Emit,
        ready: PreparedRequest | None = None,
        began: float | None = None,
    ) -> Sequence:
        check_parameters(parameters)
        ready = ready or self.ready(prompt, edition)
        check_request(ready.ids, parameters, self.hosted)
        if self._failure is not None:
            raise EngineFailed(f"vLLM cannot answer: {self._failure}.")
        if len(self._requests) >= self.slots + self._queue_limit:
            raise QueueFull(
                f"{len(self._requests) - self.slots} requests wait already: try again shortly. "
                "See /help/troubleshooting#too-busy.",
                retry_after_s=1,
            )
        sequence = self._decided(prompt, parameters, edition, revision, emit, ready)
        self._sent += 1
        self._requests[self._sent] = sequence
        self._number_of[sequence] = self._sent
        edit = salt = None
        if sequence.decision is not None and sequence.decision.edit_id is not None:
            edit = sequence.decision.edit_id, sequence.decision.begun_tokens
            salt = cache_salt(self._digests[edit[0]], len(sequence.prompt), edit[1])
        arguments = sampling_arguments(parameters, sequence.seed, self.hosted.eos_ids, edit)
        now = time.monotonic()
        due = parameters.due(now if began is None else began)
        left_s = None if due is None else max(0.0, due - now)
        self._process.add(self._sent, list(sequence.prompt), arguments, salt, left_s)
        self.counters.prompt_tokens += len(sequence.prompt)
        return sequence

    def _decided(
        self,
        prompt: str,
        parameters: GenerationParameters,
        edition: Edition,
        revision: int,
        emit: Emit,
        ready: PreparedRequest,
    ) -> Sequence:
        """The request with its decision, which is made once and held."""
        scope_decision, decision = ready.scope_decision, None
        if edition.edit_ids:
            view = PromptView(features={}, words=scope_decision.words)
            decision = self.editions.decide(view, scope_decision, edition)
        fed = ready.ids if decision is None else ready.fed
        drops_blank = decision is not None and scope_decision.drops_blank
        return Sequence(
            text=prompt,
            prompt=fed,
            uncut=ready.ids if len(fed) < len(ready.ids) else (),
            parameters=parameters,
            edition=edition,
            revision=revision,
            emit=emit,
            sampler=None,
            answer=Detokenizer(self.text.decode, parameters.stop, fed, drops_blank=drops_blank),
            seed=drawn_seed(parameters),
            decision=decision,
            decided=True,
            nearest=scope_decision.nearest if decision is None and parameters.explain else None,
            scope_decision=scope_decision,
        )

    # -- the step

    def step(self) -> None:
        """Hands on vLLM's messages, and runs one micro-step of a fit, if one is under way."""
        while not self._process.received.empty():
            received = self._process.received.get()
            if isinstance(received, str):
                self._fail(received)
            else:
                self.counters.steps += 1
                for number, kind, *more in received:
                    self._take(number, kind, *more)
        for sequence in [each for each in self._requests.values() if each.cancelled]:
            self._end(sequence, RequestCancelled("The request was cancelled."))
        if self._fits:
            self.counters.fit_steps += self._fits.step()

    def _take(self, number: int, kind: str, *more: Any) -> None:
        """Items of requests that have ended here meanwhile are ignored."""
        if (sequence := self._requests.get(number)) is None:
            return
        if kind == "tokens":
            for token_id, logprob, rank, likeliest in more[0]:
                if sequence.phase is not Phase.DONE:
                    self._take_token(sequence, token_id, logprob, rank, likeliest)
        elif kind == "late":
            self._end(sequence, sequence.parameters.too_late(len(sequence.generated)))
        elif kind == "ended":  # for a reason that is none of this server's, else it had ended here by its last token
            self._end(sequence, EngineFailed(f"vLLM ended the answer before its end: {more[0]}."))
        else:
            _log.error("vLLM failed a request: %s", more[0])
            self._end(sequence, EngineFailed(f"vLLM failed: {more[0]}"))

    def _take_token(
        self, sequence: Sequence, token_id: int, logprob: float, rank: int, likeliest: list[tuple[int, float]]
    ) -> None:
        sequence.generated.append(token_id)
        self.counters.generated_tokens += 1
        count = sequence.parameters.top_logprobs
        ranked: tuple[RankedToken, ...] = ()
        if count is not None:
            ranked = tuple(shown_as(self.text, *each) for each in ((token_id, logprob), *likeliest[:count]))
        self._show(sequence, token_id, logprob, rank == 1, ranked)

    # -- ending

    def _fail(self, why: str) -> None:
        if self._failure is None:
            self._failure = why
            _log.error("vLLM cannot serve any longer: %s", why)
        self.end_all(EngineFailed(f"vLLM cannot answer: {self._failure}."))

    def end_all(self, error: ErrataError) -> None:
        for sequence in list(self._requests.values()):
            self._end(sequence, error)
        self._fits.end_all(error)

    def _end(self, sequence: Sequence, error: ErrataError) -> None:
        self._forget(sequence)
        sequence.emit(error)

    def _forget(self, sequence: Sequence) -> None:
        number = self._number_of.pop(sequence)
        del self._requests[number]
        sequence.phase = Phase.DONE
        self._process.abort(number)  # for a request that vLLM has finished too, this does nothing
