"""Measures what one edit costs each part that many edits go through: codec, ledger, stores, snapshot, scope's index."""

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from app.bench.scope_index import mixed
from app.domain.edit import Edit
from app.domain.errors import LostRace
from app.domain.events import EditCommitted
from app.domain.ledger import Ledger
from app.domain.snapshot import records_of
from app.scope.background import Background
from app.scope.closed_words import load_closed_words
from app.scope.encoded_keys import EncodedKeys
from app.scope.encoder import Encoder
from app.scope.index import ScopeIndex
from app.scope.models import ScopeModels
from app.scope.vectors import Vectors
from app.service.hits import Counts, read_counts
from app.store.base import Log
from app.store.codec import GENESIS, closing_hash, decode, encode
from app.store.memory import MemoryLog
from app.store.snapshots import load, save

PIECES = 8
"""The number of pieces in which items are timed; a figure is the median over them, as others may disturb one."""
TAIL = 2_000
"""The number of events, the last ones of a size, whose fold is timed."""
WRITERS = 4
NAME = "Lumen"
"""The name in the real edit's question, in whose place a copy has a name of its own."""


class CopiedEvents:
    """Copies of a real edit's event: each asks about another name, and `each` of them share a namespace."""

    def __init__(self, event: EditCommitted, each: int = 100) -> None:
        self._event, self._each = event, each

    def event(self, revision: int) -> EditCommitted:
        edit, name = self._event.edit, f"{NAME}{revision:08d}"
        scope = {key: _renamed(value, name) for key, value in edit.learned["scope"].items()}
        request = replace(
            edit.request, prompt=edit.request.prompt.replace(NAME, name), namespace=self.namespace(revision)
        )
        copy: Edit = replace(edit, id=f"ed_{revision:016x}", request=request, learned={**edit.learned, "scope": scope})
        return replace(self._event, revision=revision, edit=copy)

    def namespace(self, revision: int) -> str:
        return f"space{(revision - 1) // self._each}"

    def entries(self, count: int, after: int = 0, last: str = GENESIS) -> Iterator[bytes]:
        for revision in range(after + 1, after + count + 1):
            entry = encode(self.event(revision), last)
            last = closing_hash(entry)
            yield entry


