"""Comparison with vLLM: both servers run as separate processes, and the same clients send the same prompts over HTTP,
in turn.

vLLM runs from its own Python environment, as its pinned dependencies conflict with this project's. While one server is
measured the other is suspended: a spinning thread of it would take a core. With live edits, this server is measured on
prompts that none of them answers, and on others of the same length that they answer, token by token to the end; vLLM
is asked both. Prompts are new in every round: no cache knows them, neither of prefixes nor of decisions.
"""

import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from transformers import AutoTokenizer

from app.bench.budget import TimeBudget, shrunk
from app.bench.comparison import OnMessage, RoundResults, format_speed, ignore, size, take_turns
from app.bench.contestants import OverHttp
from app.bench.crowded import Crowd, crowd
from app.bench.processes import ServerProcess, free_port
from app.bench.timing import Run, median_run, times_as_good
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
MAX_TOKENS = 512
"""Maximum tokens of a sequence in vLLM, whose memory must fit next to the other server."""
HELD_STILL_S = 3600
LEAST_REQUESTS = 4
"""The least requests of a run, however few clients share them: a percentile of one answer says nothing."""
CHECKED = 8
"""The number of edits that are asked, before anything is timed, whether they answer."""
BLOCK = 128
"""Tokens of a block of keys and values in vLLM on a CPU, where blocks are largest: a sequence takes whole ones."""
OURS, THEIRS, EDITED, THEIRS_TOO = "errata", "vllm", "errata, edited", "vllm, the same prompts"
"""The contestants. Each of ours is compared with the one of vLLM that is asked the same."""


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


