"""Tensors that were computed from a frozen model once, in files that are trusted only if they are whole.

The name and the metadata of a file both say what it holds and for which model; the metadata also has a hash of its
values. If a file is absent, damaged or belongs to something else, its content is computed again. That is never an
error.
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


class TensorCache:
    """A folder of named sets of tensors. `folder` None stores nothing.

    `model` names the frozen model, its precision and its kind of device, so that values computed otherwise are not
    taken for its own.
    """

    def __init__(self, folder: Path | None = None, model: str = "") -> None:
        self._folder, self._model = folder, model

    def load(self, name: str, inputs: Sequence[str] = ()) -> dict[str, Tensor] | None:
        """Return the tensors stored under a name and its inputs, on the CPU, or None if they must be computed."""
        mark = self._mark(name, inputs)
        file = self._file(name, mark)
        if file is None:
            return None
        try:
            with safe_open(file, framework="pt") as stored:
                metadata = stored.metadata() or {}
                tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118  (not a dict)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            _log.warning("%s cannot be read and is computed again: %s", file, error)
            return None
        if metadata.get("mark") != mark or metadata.get("sha256") != _digest(tensors):
            _log.warning("%s is damaged or belongs to something else, and is computed again.", file)
            return None
        return tensors

    def store(self, name: str, inputs: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Write a whole file or none. If the folder cannot be written, the next start computes the tensors again."""
        mark = self._mark(name, inputs)
        file = self._file(name, mark)
        if file is None:
            return
        stored = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        partial_file = file.with_suffix(f".{os.getpid()}.part")  # Servers that start together each write their own.
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(stored, partial_file, {"mark": mark, "sha256": _digest(stored)})
            partial_file.replace(file)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                partial_file.unlink(missing_ok=True)
            _log.warning("%s cannot be written; its content will be computed again: %s", file, error)

    def _file(self, name: str, mark: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{name}-{mark[:24]}.safetensors"

    def _mark(self, name: str, inputs: Sequence[str]) -> str:
        """A hash of everything that the tensors depend on."""
        return hashlib.sha256("\n".join((self._model, name, *inputs)).encode()).hexdigest()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
