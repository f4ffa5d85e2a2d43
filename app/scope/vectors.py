"""A cache of sentence vectors between starts, because encoding a hundred thousand edits again would take minutes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from app.scope.blob_cache import BlobCache
from app.scope.encoder import Encoder


class Vectors:
    """Computes vectors (N, E) fp32 of length 1, and caches those of edits. Without a folder nothing is cached."""

    def __init__(self, encoder: Encoder, folder: Path | None = None) -> None:
        self._encoder = encoder
        self._cache = BlobCache(None if folder is None else folder / f"vectors-{encoder.fingerprint}.sqlite")

    def of(self, texts: Sequence[str]) -> Tensor:
        """The vectors of texts, from the cache as far as it has them."""
        size = 4 * self._encoder.width
        known = {text: blob for text, blob in self._cache.load(texts).items() if len(blob) == size}
        if missing := [text for text in dict.fromkeys(texts) if text not in known]:
            computed = self._encoder.vectors(missing)
            new = {text: vector.numpy().tobytes() for text, vector in zip(missing, computed, strict=True)}
            self._cache.store(new)
            known |= new
        vectors = torch.zeros(len(texts), self._encoder.width)
        for at, text in enumerate(texts):
            vectors[at] = torch.frombuffer(bytearray(known[text]), dtype=torch.float32)
        return vectors

    def uncached(self, texts: Sequence[str]) -> Tensor:
        """The vectors of people's questions, which are never written to disk."""
        return self._encoder.vectors(texts)
