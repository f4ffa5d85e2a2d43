"""An engine behind its owner, with edits that were fitted once through transformers: for tests of any engine."""

import os
import queue
import time
from dataclasses import dataclass, field
from typing import Any

from app.domain.generation import Generation, GenerationParameters, Token
from app.editors.base import Fitted
from app.engine.editions import Edition
from app.engine.owner import EngineOwner
from app.engine.serving_engine import ServingEngine
from app.engine.vllm.engine import ADAPTERS, VllmEngine
from app.engine.vllm.engine_arguments import speculates, vllm_arguments
from app.engine.vllm.process import VllmProcess
from app.engine.vllm.supervisor import VllmSupervisor
from tests.rig import NOTHING, Rig

WAIT_S = 120


@dataclass
class SentRequest:
    """A request that was sent, and the items of its answer that arrive."""

    sequence: Any
    arrived: "queue.SimpleQueue[Any]"
    tokens: list[Token] = field(default_factory=list)

    def first_token(self) -> Token:
        item = self.arrived.get(timeout=WAIT_S)
        assert isinstance(item, Token)
        return item

    def end(self) -> Any:
        while isinstance(item := self.arrived.get(timeout=WAIT_S), Token):
            self.tokens.append(item)
        return item

    def generation(self) -> Generation:
        item = self.end()
        assert isinstance(item, Generation), item
        return item


class Served:
    """An engine behind its owner."""

    def __init__(self, engine: ServingEngine) -> None:
        self.engine, self.owner = engine, EngineOwner(engine)
        self.owner.start()

    def load(self, edit_id: str, editor: str, fitted: Fitted) -> None:
        self.owner.call(lambda: self.engine.load(edit_id, editor, fitted)).result(WAIT_S)

    def drop(self, edit_id: str) -> None:
        self.owner.call(lambda: self.engine.drop(edit_id)).result(WAIT_S)

    def ask(self, prompts: list[str], edition: Edition = NOTHING, **parameters: Any) -> list[SentRequest]:
        arrived: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in prompts]
        given = GenerationParameters(**{"max_new_tokens": 60, **parameters})
        sequences = self.owner.generate(
            [(prompt, given) for prompt in prompts],
            edition,
            edition.revision,
            [each.put for each in arrived],
            [self.engine.prepare(prompt, edition, given.json_schema) for prompt in prompts],
            time.monotonic(),
        ).result(WAIT_S)
        return [SentRequest(*each) for each in zip(sequences, arrived, strict=True)]

    def say(self, prompt: str, edition: Edition = NOTHING, **parameters: Any) -> Generation:
        return self.ask([prompt], edition, **parameters)[0].generation()


def vllm_engine(rig: Rig, room_tokens: int = 20_000, **more: Any) -> VllmEngine:
    """vLLM over the rig's model. `more`: arguments of vLLM."""
    adapters = rig.editors[ADAPTERS].extras.fixed_adapters
    assert adapters is not None
    given = {"enforce_eager": True, **more}
    arguments = vllm_arguments(rig.hosted, rig.editors["grace"].sites[0], 8, room_tokens, None, adapters, given)
    python = os.environ["ERRATA_VLLM_PYTHON"]
    return VllmEngine(
        rig.hosted,
        rig.editors,
        rig.engine.scope,
        slots=8,
        queue_limit=64,
        fit_share=0.5,
        vllm=VllmSupervisor(lambda: VllmProcess(python, arguments), deadline_s=120),
        adapter_rank=arguments.get("max_lora_rank", 0),
        speculates=speculates(arguments),
    )


CROWDED = {"room_tokens": 1100, "max_num_batched_tokens": 16, "enable_chunked_prefill": True, "block_size": 32}
"""Arguments under which prompts come in chunks, even short ones are found in the prefix cache, and the memory holds two
long sequences, so that vLLM preempts others and computes them again."""


def tokens_of(generation: Generation) -> list[int]:
    return [token.id for token in generation.tokens]


def logprobs_of(generation: Generation) -> list[float]:
    return [token.logprob for token in generation.tokens]
