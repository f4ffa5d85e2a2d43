"""`errata bench`: how fast the server is on this machine, beside transformers in the same run. Imports torch, late."""

import asyncio
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from app.cli import render
from app.cli.fit import Device, Dtype, Model, told
from app.cli.progress import Progress
from app.cli.settings import read_settings
from app.cli.stopping import Stopping

if TYPE_CHECKING:
    from app.config import Settings
    from app.engine.model import HostedModel

RESULTS, PICTURE, TABLES = "bench.json", "bench.svg", "bench.md"
MINUTES = 5.0
SECTIONS = ("peers", "decode", "concurrency", "http", "edits", "editing", "fits", "roofline")


def bench(
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json, bench.md and bench.svg.")] = None,
    section: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(SECTIONS)}; may be repeated. [default: all]")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Random weights in place of --model: 47m, 1b or 8b, which are Llamas.")
    ] = None,
    edits: Annotated[
        list[int], typer.Option(min=32, help="Numbers of live edits to compare with none; may be repeated.")
    ] = [100, 10_000],  # noqa: B006
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each contestant that count; figures are medians.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the prompts and their lengths.")] = 0,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="For all of it, loading included: answers and rounds are cut to fit.")
    ] = MINUTES,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Measure throughput and latency: against transformers, by concurrency, over HTTP, among live edits, while editing.

    Contestants take turns in one process, so that ratios hold on a machine that others disturb. Nothing is stored.
    Figures are written to --out as they come; Ctrl-C ends the run with those that are there.
    """
    chosen = tuple(section or SECTIONS)
    if wrong := [name for name in chosen if name not in SECTIONS]:
        render.fail(f"There is no section {wrong[0]!r}: it is one of {', '.join(SECTIONS)}.")
    given = {"model": model, "device": device, "dtype": dtype}
    settings = read_settings({name: value for name, value in given.items() if value is not None})
    with told(), Stopping() as stopping:
        asyncio.run(_run(settings, shape, chosen, edits, rounds, seed, out, minutes, stopping))


async def _run(
    settings: "Settings",
    shape: str | None,
    chosen: tuple[str, ...],
    edits: list[int],
    rounds: int,
    seed: int,
    out: Path | None,
    minutes: float,
    stopping: Stopping,
) -> None:
    """Each figure is told and kept as it comes: a run may be long, and is not to be lost."""
    from transformers.utils import logging

    from app.bench.budget import Pace
    from app.bench.report import incomplete
    from app.bench.sections import UNDER_WAY, run_sections
    from app.bench.standing_up import standing

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    pace = Pace(60 * minutes)
    began = pace.clock()
    with Progress() as progress:
        counts = sorted(set(edits)) if "edits" in chosen else []
        async with standing(settings, shape, counts, rounds, seed, progress.tell, progress.figure, pace) as measured:
            results = _about(measured.hosted, measured.service.status().extra["threads"]) | {"minutes": minutes}

            def begins(name: str) -> None:
                progress.part = name

            def keep(name: str, found: dict[str, Any], why: str | None) -> None:
                results["seconds"] = round(pace.clock() - began, 1)
                results["sections"] |= {name: found} if found else {}
                results["incomplete"] = {k: v for k, v in results["incomplete"].items() if k != name}
                if why is not None:
                    results["incomplete"][name] = why
                if out is not None:
                    _keep(results, out)
                if found and why != UNDER_WAY:
                    _show({"sections": {name: found}})

            async def work() -> None:
                await measured.learn_speed()
                await run_sections(measured, chosen, keep, begins)

            await stopping.run(work())
            progress.part = ""
            if stopping.number is not None:
                results["stopped"] = stopping.number.name
            for line in incomplete(results):
                typer.echo(line)
            if out is not None:
                _keep(results, out)
                _draw(results, out)
                typer.echo(f"{out / RESULTS}, {out / TABLES} and {out / PICTURE} hold all of it.")
            if stopping.number is not None:
                typer.echo(f"Stopped by {stopping.number.name}: the run is incomplete.")
            stopping.end()


def _about(model: "HostedModel", threads: int) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["errata", *sys.argv[1:]]),
        "model": f"{model.name} ({model.parameters / 1e6:,.0f} M parameters, {str(model.dtype)[6:]})",
        "machine": _machine(model.device, threads),
        "sections": {},
        "incomplete": {},
    }


def _machine(device: Any, threads: int) -> dict[str, Any]:
    import torch
    import transformers

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "description": gpu or f"{threads} CPU threads ({platform.machine()})",
        "device": str(device),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _show(results: dict[str, Any]) -> None:
    from app.bench.report import tables

    for headings, rows in tables(results):
        table = Table(headings[0], box=None, pad_edge=False, header_style="bold")
        for name in headings[1:]:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*row)
        render.out().print(table, "")


def _keep(results: dict[str, Any], out: Path) -> None:
    """Files are replaced whole: a kill leaves the old or the new."""
    from app.bench.report import markdown

    out.mkdir(parents=True, exist_ok=True)
    for name, text in ((RESULTS, json.dumps(results, indent=1)), (TABLES, markdown(results))):
        part = out / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(out / name)


def _draw(results: dict[str, Any], out: Path) -> None:
    """Once, at the end: it takes the time of a measurement."""
    from app.bench.report import draw

    draw(results, out / PICTURE)
