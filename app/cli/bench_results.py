"""The results of a bench, shown as tables and kept in files, which are replaced as a whole with each new figure."""

import json
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from app.cli import render
from app.cli.interruption import Interruption

RESULTS, PICTURE, TABLES = "bench.json", "bench.svg", "bench.md"


class BenchResults:
    """The results of one run. `model` is the line that names the model, `machine` describes the hardware and libraries,
    and `clock` returns the seconds since the run's start."""

    def __init__(
        self,
        out: Path | None,
        chosen: Sequence[str],
        minutes: float,
        clock: Callable[[], float],
        model: str,
        machine: dict[str, Any],
    ) -> None:
        self._out, self._clock = out, clock
        self.results: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "command": " ".join(["errata", *sys.argv[1:]]),
            "model": model,
            "machine": machine,
            "minutes": minutes,
            "sections": {},
            "incomplete": dict.fromkeys(chosen, "it was not begun"),
        }

    def keep(self, name: str, figures: dict[str, Any], why: str | None) -> None:
        """Keep a section's figures so far. `why` says why they are incomplete; None if they are complete."""
        from app.bench.sections import UNDER_WAY

        self.results["seconds"] = round(self._clock(), 1)
        self.results["sections"] |= {name: figures} if figures else {}
        others = {other: reason for other, reason in self.results["incomplete"].items() if other != name}
        self.results["incomplete"] = others | ({} if why is None else {name: why})
        self._write()
        if figures and why != UNDER_WAY:
            show({"sections": {name: figures}})

    def end(self, stopping: Interruption) -> None:
        """Write the files and draw the picture last, because drawing takes as long as a measurement."""
        from app.bench.report import draw, incomplete

        if stopping.number is not None:
            self.results["stopped"] = stopping.number.name
        self._write()
        for line in incomplete(self.results):
            render.say(line)
        if self._out is not None:
            draw(self.results, self._out / PICTURE)
            where = self._out
            render.say(f"{where / RESULTS}, {where / TABLES} and {where / PICTURE} hold all of it.")
        if stopping.number is not None:
            render.say(f"Stopped by {stopping.number.name}: the run is incomplete.")
        if render.AS_JSON.get():
            render.as_json(self.results)
        stopping.end()

    def _write(self) -> None:
        """Write the files, each replaced as a whole, so that a kill leaves the old or the new one."""
        from app.bench.report import markdown

        if self._out is None:
            return
        self._out.mkdir(parents=True, exist_ok=True)
        for name, text in ((RESULTS, json.dumps(self.results, indent=1)), (TABLES, markdown(self.results))):
            part = self._out / f"{name}.part"
            part.write_text(text, encoding="utf-8")
            part.replace(self._out / name)


def machine(device: Any, threads: int) -> dict[str, Any]:
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


def show(results: dict[str, Any]) -> None:
    from app.bench.report import tables

    for headings, rows in tables(results):
        table = Table(headings[0], box=None, pad_edge=False, header_style="bold")
        for name in headings[1:]:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*row)
        render.out().print(table, "")
