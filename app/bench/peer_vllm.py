"""Comparison with vLLM: both servers run as separate processes, and the same clients send the same prompts over HTTP,
in turn.

vLLM runs from its own Python environment, as its pinned dependencies conflict with this project's. While one server is
measured the other is suspended: a spinning thread of it would take a core.
"""

import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from transformers import AutoTokenizer

from app.bench.budget import TimeBudget, shrunk
from app.bench.comparison import OnMessage, RoundResults, figures, format_speed, ignore, size, take_turns
from app.bench.contestants import OverHttp
from app.bench.processes import ServerProcess, free_port
from app.bench.timing import Run
from app.bench.workload import PromptSpec, Workload, tokens_of
from app.bootstrap import generic_texts
from app.config import DEMO_MODEL, Settings
from app.domain.errors import InvalidRequest
from app.engine.model import pick_device, pick_dtype

CLIENTS = (1, 4, 16)
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
    tell: OnMessage
    figure: OnMessage
    pace: TimeBudget
    keep: Callable[[dict[str, Any]], None] = ignore

    async def vllm_version(self) -> str:
        async with httpx.AsyncClient(base_url=self.vllm.url, trust_env=False) as client:
            return str((await client.get("/version")).json()["version"])


@asynccontextmanager
async def running_servers(
    settings: Settings, python: str, arguments: str, rounds: int, seed: int, tell: OnMessage, figure: OnMessage,
    pace: TimeBudget,
) -> AsyncIterator[VllmBench]:  # fmt: skip
    """Starts the servers one after the other, each with the whole machine."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(_folder(settings))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"No tokenizer can be read from {settings.model}: {error}") from error
    errata, vllm = _errata(settings), _vllm(settings, python, arguments)
    workload = Workload(tokenizer, generic_texts(settings), seed)
    try:
        await errata.start(tell)
        with errata.suspended():
            await vllm.start(tell)
        yield VllmBench(errata, vllm, workload, rounds, tell, figure, pace)
    finally:
        await errata.end()
        await vllm.end()


async def beside_vllm(bench: VllmBench) -> dict[str, Any]:
    """Tokens per second by number of clients. Every round has fresh prompts, so that no prefix cache knows them."""
    found: dict[str, Any] = {}
    errata = OverHttp(bench.errata.url, "errata", "/v1/completions", '"text":', _body)
    vllm = OverHttp(bench.vllm.url, "vllm", "/v1/completions", '"text":', _body_with_model)

    async def part(clients: int, share: float) -> None:
        asked = bench.workload.even(2 * clients if clients == 1 else clients, PROMPT, ANSWER)
        rounds: dict[str, list[list[PromptSpec]]] = {"prompts": []}
        taken = {"errata": 0, "vllm": 0}

        def way(contestant: OverHttp, other: ServerProcess) -> Callable[[float], Awaitable[Run]]:
            async def run(scale: float) -> Run:
                number = taken[contestant.name]
                taken[contestant.name] += 1
                if number == len(rounds["prompts"]):
                    rounds["prompts"].append(bench.workload.even(len(asked), PROMPT, ANSWER))
                some = shrunk(rounds["prompts"][number], scale, clients)
                with other.suspended():
                    found = await contestant.run(some, clients)
                if found.tokens != tokens_of(some):
                    raise RuntimeError(f"{contestant.name} answered {found.tokens} tokens, not {tokens_of(some)}.")
                return found

            return run

        def keep(turns: RoundResults[Run]) -> None:
            found[str(clients)] = figures(turns) | size(turns, asked, clients)
            bench.keep(found)

        bench.tell(f"{clients} clients")
        ways = {"errata": way(errata, bench.vllm), "vllm": way(vllm, bench.errata)}
        await take_turns(
            bench, ways, lambda scale: float(tokens_of(shrunk(asked, scale, clients))), format_speed, keep, share
        )

    for number, clients in enumerate(CLIENTS):
        await part(clients, 1 / (len(CLIENTS) - number))
    return found


def _body(ask: PromptSpec) -> dict[str, Any]:
    return {
        "prompt": ask.prompt,
        "max_tokens": ask.tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _body_with_model(ask: PromptSpec) -> dict[str, Any]:
    return _body(ask) | {"model": NAME}


def _folder(settings: Settings) -> str:
    return str(DEMO_MODEL) if settings.model == "demo" else settings.model


def dtype_of(settings: Settings) -> str:
    return str(pick_dtype(settings.dtype, pick_device(settings.device))).removeprefix("torch.")


def _errata(settings: Settings) -> ServerProcess:
    port = free_port()
    command = [
        sys.executable, "-m", "app.cli", "serve", "--model", settings.model, "--device", settings.device,
        "--dtype", dtype_of(settings), "--store", "memory://", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    return ServerProcess("errata", command, port, "/readyz", {})


def _vllm(settings: Settings, python: str, arguments: str) -> ServerProcess:
    port = free_port()
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", _folder(settings), "--served-model-name", NAME,
        "--dtype", dtype_of(settings), "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(MAX_TOKENS),
        *shlex.split(arguments),
    ]  # fmt: skip
    environment = {"VLLM_CPU_KVCACHE_SPACE": "2"} if pick_device(settings.device).type == "cpu" else {}
    return ServerProcess("vllm", command, port, "/health", {"VLLM_NO_USAGE_STATS": "1", **environment})
