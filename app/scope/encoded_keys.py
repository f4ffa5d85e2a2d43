"""The encoded texts of edits, kept in memory and on disk.

A question is compared with some thirty texts of the edits near it. Encoding them takes several times as long as the
rest of the decision, and the states of all of them do not fit into memory beside ten thousand edits.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from app.scope.blob_cache import BlobCache
from app.scope.encoder import EncodedText, Encoder, Pieces

IN_MEMORY = 8192
"""Texts kept in memory, at 1.5 KB a word piece: 200 MB for questions of 16 pieces."""
ON_DISK = 1 << 30
"""The most bytes kept on disk: about 40,000 questions of 16 pieces."""
WAIT_S = 0.1
"""The longest wait for a locked file, in seconds: a request waits meanwhile, and computing takes less than that."""


class EncodedKeys:
    """Encodes the texts of edits and keeps the results: on disk the states alone, by the hash of the text."""

    def __init__(self, encoder: Encoder, folder: Path | None = None, version: str = "") -> None:
        """`version` names the scorer whose tuned layers computed the states. Without a folder nothing is on disk."""
        self._encoder = encoder
        name = f"states-{encoder.fingerprint}-{version}.sqlite"
        self._cache = BlobCache(None if folder is None else folder / name, ON_DISK, WAIT_S)
        self._lock = threading.Lock()
        self._held: OrderedDict[str, EncodedText] = OrderedDict()

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Encode texts, in order, or read them from where they are kept."""
        with self._lock:
            encoded = {text: each for text in texts if (each := self._held.get(text)) is not None}
        if missing := [text for text in dict.fromkeys(texts) if text not in encoded]:
            encoded |= self._cached(missing)
            if new := [text for text in missing if text not in encoded]:
                computed = dict(zip(new, self._encoder.encode(new), strict=True))
                self._cache.store({text: _packed(each) for text, each in computed.items()})
                encoded |= computed
        with self._lock:
            for text, each in encoded.items():
                self._held[text] = each
                self._held.move_to_end(text)
            while len(self._held) > IN_MEMORY:
                self._held.popitem(last=False)
        return [encoded[text] for text in texts]

    def _cached(self, texts: Sequence[str]) -> dict[str, EncodedText]:
        blobs = self._cache.load(texts)
        pieces = self._encoder.pieces(list(blobs))
        read = (self._unpacked(text, blob, some) for (text, blob), some in zip(blobs.items(), pieces, strict=True))
        return {each.text: each for each in read if each is not None}

    def _unpacked(self, text: str, blob: bytes, pieces: Pieces) -> EncodedText | None:
        """None for bytes that are no states of this text."""
        with suppress(SafetensorError, KeyError):
            read = load(blob)
            width = self._encoder.width
            shapes = {"vector": (width,), "middle": (len(pieces.ids) + 2, width), "upper": (len(pieces.ids), width)}
            if all(read[name].shape == shape for name, shape in shapes.items()):
                return EncodedText(text, read["vector"], read["middle"], read["upper"], *pieces)
        return None


def _packed(encoded: EncodedText) -> bytes:
    """The states, without the word pieces: they would say the text."""
    return save({name: getattr(encoded, name).contiguous() for name in ("vector", "middle", "upper")})
