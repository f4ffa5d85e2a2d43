"""Comparison with vLLM: both servers run as separate processes, and the same clients send the same prompts over HTTP,
in turn.

vLLM runs from its own Python environment, as its pinned dependencies conflict with this project's. While one server is
measured the other is suspended: a spinning thread of it would take a core. With live edits, this server is measured on
prompts that none of them answers, and on others that they answer.
"""

import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from transformers import AutoTokenizer

from app.bench.budget import TimeBudget, shrunk
from app.bench.comparison import OnMessage, RoundResults, figures, format_speed, ignore, size, take_turns
from app.bench.contestants import OverHttp
from app.bench.crowded import Crowd, crowd
from app.bench.processes import ServerProcess, free_port
from app.bench.timing import Run
from app.bench.workload import PromptSpec, Workload, tokens_of
from app.bootstrap import assemble, generic_texts, load
from app.config import DEMO_MODEL, Settings
from app.domain.errors import InvalidRequest
from app.engine.model import pick_device, pick_dtype
from app.scope.bank import load_bank
from app.store.open import open_log

CLIENTS = (1, 4, 16)
"""The numbers of clients that are measured unless others are asked for."""
PROMPT, ANSWER = 32, 64
NAME = "errata-bench"
MAX_TOKENS = 1024
"""Maximum tokens of a sequence in vLLM, whose memory must fit next to the other server."""


@dataclass(frozen=True, slots=True)
class VllmBench:
    """Both servers, ready to be measured. The other fields are those of a Bench."""

    errata: ServerProcess
    vllm: ServerProcess
    workload: Workload
    rounds: int
    on_step: OnMessage
    figure: OnMessage
    pace: TimeBudget
    keep: Callable[[dict[str, Any]], None] = ignore
    crowd: Crowd | None = None
    clients: Sequence[int] = CLIENTS

    async def vllm_version(self) -> str:
        async with httpx.AsyncClient(base_url=self.vllm.url, trust_env=False) as client:
            return str((await client.get("/version")).json()["version"])


@asynccontextmanager
async def running_servers(
    settings: Settings, python: str, arguments: str, rounds: int, seed: int, on_step: OnMessage, figure: OnMessage,
    pace: TimeBudget, edits: int = 0, clients: Sequence[int] = CLIENTS,
) -> AsyncIterator[VllmBench]:  # fmt: skip
    """Starts the servers one after the other, each with the whole machine. `edits`: how many of them this server has,
    of which as many answer prompts as there are clients at most."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(_folder(settings))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"No tokenizer can be read from {settings.model}: {error}") from error
    with TemporaryDirectory() as folder:
        store, live = "memory://", None
        if edits:
            on_step(f"{edits:,} edits into the log")
            store = f"sqlite:///{Path(folder) / 'errata.db'}"
            live = _crowded(settings, store, edits, max(clients), seed)
        errata, vllm = _errata(settings, store), vllm_server(settings, python, arguments)
        workload = Workload(tokenizer, generic_texts(settings), seed)
        try:
            await errata.start(on_step)
            with errata.suspended():
                await vllm.start(on_step)
            yield VllmBench(errata, vllm, workload, rounds, on_step, figure, pace, crowd=live, clients=clients)
        finally:
            await errata.end()
            await vllm.end()


async def beside_vllm(bench: VllmBench) -> dict[str, Any]:
    """Tokens per second by number of clients. Every round has fresh prompts, so that no prefix cache knows them."""
    measured: dict[str, Any] = {}
    path, marker, live = "/v1/completions", '"text":', bench.crowd
    namespace = "default" if live is None else list(live.namespaces.values())[-1]
    errata = OverHttp(bench.errata.url, "errata", path, marker, lambda spec: _body(spec) | {"namespace": namespace})
    vllm = OverHttp(bench.vllm.url, "vllm", path, marker, lambda spec: _body(spec) | {"model": NAME})

    async def part(clients: int, share: float) -> None:
        specs = bench.workload.even(2 * clients if clients == 1 else clients, PROMPT, ANSWER)
        rounds: list[list[PromptSpec]] = []

        def fresh(number: int) -> list[PromptSpec]:
            if number == len(rounds):
                rounds.append(bench.workload.even(len(specs), PROMPT, ANSWER))
            return rounds[number]

        def way(
            contestant: OverHttp, other: ServerProcess, prompts: Callable[[int], list[PromptSpec]] = fresh
        ) -> Callable[[float], Awaitable[Run]]:
            numbers = count()

            async def run(scale: float) -> Run:
                some = shrunk(prompts(next(numbers)), scale, clients)
                with other.suspended():
                    timed = await contestant.run(some, clients)
                if timed.tokens != tokens_of(some):
                    raise RuntimeError(f"{contestant.name} answered {timed.tokens} tokens, not {tokens_of(some)}.")
                return timed

            return run

        def keep(turns: RoundResults[Run]) -> None:
            measured[str(clients)] = figures(turns) | size(turns, specs, clients)
            bench.keep(measured)

        bench.on_step(f"{clients} clients")
        ways = {"errata": way(errata, bench.vllm), "vllm": way(vllm, bench.errata)}
        if live is not None:
            ways["errata, edited"] = way(errata, bench.vllm, lambda _: live.hits[: len(specs)])
        await take_turns(
            bench, ways, lambda scale: float(tokens_of(shrunk(specs, scale, clients))), format_speed, keep, share
        )

    for number, clients in enumerate(bench.clients):
        await part(clients, 1 / (len(bench.clients) - number))
    return measured


def _body(spec: PromptSpec) -> dict[str, Any]:
    return {
        "prompt": spec.prompt,
        "max_tokens": spec.tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _folder(settings: Settings) -> str:
    return str(DEMO_MODEL) if settings.model == "demo" else settings.model


def dtype_of(settings: Settings) -> str:
    return str(pick_dtype(settings.dtype, pick_device(settings.device))).removeprefix("torch.")


def _crowded(settings: Settings, store: str, edits: int, hits: int, seed: int) -> Crowd:
    """Fills a log with edits, of which one was fitted and `hits` answer prompts."""
    log = open_log(store)
    try:
        inside = settings.model_copy(update={"engine": "transformers", "judge": "off"})
        service = assemble(load(inside), log, inside, bank=load_bank())
        fingerprint = service.status().model_fingerprint
        return crowd(service.engine, log, fingerprint, [edits], hits=hits, tokens=ANSWER, seed=seed)
    finally:
        log.close()


def _errata(settings: Settings, store: str) -> ServerProcess:
    port = free_port()
    command = [
        sys.executable, "-m", "app.cli", "serve", "--model", settings.model, "--device", settings.device,
        "--dtype", dtype_of(settings), "--store", store, "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    return ServerProcess("errata", command, port, "/readyz", {})


def vllm_server(settings: Settings, python: str, arguments: str) -> ServerProcess:
    port = free_port()
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", _folder(settings), "--served-model-name", NAME,
        "--dtype", dtype_of(settings), "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(MAX_TOKENS),
        *shlex.split(arguments),
    ]  # fmt: skip
    environment = {"VLLM_CPU_KVCACHE_SPACE": "2"} if pick_device(settings.device).type == "cpu" else {}
    return ServerProcess("vllm", command, port, "/health", {"VLLM_NO_USAGE_STATS": "1", **environment})
