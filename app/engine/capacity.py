"""The number and the length of the sequences that fit into free memory."""

from collections import Counter
from dataclasses import replace

from app.domain.errors import UnsupportedModel
from app.engine.memory import free_bytes
from app.engine.model import HostedModel

_LONGEST_LAID_OUT = 4096
"""Tokens of a sequence on a GPU, unless more are asked for: there each slot's memory is laid out at the start."""
_LEAST = 64
"""A shorter context than this serves nobody."""


def with_capacity(
    hosted: HostedModel, slots: int, *, memory_fraction: float, length_is_given: bool
) -> tuple[HostedModel, int, int]:
    """The model with the longest sequence that is served, the slots, and the tokens that all of them may hold.
    `length_is_given` says that the model's longest sequence is the one that was asked for.

    A CPU takes memory as sequences grow, so that each slot may hold the longest and the tokens are a budget. A GPU lays
    slots out at once. Raises UnsupportedModel where not one sequence of the wanted length fits.
    """
    # weights that are yet to be loaded: by vLLM, and by the fitter at most as many again
    awaited = 2 * hosted.weight_bytes if hosted.is_outline else 0
    room = min(
        int(memory_fraction * (free_bytes(device) - awaited) // hosted.kv_bytes_per_token(layers))
        for device, layers in Counter(hosted.layer_devices).items()
    )
    on_cpu = hosted.device.type == "cpu"
    most = room if on_cpu else _LONGEST_LAID_OUT
    longest = hosted.max_tokens if length_is_given else min(hosted.max_tokens, max(most, 1))
    slots = slots if on_cpu else min(slots, room // (longest + 1))
    if longest > room or slots < 1 or longest < min(_LEAST, hosted.max_tokens):
        raise UnsupportedModel(
            f"The memory free on {hosted.device} holds {room:,} tokens of keys and values, and a sequence may have "
            f"{hosted.max_tokens:,}: lower ERRATA_MAX_SEQUENCE_TOKENS or raise ERRATA_KV_MEMORY_FRACTION."
        )
    return replace(hosted, max_tokens=longest), slots, room if on_cpu else slots * longest