class EditedPrompts:
    """Prompts that edits answer, each of which is asked in one round only."""

    def __init__(self, crowd: Crowd, workload: Workload) -> None:
        self._unasked, self._target, self._text = iter(crowd.hits), crowd.target, workload.text

    def take(self, count: int) -> list[PromptSpec]:
        """The next prompts."""
        return list(islice(self._unasked, count))

    def given(self, run: Run) -> int:
        """The number of a run's answers that are their edit's target, as far as they go: an edit acts on a token only
        while all before it are its target's."""
        expected = self._text(self._target[: run.tokens // len(run.requests)]).strip()
        return sum(each.text.strip() == expected for each in run.requests)

    async def check(self, errata: OverHttp) -> str:
        """Asks some prompts, which are not asked again. Returns how many were answered by edits to the end. Raises
        InvalidRequest if none was."""
        specs = self.take(CHECKED)
        run = await errata.run(specs)
        if not (given := self.given(run)):
            raise InvalidRequest(
                f"No edit answered any of {len(specs)} prompts to the end, so that edited answers cannot be measured. "
                f"{specs[0].prompt!r} was answered by {run.requests[0].text!r}."
            )
        return f"edits gave {given} of {len(specs)} answers to the end"


@asynccontextmanager
async def running_servers(
    settings: Settings, python: str, arguments: str, rounds: int, seed: int, on_step: OnMessage, figure: OnMessage,
    pace: TimeBudget, edits: int = 0, clients: Sequence[int] = CLIENTS,
) -> AsyncIterator[VllmBench]:  # fmt: skip
    """Starts the servers one after the other, each with the whole machine. `edits`: how many of them this server has,
    of which as many answer prompts as all rounds ask. Raises InvalidRequest where this server cannot hold all clients'
    requests at once."""
    if (most := max(clients)) > settings.slots:
        raise InvalidRequest(
            f"This server answers {settings.slots} requests at once, and {most} clients are to be measured: set "
            f"ERRATA_SLOTS={most}, or name fewer --clients."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(_folder(settings))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"No tokenizer can be read from {settings.model}: {error}") from error
    with TemporaryDirectory() as folder:
        store, live = "memory://", None
        if edits:
            on_step(f"{edits:,} edits into the log")
            store = f"sqlite:///{Path(folder) / 'errata.db'}"
            live = _crowded(settings, store, edits, edits_asked(clients, rounds), seed)
        errata, vllm = _errata(settings, store), vllm_server(settings, python, arguments)
        workload = Workload(tokenizer, generic_texts(settings), seed)
        try:
            await errata.start(on_step)
            async with httpx.AsyncClient(base_url=errata.url, trust_env=False) as client:
                check_room((await client.get("/readyz")).json()["extra"], most)
            with errata.suspended():
                await vllm.start(on_step)
            yield VllmBench(errata, vllm, workload, rounds, on_step, figure, pace, crowd=live, clients=clients)
        finally:
            await errata.end()
            await vllm.end()


def requests_of(clients: int) -> int:
    """The requests of a run."""
    return max(clients, LEAST_REQUESTS)


def edits_asked(clients: Sequence[int], rounds: int) -> int:
    """The edits that answer, each once: those that are checked, and those of all rounds, with one to learn the speed
    and one to warm up."""
    return CHECKED + sum(requests_of(each) * (rounds + 2) for each in clients)


def check_room(room: Mapping[str, Any], clients: int) -> None:
    """Raises InvalidRequest where a server with this room cannot hold the requests of all clients at once: some would
    wait for others, and the time that they wait would be taken for its speed."""
    tokens = -(-(PROMPT + ANSWER) // BLOCK) * BLOCK * clients
    if room["slots"] < clients or room["room_tokens"] < tokens:
        raise InvalidRequest(
            f"This server has room for {room['slots']} requests and {room['room_tokens']:,} tokens of keys and values "
            f"at once, and {clients} clients need {tokens:,}: raise ERRATA_SLOTS or ERRATA_KV_MEMORY_FRACTION, or name "
            "fewer --clients."
        )


async def beside_vllm(bench: VllmBench) -> dict[str, Any]:
    """Both servers' speeds and times by number of clients, and how they compare. Raises InvalidRequest if the prompts
    that edits are to answer are not answered by them."""
    measured: dict[str, Any] = {}
    path, marker, live = "/v1/completions", '"text":', bench.crowd
    namespace = "default" if live is None else list(live.namespaces.values())[-1]
    edited = None if live is None else EditedPrompts(live, bench.workload)
    errata, vllm = (
        OverHttp(server.url, name, path, marker, body, texts=edited is not None)
        for server, name, body in (
            (bench.errata, OURS, lambda spec: _body(spec) | {"namespace": namespace}),
            (bench.vllm, THEIRS, lambda spec: _body(spec) | {"model": NAME}),
        )
    )

    async def part(clients: int, share: float) -> None:
        specs = bench.workload.even(requests_of(clients), PROMPT, ANSWER)
        fresh = _by_round(lambda: bench.workload.even(len(specs), PROMPT, ANSWER))

        def way(
            contestant: OverHttp, other: ServerProcess, prompts: Callable[[int], list[PromptSpec]]
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
            measured[str(clients)] = _compared(turns, edited) | size(turns, specs, clients)
            bench.keep(measured)

        bench.on_step(f"{clients} clients")
        ways = {OURS: way(errata, bench.vllm, fresh), THEIRS: way(vllm, bench.errata, fresh)}
        if edited is not None:
            hits = _by_round(lambda: edited.take(len(specs)))
            ways |= {EDITED: way(errata, bench.vllm, hits), THEIRS_TOO: way(vllm, bench.errata, hits)}
        await take_turns(
            bench, ways, lambda scale: float(tokens_of(shrunk(specs, scale, clients))), format_speed, keep, share
        )

    if edited is not None:
        bench.on_step(f"{CHECKED} edits are asked whether they answer")
        with bench.vllm.suspended():
            bench.figure(await edited.check(errata))
    for number, clients in enumerate(bench.clients):
        await part(clients, 1 / (len(bench.clients) - number))
    return measured


def _compared(turns: RoundResults[Run], edited: EditedPrompts | None) -> dict[str, Any]:
    """The median run of each contestant, and how those of this server compare with vLLM's on the same prompts. An
    unfinished round counts for those that ran."""
    runs = {name: each for name, each in turns.runs.items() if each}
    pairs = [(ours, theirs) for ours, theirs in ((OURS, THEIRS), (EDITED, THEIRS_TOO)) if theirs in runs]
    comparison: dict[str, Any] = {
        "runs": {name: median_run(each).figures() for name, each in runs.items()},
        "times_as_good_as_vllm": {ours: times_as_good(runs[ours], runs[theirs]) for ours, theirs in pairs},
    }
    if edited is not None and EDITED in runs:
        given, answers = (sum(map(of, runs[EDITED])) for of in (edited.given, lambda run: len(run.requests)))
        comparison["given_by_edits"] = [given, answers]
    return comparison


def _by_round(draw: Callable[[], list[PromptSpec]]) -> Callable[[int], list[PromptSpec]]:
    """Number of a round -> its prompts, drawn once for all that are asked them."""
    drawn: list[list[PromptSpec]] = []

    def of(number: int) -> list[PromptSpec]:
        if number == len(drawn):
            drawn.append(draw())
        return drawn[number]

    return of


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
    """Fills a log with edits, of which two were fitted and `hits` answer prompts."""
    log = open_log(store)
    try:
        inside = settings.model_copy(update={"engine": "transformers", "judge": "off"})
        service = assemble(load(inside), log, inside, bank=load_bank())
        fingerprint = service.status().model_fingerprint
        return crowd(
            service.engine, log, fingerprint, [edits], hits=hits, tokens=ANSWER, seed=seed, prompt=PROMPT, learned=True
        )
    finally:
        log.close()


def _errata(settings: Settings, store: str) -> ServerProcess:
    port = free_port()
    command = [
        sys.executable, "-m", "app.cli", "serve", "--model", settings.model, "--device", settings.device,
        "--dtype", dtype_of(settings), "--store", store, "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    # while another server is measured, this one and its vLLM are held still together, and neither hangs
    return ServerProcess("errata", command, port, "/readyz", {"ERRATA_VLLM_DEADLINE_S": str(HELD_STILL_S)})


def vllm_server(settings: Settings, python: str, arguments: str) -> ServerProcess:
    port = free_port()
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", _folder(settings), "--served-model-name", NAME,
        "--dtype", dtype_of(settings), "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(MAX_TOKENS),
        *shlex.split(arguments),
    ]  # fmt: skip
    environment = {"VLLM_CPU_KVCACHE_SPACE": "2"} if pick_device(settings.device).type == "cpu" else {}
    return ServerProcess("vllm", command, port, "/health", {"VLLM_NO_USAGE_STATS": "1", **environment})
