"""The engine over vLLM: this process decides, fits and reports, and vLLM's process generates.

The scope decision is made from the text alone, before a request is sent. vLLM therefore needs no hook that reads
states: a request names its edit, and the workers add that edit's rows. Fits run in a process of their own, the fitter,
whose base states vLLM reads; without one they run in this process, through transformers.

The supervisor replaces a vLLM that is lost: it starts another, or connects again. Meanwhile requests wait here; then
all rows are loaded anew before the first of them is sent.
"""

import logging
import math
import queue
import time
from collections.abc import Callable, Mapping
from typing import Any

from app.domain.errors import EngineAway, ErrataError, InvalidRequest, QueueFull, RequestCancelled
from app.domain.generation import GenerationParameters, RankedToken
from app.editors.base import Editor, Fitted
from app.engine.detokenizer import Detokenizer
from app.engine.editions import Edition
from app.engine.fitter.fitter import Answer, Fitter, Rows
from app.engine.grammar import SEPARATORS, Grammars
from app.engine.model import HostedModel
from app.engine.onednn import release_dense
from app.engine.outcome import shown_as
from app.engine.request_limits import check_request
from app.engine.sequence import Emit, Phase, PreparedRequest, Sequence
from app.engine.serving_engine import EngineFailed, ServingEngine
from app.engine.vllm.base_states import BaseStatesReader
from app.engine.vllm.held_edits import HeldEdits
from app.engine.vllm.sampling_arguments import check_parameters, drawn_seed, sampling_arguments
from app.engine.vllm.session import VllmSession
from app.engine.vllm.supervisor import Lost, Recovery, VllmSupervisor
from app.scope.index import ScopeIndex