def _renamed(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value.replace(NAME, name).replace(NAME.casefold(), name.casefold())
    return [_renamed(each, name) for each in value] if isinstance(value, list) else value


def micros(work: Callable[[Any], object], items: Iterable[Any]) -> float:
    """The median over PIECES of the microseconds that `work` takes per item."""
    listed = list(items)
    size = max(1, len(listed) // PIECES)
    per_item = []
    for first in range(0, len(listed) - size + 1, size):
        began = time.perf_counter()
        for item in listed[first : first + size]:
            work(item)
        per_item.append((time.perf_counter() - began) / size * 1e6)
    return round(statistics.median(per_item), 1)


def resident() -> int:
    """The bytes of this process in memory."""
    gc.collect()
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def codec(copies: CopiedEvents, count: int) -> dict[str, float]:
    events = [copies.event(revision) for revision in range(1, count + 1)]
    entries = list(copies.entries(count))
    return {
        "entry_bytes": len(entries[0]),
        "tensor_bytes": len(events[0].edit.tensors),
        "encode_us": micros(lambda event: encode(event, GENESIS), events),
        "decode_us": micros(lambda entry: decode(entry, None, None), entries),
    }


def ledger(copies: CopiedEvents, sizes: Sequence[int]) -> dict[str, Any]:
    """Microseconds to fold one event beside so many edits, and the bytes that an edit takes in the ledger."""
    folded, fold_us, before = Ledger(), {}, resident()
    for size in sizes:
        more = size - folded.revision
        events = (decode(entry, None, None)[0] for entry in copies.entries(more, folded.revision))
        for event in islice(events, max(0, more - TAIL)):
            folded.apply(event)
        fold_us[size] = micros(folded.apply, events)
    space = copies.namespace(sizes[-1] // 2)
    return {
        "fold_us": fold_us,
        "edit_bytes": round((resident() - before) / sizes[-1]),
        "live_us": micros(folded.live, [space] * 64),
        "live_before_us": micros(lambda name: folded.live(name, sizes[-1] // 2 - 1), [space] * 64),
    }


def snapshots(copies: CopiedEvents, sizes: Sequence[int]) -> dict[int, dict[str, float]]:
    """Microseconds per edit to write a snapshot and to start from it, by the number of edits in it."""
    figures = {}
    for size in sizes:
        folded, log = Ledger(), MemoryLog()
        for revision in range(1, size + 1):
            folded.apply(copies.event(revision))
        began = time.perf_counter()
        manifest = save(log, size, GENESIS, records_of(folded), 0.0)
        written = time.perf_counter()
        load(log, manifest)
        read = time.perf_counter()
        figures[size] = {
            "write_us": round((written - began) / size * 1e6, 1),
            "read_us": round((read - written) / size * 1e6, 1),
            "record_bytes": round(manifest.size_bytes / size),
        }
    return figures


def appends(opened: Callable[[], Log], copies: CopiedEvents, count: int) -> dict[str, float]:
    """Appends and reads per second of a log: by one writer, by WRITERS that race for each revision, read by one."""
    log = opened()
    first = log.head()
    append_us = micros(lambda revision: log.append(copies.event(revision)), range(first + 1, first + count + 1))
    tries, handles = [0], [opened() for _ in range(WRITERS)]
    end = log.head() + count

    def race(own: Log) -> None:
        while (head := own.head()) < end:
            tries[0] += 1
            with suppress(LostRace):
                own.append(copies.event(head + 1))

    began, threads = time.perf_counter(), [Thread(target=race, args=(own,)) for own in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    raced_s = time.perf_counter() - began
    began = time.perf_counter()
    read = sum(1 for _ in log.read())
    read_s = time.perf_counter() - began
    for each in (*handles, log):
        each.close()
    return {
        "append_us": append_us,
        "raced_us": round(raced_s / count * 1e6, 1),
        "tries": round(tries[0] / count, 2),
        "read_us": round(read_s / read * 1e6, 1),
    }


class MixedVectors(Vectors):
    """Vectors that cost nothing to compute: mixtures of two real ones."""

    def __init__(self, encoder: Encoder, real: Tensor) -> None:
        super().__init__(encoder)
        self._real, self._generator = real, torch.Generator().manual_seed(0)

    def of(self, texts: Sequence[str]) -> Tensor:
        return mixed(self._real, len(texts), self._generator)


def an_index(models: ScopeModels, vectors: Vectors) -> ScopeIndex:
    closed = load_closed_words()
    decider = models.decider(EncodedKeys(models.encoder), closed)
    return ScopeIndex(models.encoder, decider, closed, vectors, Background(vectors))


def scope(models: ScopeModels, real: Tensor, copies: CopiedEvents, sizes: Sequence[int]) -> dict[str, Any]:
    """An edit's bytes and microseconds in the scope's index, and milliseconds of a decision in one namespace of it."""
    index, before = an_index(models, MixedVectors(models.encoder, real)), resident()
    load_us, decide_ms, compile_us, loaded = {}, {}, {}, 0

    def take(revision: int) -> None:
        event = copies.event(revision)
        index.load(event.edit.id, event.edit.learned["scope"])

    for size in sizes:
        load_us[size], loaded = micros(take, range(loaded + 1, size + 1)), size
        first = copies.event(size // 2)
        ids = [f"ed_{at:016x}" for at in range(1, size + 1) if copies.namespace(at) == first.edit.request.namespace]
        compile_us[size] = micros(lambda part: index.compile("", part), [ids] * PIECES)
        question, part = index.question((first.edit.request.prompt,)), index.compile("", ids)
        index.ranked(question, part)  # from here on the texts of its keys are encoded
        decide_ms[size] = round(micros(partial(index.ranked, question), [part] * PIECES) / 1e3, 2)
    return {
        "load_us": load_us,
        "decide_ms": decide_ms,
        "compile_us": compile_us,
        "edit_bytes": round((resident() - before) / loaded),
        "keys": len(first.edit.learned["scope"]["keys"]) + len(first.edit.learned["scope"]["made"]),
        "vector_bytes": round(index.held_bytes / loaded),
    }


def first_request(models: ScopeModels, copies: CopiedEvents, edits: int) -> dict[str, float]:
    """Milliseconds until a namespace that is not held is: its edits read from their records, encoded or found in the
    cache of vectors, and loaded."""
    folded, log, figures = Ledger(), MemoryLog(), {}
    for revision in range(1, edits + 1):
        folded.apply(copies.event(revision))
    manifest = save(log, edits, GENESIS, records_of(folded), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("encoded", "cached"):
            index, began = an_index(models, Vectors(models.encoder, Path(folder))), time.perf_counter()
            read = load(log, manifest)
            index.read_ahead(edit.learned["scope"] for edit in read.all_live())
            for edit in read.all_live():
                index.load(edit.id, edit.learned["scope"])
            index.compile("", list(read.entries))
            figures[f"{name}_ms"] = round(1e3 * (time.perf_counter() - began), 1)
    return figures


def encoded(encoder: Encoder, copies: CopiedEvents, count: int) -> dict[str, float]:
    """Microseconds per text: one at a time, the texts of one edit, and those of 32 edits together."""
    texts = [_texts(copies.event(revision)) for revision in range(1, count + 1)]
    keys = len(texts[0])
    together = [list(chain.from_iterable(texts[first : first + 32])) for first in range(0, count, 32)]
    return {
        "one_us": micros(lambda some: encoder.vectors(some[:1]), texts[:32]),
        "edit_us": round(micros(encoder.vectors, texts[:32]) / keys, 1),
        "together_us": round(micros(encoder.vectors, together) / keys / 32, 1),
    }


def _texts(event: EditCommitted) -> list[str]:
    scope: Mapping[str, Any] = event.edit.learned["scope"]
    return [*scope["keys"], *scope["made"]]


def hits(counts: int) -> dict[str, float]:
    """Bytes of a server's counts of answers per edit that was hit, and microseconds to read them."""
    own = Counts()
    own.hits.update(f"ed_{at:016x}" for at in range(counts))
    own.daily.update((edit_id, 20_000) for edit_id in own.hits)
    own.last_s.update(dict.fromkeys(own.hits, 1.8e9))
    data = own.dumped()
    return {"bytes": round(len(data) / counts, 1), "read_us": round(micros(read_counts, [data] * PIECES) / counts, 2)}
