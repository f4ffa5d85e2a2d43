"""Tensors that are computed of a frozen model once and kept in a folder, in files that are trusted only when whole.

A file's name and its metadata both say what it holds and of which model; its metadata also has a hash of its values.
A file that is absent, damaged or of something else is a reason to compute again, never an error.
"""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_log = logging.getLogger(__name__)


class Kept:
    """`folder` None keeps nothing. `model` names the frozen model in the precision and on the kind of device that it
    computes with, so that nothing computed otherwise is taken for its own."""

    def __init__(self, folder: Path | None = None, model: str = "") -> None:
        self._folder, self._model = folder, model

    def load(self, what: str, marks: Sequence[str] = ()) -> dict[str, Tensor] | None:
        """What `store` kept under the same name and marks, on the CPU; None where it must be computed."""
        mark = self._mark(what, marks)
        file = self._file(what, mark)
        if file is None:
            return None
        try:
            with safe_open(file, framework="pt") as held:
                told = held.metadata() or {}
                tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118  (not a dict)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            _log.warning("%s cannot be read and is computed again: %s", file, error)
            return None
        if told.get("mark") != mark or told.get("sha256") != _digest(tensors):
            _log.warning("%s is damaged or belongs to something else, and is computed again.", file)
            return None
        return tensors

    def store(self, what: str, marks: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Writes a whole file or none. A folder that cannot be written costs time at the next start, nothing else."""
        mark = self._mark(what, marks)
        file = self._file(what, mark)
        if file is None:
            return
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        part = file.with_suffix(f".{os.getpid()}.part")  # servers that start together each write their own
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(held, part, {"mark": mark, "sha256": _digest(held)})
            part.replace(file)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            _log.warning("%s cannot be written; what it should keep will be computed again: %s", file, error)

    def _file(self, what: str, mark: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{what}-{mark[:24]}.safetensors"

    def _mark(self, what: str, marks: Sequence[str]) -> str:
        return hashlib.sha256("\n".join((self._model, what, *marks)).encode()).hexdigest()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
