"""`errata fit`, `errata import`, `errata prepare`: edits learned away from a server. Imports torch late."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from app.cli import render
from app.cli.exits import Exit
from app.cli.options import Json, TargetStore
from app.cli.serve import started_service
from app.cli.settings import read_settings
from app.cli.store import new_file, opened
from app.domain.edit import Edit, EditRequest
from app.domain.errors import ErrataError, InvalidRequest
from app.domain.events import Origin
from app.store import upkeep

if TYPE_CHECKING:
    from app.service.service import Service

Model = Annotated[str | None, typer.Option(help="A folder, GGUF file or hub name, `smollm2` or `demo`.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or auto.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or auto.")]


def fit(
    context: typer.Context,
    edits: Annotated[Path, typer.Argument(help="A JSON body of POST /edit a line.", exists=True, dir_okay=False)],
    file: Annotated[Path, typer.Argument(help="A new file for the fitted edits.", dir_okay=False)],
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Edits that are fitted together.")] = 1,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    json_: Json = False,
) -> None:
    """Fit and verify edits on this machine, without a server. What holds goes into FILE, for `errata import`."""
    requests = read_requests(edits)
    refused: list[tuple[EditRequest, ErrataError]] = []
    origin = Origin(actor=context.obj.actor, reason=f"errata fit {edits.name}")

    async def work(service: "Service") -> None:
        with Progress(transient=True, console=Console(stderr=True)) as progress:
            task = progress.add_task("Fitting", total=len(requests))
            for first in range(0, len(requests), batch):
                some = requests[first : first + batch]
                try:
                    await service.edit(some, origin, batch=len(some) > 1)
                except ErrataError as error:
                    refused.extend((request, error) for request in some)
                progress.advance(task, len(some))
        if len(refused) < len(requests):
            with new_file(file) as new:
                await asyncio.to_thread(upkeep.copy, service.records.log, new)

    run_service(work, {"store": "memory://", "model": model, "device": device, "dtype": dtype})
    hold = len(requests) - len(refused)
    summary = {"edits": len(requests), "hold": hold, "file": str(file) if hold else None}
    _end(
        summary, f"{hold} of {len(requests)} edits hold" + (f" and are in {file}" if hold else ""), refused, json_=json_
    )


def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file that `errata fit` wrote.", exists=True, dir_okay=False)],
    store: TargetStore = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    json_: Json = False,
) -> None:
    """Verify fitted edits on the model that is served, among the edits that are live, and commit those that hold.

    Writes to the log itself: servers over it follow. An edit that is there already is left as it is.
    """
    groups = read_fitted(file)
    total = sum(map(len, groups))
    origin = Origin(actor=context.obj.actor, reason=f"errata import {file.name}")
    done: list[int] = []
    refused: list[tuple[Edit, ErrataError]] = []

    async def work(service: "Service") -> None:
        from app.editors.base import Fitted
        from app.editors.packing import unpack

        with Progress(transient=True, console=Console(stderr=True)) as progress:
            task = progress.add_task("Verifying", total=total)
            for group in groups:
                try:
                    service.check_fitted(group)
                    fitted = [
                        (e.request, e.editor_key, Fitted(learned=e.learned, tensors=unpack(e.tensors))) for e in group
                    ]
                    results = await service.adopt(fitted, origin)
                    done.append(sum(result.created for result in results.results))
                except ErrataError as error:
                    refused.extend((edit, error) for edit in group)
                progress.advance(task, len(group))

    run_service(work, {"store": store, "model": model, "device": device, "dtype": dtype})
    existing = total - len(refused) - sum(done)
    summary = {"edits": total, "live": sum(done), "stood_already": existing}
    text = f"{sum(done)} of {total} edits are live" + (f", {existing} were there already" if existing else "")
    _end(summary, text, [(edit.request, error) for edit, error in refused], json_=json_)


def _end(
    summary: dict[str, Any], text: str, refused: Sequence[tuple[EditRequest, ErrataError]], *, json_: bool
) -> None:
    """Report what was done and what was refused; exits with 6 if anything was refused."""
    if json_:
        reasons = [{"prompt": each.prompt, "target": each.target, "why": error.message} for each, error in refused]
        render.as_json(summary | {"refused": reasons})
    else:
        for each, error in refused:
            typer.echo(f"refused: {each.prompt!r} -> {each.target!r}: {error.message}", err=True)
        render.say(text)
    if refused:
        raise typer.Exit(int(Exit.REFUSED))


def prepare(model: Model = None, device: Device = None, dtype: Dtype = None, json_: Json = False) -> None:
    """Compute the editors' statistics of generic text (ERRATA_CORPUS) on this model, and keep them for the next
    start."""

    async def work(service: "Service") -> None:
        tasks: dict[str, Any] = {}
        with Progress(console=Console(stderr=True)) as progress:
            async for key, step in service.prepare():
                if key not in tasks:
                    tasks[key] = progress.add_task(key, total=step.steps)
                progress.update(tasks[key], completed=step.step)
        render.answer({"prepared": sorted(tasks)}, f"Prepared for: {', '.join(sorted(tasks)) or 'none'}.", json_=json_)

    run_service(work, {"store": "memory://", "model": model, "device": device, "dtype": dtype})


def read_requests(file: Path) -> list[EditRequest]:
    """The edit requests of a file with one on each line. An error names its line and ends the command."""
    from app.api.schemas.corrections import EditItem

    requests: list[EditRequest] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            requests.append(EditItem.model_validate_json(line).to_domain(_no_messages))
        except ValidationError as error:
            first = error.errors()[0]
            render.fail(f"Line {number} of {file}: {'.'.join(map(str, first['loc']))}: {first['msg']}.")
        except ErrataError as error:
            render.fail(f"Line {number} of {file}: {error.message}")
    if not requests:
        render.fail(f"{file} holds no edits: write a JSON body of POST /edit on each line.")
    return requests


def _no_messages(_messages: object) -> str:
    raise InvalidRequest("`messages` are rendered by a server: write the prompt as it is sent to /generate.")


def read_fitted(file: Path) -> list[list[Edit]]:
    """The live edits of a file of fitted edits, oldest first, grouped by shared tensors."""
    with opened(f"sqlite:///{file.absolute()}", must_exist=True) as log:
        ledger, _ = upkeep.fold(log)
    groups: dict[str, list[Edit]] = {}
    for entry in ledger.entries.values():
        if entry.live_at(ledger.revision):
            edit = entry.fits(ledger.revision)[-1]
            groups.setdefault(str(edit.learned.get("shared", edit.id)), []).append(edit)
    if not groups:
        render.fail(f"{file} holds no live edits: write one with `errata fit`.")
    return list(groups.values())


@contextmanager
def reported_errors() -> Iterator[None]:
    try:
        yield
    except ErrataError as error:
        render.fail_with_error(error)


def run_service(work: Any, given: dict[str, Any]) -> None:
    """Start a service on this machine without HTTP, do the work, and stop it. An error ends the command."""
    settings = read_settings({name: value for name, value in given.items() if value is not None})

    async def whole() -> None:
        service = await started_service(settings)
        try:
            await work(service)
        finally:
            await service.stop()

    with reported_errors():
        asyncio.run(whole())
