"""A cross-encoder as a judge: a sequence-classification model with one logit, which reads two questions at once."""

import asyncio
import hashlib
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from app.domain.errors import InvalidRequest
from app.scope.doubt import Doubt

MOST_TOKENS = 512
"""The most tokens of two questions together; longer ones are cut at the end."""
ADVICE = (
    "ERRATA_JUDGE takes `off`, `hosted`, or the folder of a cross-encoder: a transformers sequence-classification "
    "model with one logit, such as the cross-encoders of sentence-transformers."
)


class CrossEncoder:
    """A judge that computes on the CPU, one question at a time, and never on the engine's thread. Its weights are read
    at first use, so that a judge that has failed its exam takes no memory."""

    def __init__(self, folder: Path) -> None:
        """Prepare a model for use. Raises InvalidRequest for a folder without such a model."""
        from transformers import AutoConfig  # the slow half of a start, wanted only here

        if not (folder / "config.json").is_file():
            raise InvalidRequest(f"There is no model in {str(folder)!r}: {ADVICE}")
        try:
            logits = AutoConfig.from_pretrained(folder).num_labels
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{str(folder)!r} cannot be read ({error}): {ADVICE}") from error
        if logits != 1:
            raise InvalidRequest(f"The model in {str(folder)!r} has {logits} logits: {ADVICE}")
        self._folder = folder
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name of the model, without its path: everybody who may ask for the server's state sees it."""
        return self._folder.resolve().name

    def fingerprint(self) -> str:
        digest = hashlib.sha256(b"cross-encoder")
        weights = [*self._folder.glob("*.safetensors"), *self._folder.glob("pytorch_model*.bin")]
        texts = [*self._folder.glob("*.json"), *self._folder.glob("*.txt"), *self._folder.glob("*.model")]
        for file in sorted((*weights, *texts)):
            with file.open("rb") as opened:
                digest.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()} ".encode())
        return digest.hexdigest()

    async def logit(self, doubt: Doubt) -> float:
        """The logit of the key nearest to the question. A question nearer to a counter-example gets minus infinity."""
        logits = await asyncio.to_thread(self._logits, doubt.question, (*doubt.keys, *doubt.counter))
        own, counter = logits[: len(doubt.keys)], logits[len(doubt.keys) :]
        return -math.inf if counter and max(counter) > max(own) else max(own)

    @torch.inference_mode()
    def _logits(self, question: str, others: Sequence[str]) -> list[float]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            tokenizer, model = self._loaded
            batch = tokenizer(
                [question] * len(others),
                list(others),
                padding=True,
                truncation=True,
                max_length=MOST_TOKENS,
                return_tensors="pt",
            )
            logits: list[float] = model(**batch).logits[:, 0].tolist()
        return logits

    def _load(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(self._folder)
        model: Any = AutoModelForSequenceClassification.from_pretrained(self._folder, dtype=torch.float32)
        return tokenizer, model.eval()
