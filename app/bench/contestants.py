"""The contestants: the server in this process, the server over HTTP, and transformers' ways with the same model.

Each takes the same requests, decodes greedily, generates all tokens past end-of-text, and returns a Run. Knows no
sections and no tables.
"""

import asyncio
import json
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, StoppingCriteriaList

from app.bench.timing import Run, TimedRequest
from app.bench.workload import PromptSpec, tokens_of
from app.domain.generation import GenerationParameters, Token
from app.engine.model import HostedModel
from app.engine.onednn import without_onednn
from app.service.service import Service

WARM_TOKENS = 4
PAGE = 256
"""Tokens per block of transformers' cache."""
ALONE = 4
"""Number of requests that run one by one."""


class Contestant(Protocol):
    @property
    def name(self) -> str: ...

    async def run(self, specs: Sequence[PromptSpec], at_once: int | None = None) -> Run:
        """Runs all requests, at most `at_once` concurrently; None: no bound."""


@dataclass(slots=True)
class InProcess:
    """This server, through the use case that its routes call. `more`: generation parameters."""

    service: Service
    more: dict[str, Any]
    name: str = "errata"

    async def run(self, specs: Sequence[PromptSpec], at_once: int | None = None) -> Run:
        room = asyncio.Semaphore(at_once or len(specs))

        async def one(spec: PromptSpec) -> TimedRequest:
            async with room:
                timed = TimedRequest(time.perf_counter())
                parameters = GenerationParameters(max_new_tokens=spec.tokens, ignore_eos=True, **self.more)
                async with aclosing(self.service.stream([spec.prompt], parameters)) as items:
                    async for _, item in items:
                        if isinstance(item, Token):
                            timed.tokens.append(time.perf_counter())
                return timed

        began = time.perf_counter()
        requests = await asyncio.gather(*(one(spec) for spec in specs))
        return Run(time.perf_counter() - began, sum(len(each.tokens) for each in requests), requests)


def _generate_body(spec: PromptSpec) -> dict[str, Any]:
    return {"inputs": spec.prompt, "parameters": {"max_new_tokens": spec.tokens, "ignore_eos": True}}


