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
from app.scope.decision import ScopeDecider
from app.scope.encoded_keys import EncodedKeys
from app.scope.encoder import EncodedText, Encoder, find_encoder
from app.scope.index import ScopeIndex
from app.scope.match_model import load_match_model
from app.scope.record import ScopeRecord
from app.scope.scorer import load_scorer
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
    scorer = load_scorer()
    encoder = CountedEncoder(find_encoder("minilm"), scorer.learned)
    prompts = [each.text for each in load_bank()]
    prompts = prompts[:: max(1, len(prompts) // (EDITS + QUESTIONS))]
    edits, questions = prompts[:EDITS], prompts[EDITS : EDITS + QUESTIONS]
    vectors = Vectors(encoder, folder)
    for first in until(stopped, range(0, len(edits), 64)):
        ForgetfulKeys(encoder, folder).encode(edits[first : first + 64])
    for name, kept, forgotten in (("in memory", folder, False), ("on disk", folder, True), ("not kept", None, True)):
        keys = ForgetfulKeys(encoder, kept)
        index = _index(encoder, vectors, keys, edits)
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


def _index(encoder: Encoder, vectors: Vectors, keys: EncodedKeys, edits: Sequence[str]) -> ScopeIndex:
    closed = load_closed_words()
    decider = ScopeDecider(encoder, keys, load_scorer(), load_match_model(), closed)
    index = ScopeIndex(encoder, decider, closed, vectors, Background(vectors))
    for number, text in enumerate(edits):
        index.load(f"ed_{number}", ScopeRecord(keys=[text], bound=BOUND).model_dump())
    return index
