"""`errata lora`: LoRAs exchanged between Errata and PEFT. Imports torch late."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import render
from app.cli.fit import Device, Dtype, Model, run_service
from app.cli.options import EditId, Json, Paraphrases, Store, TargetStore
from app.cli.store import opened
from app.domain.edit import EditRequest
from app.domain.errors import InvalidRequest
from app.domain.events import Origin
from app.engine.controls import quoted
from app.store import upkeep

if TYPE_CHECKING:
    from app.service.service import Service

lora = typer.Typer(help="Carry the LoRA of an edit to PEFT, or one from PEFT into an edit.")


@lora.command()
def export(
    edit_id: EditId,
    folder: Annotated[Path, typer.Argument(help="A new folder, in PEFT's format.", file_okay=False)],
    url: Store = None,
    json_: Json = False,
) -> None:
    """Write an edit's effect on its own prompt as one LoRA. PEFT has no scope, so that there it acts on everything."""
    from app.editors.lora_mixture.serving import export_lora
    from app.editors.packing import unpack

    with opened(url, must_exist=True) as log:
        ledger, _ = upkeep.fold(log)
        beginning = edit_id if edit_id.startswith("ed_") else f"ed_{edit_id}"
        edit_id = render.only_id(list(ledger.entries), beginning, "edit")
        fit = ledger.entry(edit_id).fits(ledger.revision)[-1]
        if fit.editor_key != "lora_mixture":
            raise InvalidRequest(f"The edit {edit_id} is of the editor {fit.editor_key}: only lora_mixture has LoRAs.")
        fits = (each for entry in ledger.entries.values() for each in entry.fits(0))
        shared = fit.learned["shared"]
        brings = next(e for e in fits if e.learned.get("brings") and e.learned.get("shared") == shared)
        export_lora(folder, fit.learned, unpack(fit.tensors)["key"], unpack(brings.tensors))
    text = f"{folder} holds the LoRA of {edit_id} ({quoted(fit.request.prompt)} -> {fit.request.target!r})."
    render.answer({"folder": str(folder), "edit": edit_id}, text, json_=json_)


@lora.command("import")
def import_(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="An adapter in PEFT's format.", exists=True, file_okay=False)],
    prompt: Annotated[str, typer.Option(help="The prompt that it answers.")],
    target: Annotated[str, typer.Option(help="The whole answer that it gives.")],
    paraphrase: Paraphrases = None,
    store: TargetStore = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    json_: Json = False,
) -> None:
    """Make an edit from a LoRA that was learned elsewhere: verified, and acting in its own scope only."""
    request = EditRequest(prompt=prompt, target=target, paraphrases=tuple(paraphrase or ()), editor="lora_mixture")
    origin = Origin(actor=context.obj.actor, reason=f"errata lora import {folder.name}")

    async def work(service: "Service") -> None:
        fitted = await asyncio.wrap_future(service.take_lora(request, folder))
        result = (await service.adopt([(request, "lora_mixture", fitted)], origin)).results[0]
        text = f"{result.view.edit.id} is live" + ("" if result.created else ": it was there already")
        render.answer({"edit": result.view.edit.id, "created": result.created}, text, json_=json_)

    run_service(work, {"store": store, "model": model, "device": device, "dtype": dtype})
