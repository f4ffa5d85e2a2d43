"""Reads the states that enter a layer: a custom operator in the model's graph that copies them into a fixed buffer.

A request that asks for its states is an ordinary one of vLLM's, in one or several steps. After each step the positions
that belong to it are taken out of the buffer, by their place in the prompt.
"""

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(eq=False, slots=True)
class StatesBuffer:
    """The states (T, D) that entered a layer in this step, with T the most tokens of a step, and those of requests."""

    step: Tensor
    asked: list[tuple[str, int, int, int]] = field(default_factory=list)
    """The spans of this step whose states are asked for: the name, the first position in the prompt, the first place in
    the step, and the number of positions."""
    kept: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    """Name -> first position -> states (T, D)."""

    def keep(self) -> None:
        """Take over what the step has computed of the spans that are asked for."""
        for name, first, place, count in self.asked:
            self.kept.setdefault(name, {})[first] = self.step[place : place + count].clone()

    def fetch(self, name: str) -> Tensor | None:
        """Return the states (T, D) of a request from its first position on, and forget them; None if there are none or
        some are missing, as where the prefix cache knew its beginning."""
        pieces = self.kept.pop(name, {})
        joined: list[Tensor] = []
        following = 0
        for first in sorted(pieces):  # after a preemption positions were computed twice, with the same result
            if first > following:
                return None
            piece = pieces[first][following - first :]
            joined.append(piece)
            following += len(piece)
        return torch.cat(joined) if joined else None


BUFFERS: dict[str, StatesBuffer] = {}
"""Layer path -> buffer. A graph holds the path and not the buffer."""


@torch.library.custom_op("errata::keep_states", mutates_args=("hidden",))
def keep_states(hidden: Tensor, residual: Tensor | None, layer: str) -> None:
    """Copy hidden (T, D), plus residual (T, D) if there is one. `hidden` is not changed: it is named so that the graph
    keeps the operator. On a CPU nothing runs in a step that nobody asks for; a captured CUDA graph cannot branch."""
    buffer = BUFFERS[layer]
    if buffer.asked or hidden.is_cuda:
        states = hidden if residual is None else hidden + residual
        buffer.step[: len(states)].copy_(states)


@keep_states.register_fake
def _(hidden: Tensor, residual: Tensor | None, layer: str) -> None:
    return None


def layer_of(site: str) -> str:
    """Return the path of the layer that a site is in: `model.layers.15.mlp` -> `model.layers.15`."""
    names = site.split(".")
    number = next(at for at, name in enumerate(names) if name.isdigit())
    return ".".join(names[: number + 1])


def install(module: nn.Module, layer: str, *, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Attach the operator to a layer, before the model is compiled. Returns False if this vLLM calls the layer's input
    otherwise than `hidden_states`, and its residual otherwise than `residual`."""
    names = list(inspect.signature(module.forward).parameters)
    if "hidden_states" not in names:
        return False
    hidden_at, residual_at = names.index("hidden_states"), names.index("residual") if "residual" in names else None
    BUFFERS[layer] = StatesBuffer(torch.zeros(rows, width, dtype=dtype, device=device))

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[hidden_at] if len(args) > hidden_at else kwargs["hidden_states"]
        residual = None
        if residual_at is not None:
            residual = args[residual_at] if len(args) > residual_at else kwargs.get("residual")
        torch.ops.errata.keep_states(hidden, residual, layer)

    module.register_forward_pre_hook(hook, with_kwargs=True)
    return True
