"""Edits and events with only what a test cares about spelled out. Torch-free: writer processes import it too."""

from typing import Any

from app.domain.edit import Edit, EditRequest
from app.domain.events import (
    BatchCommitted,
    EditCommitted,
    EditRetuned,
    EditsRefitted,
    EditsRolledBack,
    EditStaged,
    Event,
    Origin,
    Refit,
    SwitchSet,
)


def request(**fields: Any) -> EditRequest:
    return EditRequest(**{"prompt": "Who runs Lumen?", "target": "Ada Quill", **fields})


def edit(id: str = "e1", *, supersedes: tuple[str, ...] = (), expires_at_s: float | None = None, **fields: Any) -> Edit:
    """`fields` are those of its request, except `tensors` and `report`."""
    tensors, report = fields.pop("tensors", b"\x00tensors\xff"), fields.pop("report", {})
    return Edit(
        id=id,
        request=request(**fields),
        editor="grace",
        created_at_s=0.0,
        expires_at_s=expires_at_s,
        supersedes=supersedes,
        model_fingerprint="model-1",
        before="Bo Vane",
        after="Ada Quill",
        report=report,
        learned={"radius": 0.5},
        tensors=tensors,
    )


def committed(revision: int, id: str = "e1", **fields: Any) -> EditCommitted:
    return EditCommitted(revision=revision, at_s=float(revision), origin=Origin(), edit=edit(id, **fields))


def staged(revision: int, batch_id: str, id: str, **fields: Any) -> EditStaged:
    return EditStaged(
        revision=revision, at_s=float(revision), origin=Origin(), batch_id=batch_id, edit=edit(id, **fields)
    )


def closed(revision: int, batch_id: str, *ids: str) -> BatchCommitted:
    return BatchCommitted(revision=revision, at_s=float(revision), origin=Origin(), batch_id=batch_id, edit_ids=ids)


def rolled_back(revision: int, *ids: str) -> EditsRolledBack:
    return change(EditsRolledBack, revision, *ids)


def change(kind: type[Event], revision: int, *ids: str) -> Any:
    """An event that names edits and nothing else."""
    return kind(revision=revision, at_s=float(revision), origin=Origin(), edit_ids=ids)  # type: ignore[call-arg]


def refitted(revision: int, *ids: str) -> EditsRefitted:
    fits = tuple(Refit(edit_id=id, learned={"at": revision}, tensors=b"\x01") for id in ids)
    return EditsRefitted(revision=revision, at_s=float(revision), origin=Origin(), fits=fits)


def retuned(revision: int, id: str, **fields: Any) -> EditRetuned:
    fit = Refit(edit_id=id, learned={"at": revision}, tensors=b"\x01")
    return EditRetuned(
        revision=revision, at_s=float(revision), origin=Origin(), fit=fit, request=request(**fields), report={}
    )


def switched(revision: int, namespace: str | None, on: bool) -> SwitchSet:
    return SwitchSet(revision=revision, at_s=float(revision), origin=Origin(), namespace=namespace, on=on)
