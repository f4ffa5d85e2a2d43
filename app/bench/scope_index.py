"""The section on the scope's index: how long it takes to find the keys that lie nearest to a question."""

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from app.bench.comparison import Bench
from app.scope.bank import load_bank
from app.scope.encoder import Encoder, find_encoder
from app.scope.index import PLAUSIBLE, SHORTLIST
from app.scope.keys import KeyIndex

SIZES = ((10_000, 1), (100_000, 1), (100_000, 4))
"""(edits, keys of each)."""
ENCODED = 400
"""Questions of the bank that keys are made of."""
ASKED = 40


async def scope_index(bench: Bench) -> dict[str, Any]:
    """Milliseconds a question, beside one product over all keys. Real sentence vectors, mixed by twos, stand for so
    many questions: encoding them would take minutes."""
    found: dict[str, Any] = {}
    real = await asyncio.to_thread(_encoded)
    for edits, each in SIZES:
        if bench.pace.over:
            break
        name = f"{edits:,} edits, {each} key{'s' * (each > 1)} each"
        found[name] = await asyncio.to_thread(measure, real, edits, each)
        bench.figure(f"{name}: {found[name]['nearest_ms']} ms")
        bench.keep(found)
    return found


def measure(real: Tensor, edits: int, each: int) -> dict[str, float]:
    """Figures of an index of so many keys, made of `real` (N, E)."""
    made = torch.Generator().manual_seed(0)
    keys = KeyIndex(real.shape[1])
    vectors = _mixed(real, edits * each, made)
    for row in range(edits):
        keys.add(row, vectors[row * each : (row + 1) * each])
    places = keys.of(range(edits))
    asked = _mixed(real, ASKED, made)

    def whole(query: Tensor) -> None:
        keys.cosines(query, places).topk(min(4 * SHORTLIST, len(places)))

    def nearest(query: Tensor) -> None:
        keys.nearest(query, places, 4 * SHORTLIST, PLAUSIBLE)

    one, other = [_seconds(nearest, query) for query in asked], [_seconds(whole, query) for query in asked]
    ratio = statistics.median(b / a for a, b in zip(one, other, strict=True))
    return {
        "nearest_ms": round(1e3 * statistics.median(one), 2),
        "most_ms": round(1e3 * max(one), 2),
        "whole_ms": round(1e3 * statistics.median(other), 2),
        "times_as_fast": round(ratio, 2),
    }


def _encoded() -> Tensor:
    """(N, E) vectors of questions that ship."""
    bank = [each.text for each in load_bank()]
    return Encoder(find_encoder("minilm")).vectors(bank[:: max(1, len(bank) // ENCODED)])


def _mixed(real: Tensor, count: int, made: torch.Generator) -> Tensor:
    """(count, E) unit vectors between two real ones each, with noise, so that none is twice."""
    one, other = (real[torch.randint(len(real), (count,), generator=made)] for _ in range(2))
    share = torch.rand(count, 1, generator=made) / 2
    return normalize(torch.lerp(one, other, share) + 0.01 * torch.randn(one.shape, generator=made), dim=-1)


def _seconds(what: Callable[[Tensor], None], query: Tensor) -> float:
    began = time.perf_counter()
    what(query[None])
    return time.perf_counter() - began
