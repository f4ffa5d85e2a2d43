"""The section on scope decisions: the time that a new question takes, by where the edits' token states are."""

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.bench.comparison import Bench
from app.bench.scope_index import until
from app.scope.background import Background
from app.scope.bank import load_bank
from app.scope.closed_words import load_closed_words
from app.scope.encoded_keys import EncodedKeys
from app.scope.encoder import MINILM, EncodedText, Encoder
from app.scope.index import ScopeIndex
from app.scope.models import ScopeModels, load_models
from app.scope.record import ScopeRecord
from app.scope.vectors import Vectors

EDITS, QUESTIONS = 400, 20
"""The numbers of live edits and of questions, from the bundled questions."""
BOUND = 0.5


class ForgetfulKeys(EncodedKeys):
    """The texts of edits, which can be forgotten: what is on disk stays."""

    def forget(self) -> None:
        self._held.clear()


class CountedEncoder(Encoder):
    """The encoder, with the number of texts that it was asked for. It counts no vectors."""

    count = 0

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        self.count += len(texts)
        return super().encode(texts)

    def forget(self) -> None:
        """Forget all encoded texts, so that the next ones are computed."""
        self._held.clear()


async def scope_decisions(bench: Bench) -> dict[str, Any]:
    """Milliseconds of whole decisions on questions that are new, beside edits of one text each."""
    figures: dict[str, Any] = {}
    stopped = threading.Event()  # a thread cannot be cancelled, and would otherwise outlast the run

    def keep(name: str, row: dict[str, float]) -> None:
        figures[name] = row
        bench.keep(figures)

    try:
        with tempfile.TemporaryDirectory() as folder:
            await asyncio.to_thread(measure, Path(folder), stopped, keep)
    finally:
        stopped.set()
    return figures


def measure(folder: Path, stopped: threading.Event, keep: Callable[[str, dict[str, float]], None]) -> None:
    """Hand a row of figures to `keep` for each place of the states. Raises SectionStopped once `stopped` is set."""
    models = load_models(MINILM, CountedEncoder)
    encoder = models.encoder
    assert isinstance(encoder, CountedEncoder)
    prompts = [each.text for each in load_bank()]
    prompts = prompts[:: max(1, len(prompts) // (EDITS + QUESTIONS))]
    edits, questions = prompts[:EDITS], prompts[EDITS : EDITS + QUESTIONS]
    vectors = Vectors(encoder, folder)
    for first in until(stopped, range(0, len(edits), 64)):
        ForgetfulKeys(encoder, folder).encode(edits[first : first + 64])
    for name, kept, forgotten in (("in memory", folder, False), ("on disk", folder, True), ("not kept", None, True)):
        keys = ForgetfulKeys(encoder, kept)
        index = _index(models, vectors, keys, edits)
        part = index.compile("", [f"ed_{number}" for number in range(len(edits))])
        seconds, texts = [], []
        if not forgotten:
            keys.encode(edits)
        for question in until(stopped, questions):
            encoder.forget()
            if forgotten:
                keys.forget()
            encoder.count, began = 0, time.perf_counter()
            index.ranked(index.question((question,)), part)
            seconds.append(time.perf_counter() - began)
            texts.append(encoder.count)
        keep(
            name,
            {
                "decision_ms": round(1e3 * statistics.median(seconds), 1),
                "most_ms": round(1e3 * max(seconds), 1),
                "texts": statistics.median(texts),
            },
        )


def _index(models: ScopeModels, vectors: Vectors, keys: EncodedKeys, edits: Sequence[str]) -> ScopeIndex:
    closed = load_closed_words()
    index = ScopeIndex(models.encoder, models.decider(keys, closed), closed, vectors, Background(vectors))
    for number, text in enumerate(edits):
        index.load(f"ed_{number}", ScopeRecord(keys=[text], bound=BOUND).model_dump())
    return index
