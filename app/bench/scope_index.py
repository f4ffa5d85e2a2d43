"""The section on the scope's index: the time that it takes to find the keys nearest to a question."""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from app.bench.comparison import Bench
from app.scope.bank import load_bank
from app.scope.encoder import Encoder, find_encoder
from app.scope.index import PLAUSIBLE, SHORTLIST
from app.scope.keys import KeyIndex

SIZES = ((10_000, 1), (100_000, 1), (100_000, 4))
"""(number of edits, number of keys of each)."""
ENCODED = 400
"""Number of the bank's questions that are encoded."""
QUERIES = 40
T = TypeVar("T")


class SectionStopped(Exception):
    """The section was ended; nobody awaits its figures."""


async def scope_index(bench: Bench) -> dict[str, Any]:
    """Milliseconds per question, compared with one product over all keys. Mixtures of two real sentence vectors serve
    as questions, because encoding so many would take minutes."""
    figures: dict[str, Any] = {}
    stopped = threading.Event()  # a thread cannot be cancelled, and would otherwise outlast the run
    try:
        real = await asyncio.to_thread(lambda: encoded_bank(Encoder(find_encoder("minilm"))))
        for edits, keys_each in SIZES:
            if bench.pace.over:
                break
            name = f"{edits:,} edits, {keys_each} key{'s' * (keys_each > 1)} each"
            figures[name] = await asyncio.to_thread(measure, real, edits, keys_each, stopped)
            bench.figure(f"{name}: {figures[name]['nearest_ms']} ms")
            bench.keep(figures)
    finally:
        stopped.set()
    return figures


def measure(real: Tensor, edits: int, keys_each: int, stopped: threading.Event) -> dict[str, float]:
    """Figures of an index of `edits` x `keys_each` keys, mixed from the vectors `real` (N, E).

    Raises SectionStopped once `stopped` is set.
    """
    generator = torch.Generator().manual_seed(0)
    keys = KeyIndex(real.shape[1])
    vectors = mixed(real, edits * keys_each, generator)
    for row in until(stopped, range(edits)):
        keys.add(row, vectors[row * keys_each : (row + 1) * keys_each])
    places = keys.of(range(edits))
    queries = mixed(real, QUERIES, generator)

    def exhaustive(query: Tensor) -> None:
        keys.cosines(query, places).topk(min(4 * SHORTLIST, len(places)))

    def nearest(query: Tensor) -> None:
        keys.nearest(query, places, 4 * SHORTLIST, PLAUSIBLE)

    indexed_s, exhaustive_s = (
        [_seconds(nearest, query) for query in until(stopped, queries)],
        [_seconds(exhaustive, query) for query in until(stopped, queries)],
    )
    ratio = statistics.median(b / a for a, b in zip(indexed_s, exhaustive_s, strict=True))
    return {
        "nearest_ms": round(1e3 * statistics.median(indexed_s), 2),
        "most_ms": round(1e3 * max(indexed_s), 2),
        "whole_ms": round(1e3 * statistics.median(exhaustive_s), 2),
        "times_as_fast": round(ratio, 2),
    }


def until(stopped: threading.Event, items: Iterable[T]) -> Iterator[T]:
    """The items. Raises SectionStopped before the next one once `stopped` is set."""
    for item in items:
        if stopped.is_set():
            raise SectionStopped
        yield item


def encoded_bank(encoder: Encoder) -> Tensor:
    """(N, E) vectors of the bundled questions."""
    bank = [each.text for each in load_bank()]
    return encoder.vectors(bank[:: max(1, len(bank) // ENCODED)])


def mixed(real: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, E) unit vectors, each between two real ones, with noise so that no two are equal."""
    one, other = (real[torch.randint(len(real), (count,), generator=generator)] for _ in range(2))
    share = torch.rand(count, 1, generator=generator) / 2
    return normalize(torch.lerp(one, other, share) + 0.01 * torch.randn(one.shape, generator=generator), dim=-1)


def _seconds(search: Callable[[Tensor], None], query: Tensor) -> float:
    began = time.perf_counter()
    search(query[None])
    return time.perf_counter() - began