@dataclass(slots=True)
class OverHttp:
    """A server over HTTP: event streams, read by clients in a separate process. `marker` occurs in the stream once per
    token. `texts`: answers are kept, of completions as OpenAI streams them."""

    url: str
    name: str = "errata, HTTP"
    path: str = "/generate_stream"
    marker: str = "data: "
    body: Callable[[PromptSpec], dict[str, Any]] = _generate_body
    texts: bool = False

    async def run(self, specs: Sequence[PromptSpec], at_once: int | None = None) -> Run:
        work = {
            "url": self.url,
            "path": self.path,
            "marker": self.marker,
            "at_once": at_once or len(specs),
            "bodies": [self.body(spec) for spec in specs],
            "texts": self.texts,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.bench.clients", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            out, _ = await process.communicate(json.dumps(work).encode())
        finally:
            if process.returncode is None:  # the run was cancelled
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise RuntimeError("The clients of the HTTP run failed: their error is above.")
        answer = json.loads(out)
        requests = [TimedRequest(each["began"], each["tokens"], each["text"]) for each in answer["requests"]]
        return Run(answer["seconds"], sum(each["answered"] for each in answer["requests"]), requests)


class _Cancelled(Exception):
    """The run was cancelled; nobody awaits it."""


class _Peer(ABC):
    """One of transformers' ways, blocking on the engine's thread, which owns torch's workers, with oneDNN off. A
    cancelled run ends within a step."""

    name = ""

    def __init__(self, service: Service, hosted: HostedModel) -> None:
        self._service, self._hosted = service, hosted
        self._cancelled = threading.Event()

    async def run(self, specs: Sequence[PromptSpec], at_once: int | None = None) -> Run:
        future = asyncio.wrap_future(self._service.on_engine(lambda _: self._run_without_onednn(specs, at_once)))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._cancelled.set()
            with suppress(_Cancelled):
                await future
            self._cancelled.clear()
            raise

    def _run_without_onednn(self, specs: Sequence[PromptSpec], at_once: int | None) -> Run:
        with without_onednn(self._hosted.model):
            return self._run(specs, at_once)

    @abstractmethod
    def _run(self, specs: Sequence[PromptSpec], at_once: int | None) -> Run:
        """Answer the requests on the engine's thread."""

    @torch.inference_mode()
    def _generate(self, specs: Sequence[PromptSpec]) -> None:
        """One call of `generate`: left-padded prompts, and as many tokens as the longest answer needs."""
        longest = max(len(spec.ids) for spec in specs)
        ids = torch.zeros(len(specs), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, spec in enumerate(specs):
            ids[row, longest - len(spec.ids) :] = torch.tensor(spec.ids)
            mask[row, longest - len(spec.ids) :] = 1
        config = _greedy(max(spec.tokens for spec in specs))
        device = self._hosted.device
        self._hosted.model.generate(
            ids.to(device),
            attention_mask=mask.to(device),
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([self._check]),
        )

    def _check(self, ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Stopping criterion for transformers that never stops, but raises once the run is cancelled."""
        if self._cancelled.is_set():
            raise _Cancelled
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


class OneByOne(_Peer):
    """Sequential `generate`, on a few of the requests only: all would take most of a run."""

    name = "transformers generate, one by one"

    def _run(self, specs: Sequence[PromptSpec], at_once: int | None) -> Run:
        few = specs[:ALONE]
        return _timed(lambda: [self._generate([spec]) for spec in few], few)


class StaticBatches(_Peer):
    name = "transformers generate, batches"

    def _run(self, specs: Sequence[PromptSpec], at_once: int | None) -> Run:
        size = at_once or len(specs)
        return _timed(lambda: [self._generate(specs[i : i + size]) for i in range(0, len(specs), size)], specs)


class ContinuousBatching(_Peer):
    """transformers' continuous batching. The manager is made and warmed up before timing; afterwards the model's
    attention is restored."""

    name = "transformers continuous batching"

    def _run(self, specs: Sequence[PromptSpec], at_once: int | None) -> Run:
        model = self._hosted.model
        attention = model.config._attn_implementation
        manager = model.init_continuous_batching(
            generation_config=_greedy(max(spec.tokens for spec in specs)),
            continuous_batching_config=ContinuousBatchingConfig(num_blocks=_blocks(specs)),
        )
        try:
            manager.start()
            self._serve(manager, [PromptSpec(spec.prompt, spec.ids, WARM_TOKENS) for spec in specs[:2]], None)
            return _timed(lambda: self._serve(manager, specs, at_once), specs)
        finally:
            manager.stop(block=True)
            model.set_attn_implementation(attention)

    def _serve(self, manager: Any, specs: Sequence[PromptSpec], at_once: int | None) -> None:
        waiting = list(reversed(specs))
        under_way = done = 0
        while done < len(specs):
            while waiting and under_way < (at_once or len(specs)):
                spec = waiting.pop()
                manager.add_request(list(spec.ids), max_new_tokens=spec.tokens)
                under_way += 1
            result = manager.get_result(timeout=1)
            if self._cancelled.is_set():
                raise _Cancelled
            if result is None and not manager.is_running():
                raise RuntimeError("transformers' continuous batching ended by itself: its error is above.")
            if result is not None and result.is_finished():
                done, under_way = done + 1, under_way - 1


def _blocks(specs: Sequence[PromptSpec]) -> int:
    """Number of cache blocks that hold all requests at once, with slack: by default transformers takes nine tenths of
    the machine's memory."""
    return 4 + 2 * sum(-(-(len(spec.ids) + spec.tokens) // PAGE) for spec in specs)


def _greedy(tokens: int) -> Any:
    config: Any = GenerationConfig  # untyped
    return config(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0, use_cache=True)


def _timed(work: Callable[[], Any], specs: Sequence[PromptSpec]) -> Run:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Run(time.perf_counter() - began, tokens_of(specs))
