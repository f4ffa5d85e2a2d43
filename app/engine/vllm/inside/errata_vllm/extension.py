"""The methods that vLLM mixes into each of its workers (`worker_extension_cls`), called through collective RPC."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from .identity import weight_digest, weight_of
from .inner import (
    answer_at,
    around_forward,
    check_runner,
    forget_adapter,
    hold_generators,
    model_facts,
    receive_states,
    serve_adapters,
    serve_drafts,
    spans,
)
from .names import VllmRefusal
from .rows import acting_rows, chosen_edit, chosen_name, tokens_ahead
from .site import SITES
from .states import BUFFERS


class EditRows:
    """Keeps the rows and LoRAs of edits on a worker, for the requests that name an edit."""

    model_runner: Any
    _errata_values: dict[str, tuple[tuple[int, ...], Tensor]]
    _errata_adapters: dict[int, dict[str, Tensor]]
    _errata_session: str

    def errata_begin(self, session: str = "") -> dict[str, Any]:
        """Begin to serve edits, none of which is loaded yet, to requests that name this session. Returns facts of this
        worker; raises VllmRefusal."""
        if not hasattr(self, "_errata_values"):
            check_runner(self.model_runner)
            receive_states(self.model_runner)
            serve_adapters(self.model_runner, lambda number: self._errata_adapters.get(number, {}))
            around_forward(self.model_runner, self._errata_prepare, self._errata_keep_states)
            serve_drafts(self.model_runner, self._errata_draft)
        self._errata_values, self._errata_adapters, self._errata_session = {}, {}, session
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        return {**model_facts(self.model_runner), "sites": sorted(SITES), "cores": cores}

    def errata_change(self, changes: list[tuple[str, list[Any]]]) -> None:
        """Carry out changes, in order: the name of a method without `errata_`, and its arguments."""
        for do, arguments in changes:
            getattr(self, f"errata_{do}")(*arguments)

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

    def errata_load_adapter(self, number: int, packed: bytes) -> None:
        """Take a LoRA, in the format of safetensors, under a number that no other has or had."""
        self._errata_adapters[number] = load(packed)

    def errata_drop_adapter(self, number: int) -> None:
        """Release a LoRA. A request that names it and is being aborted runs without it."""
        self._errata_adapters.pop(number, None)
        forget_adapter(self.model_runner, number)

    def errata_identify(self, weight: str) -> str | None:
        """Return the digest of a weight, by its path; None if this worker does not hold its first rows."""
        parameter = weight_of(dict(self.model_runner.get_model().named_parameters()), weight)
        return None if parameter is None else weight_digest(parameter)

    def errata_states(self, name: str) -> tuple[str, bytes] | None:
        """Return the states (T, D) that a request asked for, as their type and bytes, and forget them. None if this
        worker does not hold them all."""
        for buffer in BUFFERS.values():
            if (states := buffer.fetch(name)) is not None:
                return str(states.dtype).removeprefix("torch."), states.cpu().view(torch.uint8).numpy().tobytes()
        return None

    def errata_pulse(self) -> None:
        """Show that this worker lives."""

    def _errata_prepare(self) -> None:
        hold_generators(self.model_runner)
        for buffers in SITES.values():
            places: list[int] = []
            rows: list[Tensor] = []
            for first, extra_args, span in spans(self.model_runner):
                if (chosen := chosen_edit(extra_args, self._errata_session)) is None:
                    continue
                edit_id, begun = chosen
                if edit_id not in self._errata_values:
                    continue  # dropped while its request is being aborted; the server tells if a target was not given
                target, value = self._errata_values[edit_id]
                for offset, row in acting_rows(span, target, begun):
                    places.append(first + offset)
                    rows.append(value[row])
            buffers.fill(places, rows)
        for buffer in BUFFERS.values():
            # Only this server's own vLLM keeps states: one that others use as well would keep theirs for ever.
            buffer.asked = (
                []
                if self._errata_session
                else [
                    (name, span.first, place, span.count)
                    for place, extra_args, span in spans(self.model_runner)
                    if (name := chosen_name(extra_args)) is not None
                ]
            )

    def _errata_draft(self, at: int) -> Sequence[int]:
        """Return what the request at a place of the batch is to be answered with next, if it names an edit.

        A sampled answer drafts nothing: vLLM would draw otherwise for it, so that a seed would give another answer.
        """
        if (answer := answer_at(self.model_runner, at)) is None:
            return ()
        extra_args, generated = answer
        if (chosen := chosen_edit(extra_args, self._errata_session)) is None or chosen[0] not in self._errata_values:
            return ()
        return tokens_ahead(generated, self._errata_values[chosen[0]][0], chosen[1])

    def _errata_keep_states(self) -> None:
        for buffer in BUFFERS.values():
            buffer.keep()