_log = logging.getLogger(__name__)
ROWS, ADAPTERS = "grace", "lora_mixture"
"""The editor keys that this engine serves. Edits of the one are rows at one site, edits of the other are LoRAs."""
PATIENCE_S = 120.0
"""The time for which requests wait for a vLLM that is away, in seconds; then they fail, and so do those that come."""
MOST_SENT = 2
"""The number of times that a request is sent at most, in case it is the request that ends vLLM."""


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
        fitter: Fitter | None = None,
        vllm: VllmSupervisor,
        adapter_rank: int = 0,
        speculates: bool = False,
    ) -> None:
        """`adapter_rank`: the greatest rank of a LoRA that vLLM has room for, or 0 if it was started without LoRAs.
        `speculates`: this server had vLLM draft tokens."""
        keys = (ROWS, ADAPTERS) if adapter_rank else (ROWS,)
        served = {key: editor for key, editor in editors.items() if key in keys}
        super().__init__(hosted, served, scope, slots=slots, fit_share=fit_share, fitter=fitter)
        self.grammars = Grammars(hosted.tokenizer, hosted.eos_ids, hosted.vocabulary, SEPARATORS)
        self._vllm, self._queue_limit, self._speculates = vllm, queue_limit, speculates
        self._session: VllmSession | None = vllm.session
        self._why_away, self._away_since = "", 0.0
        self._requests: dict[int, Sequence] = {}
        self._number_of: dict[Sequence, int] = {}
        self._numbers = 0
        self._times_sent: dict[Sequence, int] = {}
        self._held = HeldEdits(adapter_rank)
        self._base_states = BaseStatesReader()
        self._states_asked: queue.SimpleQueue[tuple[Rows, Answer]] = queue.SimpleQueue()

    # -- life

    def start(self, wake: Callable[[], None]) -> None:
        def find_states(rows: Rows, answer: Answer) -> None:
            self._states_asked.put((rows, answer))
            wake()

        if self._fitter is not None:
            self._fitter.answer_with(find_states)
        self._vllm.start(wake)

    def stop(self) -> None:
        if self._fitter is not None:
            self._fitter.stop()
        self._vllm.stop()

    @property
    def failure(self) -> str | None:
        return None if self._session is not None else f"vLLM is away: {self._why_away}"

    @property
    def idle(self) -> bool:
        return self._vllm.events.empty() and self._states_asked.empty() and not self._fits

    @property
    def running(self) -> int:
        return sum(bool(each.generated) for each in self._requests.values())

    @property
    def waiting(self) -> int:
        return len(self._requests) - self.running

    def release_memory(self) -> None:
        if not self._fits:
            release_dense(self.hosted.model)

    # -- edits

    def why_not_served(self, editor: str) -> str:
        if editor == ADAPTERS:
            return (
                "Its edits are LoRAs, which vLLM takes where this server starts it with "
                "ERRATA_VLLM_ARGUMENTS='{\"enable_lora\": true}'; a vLLM that runs already is sent none."
            )
        return "It acts or decides by states of the text, which vLLM does not tell while it answers."

    def load(self, edit_id: str, editor: str, fitted: Fitted) -> None:
        super().load(edit_id, editor, fitted)
        try:
            adapters = self.editors[editor].extras.fixed_adapters
            change = self._held.load(edit_id, self.editions.target_of(edit_id), fitted, adapters)
        except BaseException:
            super().drop(edit_id)
            raise
        if self._session is not None:
            self._session.change(change)

    def drop(self, edit_id: str) -> None:
        super().drop(edit_id)
        change = self._held.drop(edit_id)
        if self._session is not None:
            self._session.change(change)

    # -- requests

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
        check_parameters(parameters, speculates=self._speculates)
        prepared = prepared or self.prepare(prompt, edition, parameters.json_schema)
        check_request(prepared.ids, parameters, self.hosted)
        if self._given_up:
            raise self._away()
        if len(self._requests) >= self.slots + self._queue_limit:
            raise QueueFull(
                f"{len(self._requests) - self.slots} requests wait already: try again shortly. "
                "See /help/troubleshooting#too-busy.",
                retry_after_s=1,
            )
        sequence = self._decided(prompt, parameters, edition, revision, emit, prepared)
        number = self._new_number()
        self._requests[number] = sequence
        self._number_of[sequence] = number
        sequence.due = parameters.due(time.monotonic() if began is None else began)
        self.counters.prompt_tokens += len(sequence.prompt)
        if self._session is not None:
            self._send(number, sequence, self._session)
        return sequence

    def _new_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _send(self, number: int, sequence: Sequence, session: VllmSession) -> None:
        self._times_sent[sequence] = self._times_sent.get(sequence, 0) + 1
        prompt, decision, salt = list(sequence.prompt), sequence.decision, None
        arguments = sampling_arguments(sequence.parameters, sequence.seed, self.hosted.eos_ids, sequence.grammar)
        if decision is not None and decision.edit_id is not None:
            acting, salt = self._held.naming(decision.edit_id, len(prompt), decision.begun_tokens)
            arguments |= acting
        left_s = None if sequence.due is None else max(0.0, sequence.due - time.monotonic())
        session.add(number, prompt, arguments, salt, left_s)

    def _decided(
        self,
        prompt: str,
        parameters: GenerationParameters,
        edition: Edition,
        revision: int,
        emit: Emit,
        prepared: PreparedRequest,
    ) -> Sequence:
        """The request with its decision, which is made once and held. It is the scope index's alone: no editor
        confirms it, because confirming may take states of the prompt."""
        scope_decision = prepared.scope_decision
        decision, nearest = scope_decision.decision, scope_decision.nearest
        if decision is not None and (deferred := self._deferred(decision, prepared.grammar)) is not None:
            decision, nearest = None, deferred
        fed = prepared.ids if decision is None else prepared.fed
        drops_blank = decision is not None and scope_decision.drops_blank
        return Sequence(
            text=prompt,
            prompt=fed,
            uncut=prepared.ids if len(fed) < len(prepared.ids) else (),
            parameters=parameters,
            edition=edition,
            revision=revision,
            emit=emit,
            sampler=None,
            answer=Detokenizer(self.text.decode, parameters.stop, fed, drops_blank=drops_blank),
            seed=drawn_seed(parameters),
            grammar=None if prepared.grammar is None else prepared.grammar.begin(),
            decision=decision,
            decided=True,
            nearest=nearest if decision is None and parameters.explain else None,
            scope_decision=scope_decision,
        )

    # -- the step

    def step(self) -> None:
        """Hands on vLLM's messages, and runs one micro-step of a fit, if one is under way."""
        while not self._vllm.events.empty():
            event = self._vllm.events.get()
            if isinstance(event, Lost):
                self._lose(event.why)
            elif isinstance(event, Recovery):
                self._regain(event.session)
            else:
                self.counters.steps += 1
                for number, kind, *more in event:
                    self._take(number, kind, *more)
        for sequence in [each for each in self._requests.values() if each.cancelled]:
            self._end(sequence, RequestCancelled("The request was cancelled."))
        while not self._states_asked.empty():
            self._base_states.ask(*self._states_asked.get())
        if self._session is None:
            self._wait()
            self._base_states.lose(self._why_away)
        else:
            self._base_states.send(self._session, self._new_number)
        if self._fits:
            self._fits.step()

    def _take(self, number: int, kind: str, *more: Any) -> None:
        """Items of requests that have ended here meanwhile are ignored."""
        if self._base_states.take(number, kind, *more) or (sequence := self._requests.get(number)) is None:
            return
        if kind == "tokens":
            for token_id, logprob, rank, likeliest in more[0]:
                if sequence.phase is not Phase.DONE:
                    self._take_token(sequence, token_id, logprob, rank, likeliest)
        elif kind == "late":
            self._end(sequence, sequence.parameters.too_late(len(sequence.generated)))
        elif kind == "ended":  # for a reason that is none of this server's, else it had ended here by its last token
            self._end(sequence, EngineFailed(f"vLLM ended the answer before its end: {more[0]}."))
        elif kind == "refused":
            self._end(sequence, InvalidRequest(f"vLLM refuses this: {more[0]}"))
        else:
            _log.error("vLLM failed a request: %s", more[0])
            self._end(sequence, EngineFailed(f"vLLM failed: {more[0]}"))

    def _take_token(
        self, sequence: Sequence, token_id: int, logprob: float | None, rank: int, likeliest: list[tuple[int, float]]
    ) -> None:
        if (grammar := sequence.grammar) is not None:
            grammar.advance(token_id)  # vLLM holds the answer to the schema, but goes on without it past its limits
            if grammar.problem is not None:
                self._end(sequence, InvalidRequest(f"`response_format` asks for too much: {grammar.problem}."))
                return
        sequence.generated.append(token_id)
        self.counters.generated_tokens += 1
        count = sequence.parameters.top_logprobs
        ranked: tuple[RankedToken, ...] = ()
        logprob = math.nan if logprob is None else logprob
        if count is not None:
            ranked = tuple(shown_as(self.text, *each) for each in ((token_id, logprob), *likeliest[:count]))
        self._show(sequence, token_id, logprob, rank == 1, ranked)

    # -- while vLLM is away

    def _lose(self, why: str) -> None:
        """End the requests of whose answers clients have seen a part, which cannot be taken back. The others wait."""
        self._session, self._why_away, self._away_since = None, why, time.monotonic()
        self._base_states.lose(why)
        for sequence in list(self._requests.values()):
            if sequence.generated or self._times_sent.get(sequence, 0) >= MOST_SENT:
                self._end(sequence, self._away())

    def _regain(self, session: VllmSession) -> None:
        self.counters.restarts += 1
        for change in self._held.loads:
            session.change(change)
        self._session = session
        for number, sequence in self._requests.items():
            self._send(number, sequence, session)

    def _wait(self) -> None:
        now = time.monotonic()
        for sequence in list(self._requests.values()):
            if self._given_up:
                self._end(sequence, self._away())
            elif sequence.due is not None and now > sequence.due:
                self._end(sequence, sequence.parameters.too_late(0))

    @property
    def _given_up(self) -> bool:
        return self._session is None and time.monotonic() - self._away_since > PATIENCE_S

    def _away(self) -> EngineAway:
        return EngineAway(
            f"vLLM is not available ({self._why_away}); it is being started or connected to again. Ask again later. "
            "See /help/troubleshooting#the-server-is-not-ready.",
            retry_after_s=10,
        )

    # -- ending

    def end_all(self, error: ErrataError) -> None:
        for sequence in list(self._requests.values()):
            self._end(sequence, error)
        self._end_fits(error)

    def _end(self, sequence: Sequence, error: ErrataError) -> None:
        self._forget(sequence)
        sequence.emit(error)

    def _forget(self, sequence: Sequence) -> None:
        number = self._number_of.pop(sequence)
        del self._requests[number]
        self._times_sent.pop(sequence, None)
        sequence.phase = Phase.DONE
        if self._session is not None:
            self._session.abort(number)  # for a request that vLLM has finished too, this does nothing
