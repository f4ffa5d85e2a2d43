"""Edits as vLLM's workers hold them: rows at one site, or LoRAs of vLLM's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.editors.base import Fitted, FixedAdapters
from app.engine.vllm.inside.errata_vllm.rows import BEGUN, EDIT, cache_salt, value_digest
from app.engine.vllm.session import Change


@dataclass(frozen=True, slots=True)
class _HeldEdit:
    load: Change
    drop: Change
    digest: str
    """A name of the edit that changes with any of its numbers."""


class HeldEdits:
    """The edits that are loaded, and how a request names one."""

    def __init__(self, adapter_rank: int) -> None:
        """`adapter_rank`: the greatest rank of a LoRA that vLLM has room for."""
        self._adapter_rank = adapter_rank
        self._edits: dict[str, _HeldEdit] = {}
        self._adapters: dict[str, int] = {}
        """The number of each edit that is a LoRA. None is given twice, as vLLM may still hold the one before."""
        self._numbers = 0

    @property
    def loads(self) -> list[Change]:
        """The changes that load all edits."""
        return [each.load for each in self._edits.values()]

    def load(self, edit_id: str, target: Sequence[int], fitted: Fitted, adapters: FixedAdapters | None) -> Change:
        """Holds an edit: as a LoRA if its editor offers them, else as a row for each token of its target. Returns the
        change that loads it. Raises IncompatibleEdit."""
        held = self._edits[edit_id] = (
            _rows(edit_id, target, fitted.tensors["value"])
            if adapters is None
            else self._adapter(edit_id, target, adapters.of(fitted))
        )
        return held.load

    def drop(self, edit_id: str) -> Change:
        """Holds the edit no longer. Returns the change that drops it."""
        self._adapters.pop(edit_id, None)
        return self._edits.pop(edit_id).drop

    def naming(self, edit_id: str, prompt_tokens: int, begun: int) -> tuple[dict[str, Any], str]:
        """The arguments with which a request names the edit, and the salt of its prefix cache. `begun`: how many of the
        target's tokens end its prompt.

        A LoRA acts alike at every position, whatever the prompt, so that all requests under it share one cache.
        """
        digest = self._edits[edit_id].digest
        if (number := self._adapters.get(edit_id)) is not None:
            # vLLM tells LoRAs apart by name; a retuned edit and its trial are equal and have two numbers
            return {"adapter": [f"{digest}-{number}", number]}, digest
        return {"extra_args": {EDIT: edit_id, BEGUN: begun}}, cache_salt(digest, prompt_tokens, begun)

    def _adapter(self, edit_id: str, target: Sequence[int], tensors: Mapping[str, Tensor]) -> _HeldEdit:
        rank = max(len(tensor) for name, tensor in tensors.items() if ".lora_A." in name)
        if rank > self._adapter_rank:
            raise IncompatibleEdit(
                f"The edit {edit_id} is a LoRA of rank {rank}, and vLLM has room for {self._adapter_rank}: set "
                "`max_lora_rank` in ERRATA_VLLM_ARGUMENTS."
            )
        self._numbers += 1
        number = self._adapters[edit_id] = self._numbers
        packed = save({name: tensor.float().cpu() for name, tensor in tensors.items()})
        load, drop = Change("load_adapter", [number], packed), Change("drop_adapter", [number])
        return _HeldEdit(load, drop, value_digest(target, packed))


def _rows(edit_id: str, target: Sequence[int], value: Tensor) -> _HeldEdit:
    rows = np.ascontiguousarray(value.float().cpu().numpy(), dtype="<f4").tobytes()
    load, drop = Change("load", [edit_id, list(target)], rows), Change("drop", [edit_id])
    return _HeldEdit(load, drop, value_digest(target, rows))
