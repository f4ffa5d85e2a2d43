"""The methods that vLLM mixes into each of its workers (`worker_extension_cls`), called through collective RPC."""

from typing import Any

import torch
from torch import Tensor

from .inner import VllmRefusal, before_forward, check_runner, model_facts, spans
from .rows import acting_rows, chosen_edit
from .site import SITES


class EditRows:
    """Keeps the rows of edits on a worker, and adds them for the requests that name an edit."""

    model_runner: Any
    _errata_values: dict[str, tuple[tuple[int, ...], Tensor]]

    def errata_begin(self) -> dict[str, Any]:
        """Begin to serve edits. Returns facts of this worker; raises VllmRefusal."""
        check_runner(self.model_runner)
        self._errata_values = {}
        before_forward(self.model_runner, self._errata_prepare)
        return {**model_facts(self.model_runner), "sites": sorted(SITES)}

    def errata_load(self, edit_id: str, target: list[int], value: bytes) -> None:
        """Take an edit's value: float32 rows (len(target), D) as bytes."""
        for buffers in SITES.values():  # none on a pipeline stage without the site
            rows = torch.frombuffer(bytearray(value), dtype=torch.float32).reshape(len(target), -1)
            if rows.shape[1] != buffers.rows.shape[1]:
                raise VllmRefusal(
                    f"The edit {edit_id} has rows of {rows.shape[1]} values, not {buffers.rows.shape[1]}."
                )
            rows = rows.to(device=buffers.rows.device, dtype=buffers.rows.dtype)
            self._errata_values[edit_id] = (tuple(target), rows)

    def errata_drop(self, edit_id: str) -> None:
        """Release an edit's rows. No request may name the edit any longer."""
        self._errata_values.pop(edit_id, None)

    def errata_pulse(self) -> None:
        """Show that this worker lives."""

    def _errata_prepare(self) -> None:
        for buffers in SITES.values():
            places: list[int] = []
            rows: list[Tensor] = []
            for first, extra_args, span in spans(self.model_runner):
                if (chosen := chosen_edit(extra_args)) is None:
                    continue
                edit_id, begun = chosen
                if edit_id not in self._errata_values:
                    continue  # dropped while its request is being aborted; the server tells if a target was not given
                target, value = self._errata_values[edit_id]
                for offset, row in acting_rows(span, target, begun):
                    places.append(first + offset)
                    rows.append(value[row])
            buffers.fill(places, rows)
