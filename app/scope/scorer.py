"""The pair scorer: it reads, from the frozen encoder's token states, whether two questions ask the same.

Each token looks for its like in the other text, and what it finds there, and finds missing, is read by a transformer
of two layers. It runs on the few keys that lie nearest to a question; `python -m app.scope_training` trains it.
"""

import copy
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, normalize, pad, scaled_dot_product_attention

from app.scope.encoder import EncodedText

WEIGHTS = Path(__file__).parent / "scorer_v1.safetensors"
TUNED = "tuned."
"""The prefix, in its file, of the tensors that tune the encoder's upper layers."""
HEADS = 4
MARKS = 6
"""The number of features of a token by itself; see `_marks`."""
MATCHES = 7
"""The number of features of a token beside the other text; see `_matches`."""
SCALARS = 12
"""The number of features of a pair as a whole; see `PairNet._scalars`."""
PAIRS_AT_ONCE = 256
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True)
class TextWords:
    """The words of a text as spelled, which an uncased encoder does not see."""

    every: frozenset[str]
    names: frozenset[str]
    """The capitalised words that do not open a sentence; none if the whole text is in capitals."""
    numbers: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class TextBatch:
    """A padded batch of M texts: vectors (M, E); states (M, T, 2, E), each of length 1; marks (M, T, MARKS); ids (M,
    T); and real (M, T), true where a text has a token."""

    vectors: Tensor
    states: Tensor
    marks: Tensor
    ids: Tensor
    real: Tensor
    words: Sequence[TextWords]


def batch_of(texts: Sequence[EncodedText], upper: Tensor | None = None) -> TextBatch:
    """The batch of these texts, with their upper states or with the given ones, (N, E) for the N tokens of all texts. A
    text without tokens gets one token of zeros, so that there is something to attend to."""
    sizes = torch.tensor([len(text.ids) for text in texts])
    token = torch.arange(max(1, int(sizes.max()))) < sizes[:, None]
    if upper is None:
        upper = torch.cat([text.upper.float() for text in texts])
    middle = torch.cat([text.middle[1:-1].float() for text in texts])
    marks = torch.cat([_marks(text.text, text.ids, text.begins).view(-1, MARKS) for text in texts])
    ids = torch.tensor([piece for text in texts for piece in text.ids], dtype=torch.long)

    def padded(rows: Tensor) -> Tensor:
        return rows.new_zeros(*token.shape, *rows.shape[1:]).index_put((token,), rows)

    states = normalize(padded(torch.stack([middle, upper.float()], 1)), dim=-1)
    real = token.index_fill(1, torch.tensor(0), value=True)
    vectors = torch.stack([text.vector for text in texts])
    return TextBatch(vectors, states, padded(marks), padded(ids), real, [words_of(text.text) for text in texts])


@lru_cache(maxsize=8192)
def words_of(text: str) -> TextWords:
    """The words, names and numbers of a text. Names are folded, because the other text may be in lower case."""
    words = list(_WORD.finditer(text))
    large = sum(word[0].isupper() for word in words) > len(words) / 2
    names = {
        word[0].casefold().removesuffix("'s").removesuffix("’s")
        for word in words
        if word[0][0].isupper()
        and not large
        and text[: word.start()].rstrip(" \"'“‘(")[-1:] not in ("", ".", "!", "?", ":")
    }
    every = {word[0].casefold().removesuffix("'s").removesuffix("’s") for word in words}
    return TextWords(frozenset(every), frozenset(names), frozenset(_NUMBER.findall(text)))


@lru_cache(maxsize=8192)
def _marks(text: str, ids: tuple[int, ...], begins: tuple[int, ...]) -> Tensor:
    """The marks (T, MARKS) of each token: the rarity of its piece (the vocabulary is ordered by frequency), whether it
    has a capital, is a digit or continues a word, and its position from either end."""
    size, marks = len(ids), []
    for at, (piece, begin) in enumerate(zip(ids, begins, strict=True)):
        letter, before = text[begin : begin + 1], text[begin - 1 : begin] if begin else ""
        marks.append(
            [
                (math.log(piece + 1) - 8.5) / 1.2,
                float(letter.isupper() and at > 0),
                float(letter.isdigit()),
                float(before.isalnum() and letter.isalnum()),
                1 / (1 + at),
                1 / (size - at),
            ]
        )
    return torch.tensor(marks)


class TransformerBlock(nn.Module):
    """A transformer layer with normalisation first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, real: Tensor, drop: float) -> Tensor:
        """x (P, T, D), real (P, T) -> (P, T, D)."""
        pairs, size, width = x.shape
        q, k, v = self.mix(self.first(x)).view(pairs, size, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None, :])
        x = x + dropout(self.out(seen.transpose(1, 2).reshape(x.shape)), drop, self.training)
        return x + dropout(self.down(gelu(self.up(self.second(x)))), drop, self.training)


def _matches(cosines: Tensor, bond: Tensor, same: Tensor, share: Tensor) -> Tensor:
    """The features (P, T, MATCHES) of each token beside the other text: its best cosines, the number of its piece's
    occurrences there, and the distance of its match from the previous token's match and from its own position."""
    at = bond.detach().argmax(-1).float()
    step = pad((at[:, 1:] - at[:, :-1]).clamp(-4, 4) / 4, (1, 0))
    drift = (at - torch.arange(at.shape[1])).clamp(-8, 8) / 8
    place = share @ (torch.arange(share.shape[-1]) / 16).clamp(max=2)
    count = same.sum(-1)
    return torch.stack([*cosines.amax(-1), (count > 0).float(), count.clamp(max=3) / 3, step, drift, place], -1)


class PairNet(nn.Module):
    """The network: pairs of texts of a batch -> logits."""

    def __init__(self, encoder_width: int = 384, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.project = nn.Linear(2 * encoder_width, width, bias=False)
        self.align = nn.Parameter(torch.tensor([8.0, 8.0, 2.0]))
        self.own, self.like = nn.Linear(width + MARKS, width), nn.Linear(width, width, bias=False)
        self.beside = nn.Linear(2 * width + MATCHES, width, bias=False)
        self.side = nn.Parameter(torch.zeros(2, width))
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.weigh = nn.Linear(width, HEADS)
        self.whole = nn.Linear((HEADS + 1) * width + SCALARS, width)
        self.judge = nn.Linear(width, 1)

    def forward(self, sheet: TextBatch, left: Tensor, right: Tensor, drop: float = 0.0) -> Tensor:
        """The logits (P,) of the pairs of texts left[i] (P,) and right[i] (P,)."""
        states = sheet.states.flatten(2)  # (M, T, 2E)
        said = self.project(dropout(states, drop, self.training) * math.sqrt(states.shape[-1] / 2))
        own, like = self.own(torch.cat([said, sheet.marks], -1)), self.like(said)  # of texts, not of pairs: cheaper
        cosines = torch.stack([sheet.states[left, :, at] @ sheet.states[right, :, at].transpose(1, 2) for at in (0, 1)])
        pair = sheet.real[left][:, :, None] & sheet.real[right][:, None, :]
        same = (sheet.ids[left][:, :, None] == sheet.ids[right][:, None, :]) & pair
        bond = self.align[0] * cosines[0] + self.align[1] * cosines[1] + self.align[2] * same
        bond = bond.masked_fill(~pair, -1e4)
        cosines = cosines.masked_fill(~pair, -1.0)
        x, best = [], []
        for side, (a, b) in enumerate(((left, right), (right, left))):
            share = bond.softmax(-1)  # (P, T, T)
            matched = torch.cat([said, like], -1)[b]
            attended, alike = (share @ matched).chunk(2, -1)
            mine = said[a]
            compared = torch.cat([mine * attended, (mine - attended).abs(), _matches(cosines, bond, same, share)], -1)
            x.append(own[a] + alike + self.beside(compared) + self.side[side])
            best.append(cosines.amax(-1))
            bond, cosines, same = bond.transpose(-1, -2), cosines.transpose(-1, -2), same.transpose(-1, -2)
        tokens = torch.cat(x, 1)
        real = torch.cat([sheet.real[left], sheet.real[right]], 1)
        for block in self.blocks:
            tokens = block(tokens, real, drop)
        tokens = self.last(tokens)
        weights = self.weigh(tokens).masked_fill(~real[..., None], -torch.inf).softmax(1)  # (P, T, HEADS)
        pooled = (weights.transpose(1, 2) @ tokens).flatten(1)
        most = tokens.masked_fill(~real[..., None], -torch.inf).amax(1)
        joined = dropout(torch.cat([pooled, most], 1), drop, self.training)
        joined = torch.cat([joined, self._scalars(sheet, left, right, best)], 1)
        judged: Tensor = self.judge(dropout(gelu(self.whole(joined)), drop, self.training))
        return judged[:, 0]

    def _scalars(self, sheet: TextBatch, left: Tensor, right: Tensor, best: Sequence[Tensor]) -> Tensor:
        """The features (P, SCALARS) of each pair: the cosine; the mean and minimum of the tokens' best cosines, for
        each layer and side; the numbers of names that the other text lacks; and of numbers that differ."""
        scalars = [(sheet.vectors[left] * sheet.vectors[right]).sum(-1)]
        for side, texts in zip(best, (left, right), strict=True):
            real = sheet.real[texts]
            for layer in side:
                scalars.append((layer * real).sum(-1) / real.sum(-1))
                scalars.append(layer.masked_fill(~real, 1.0).amin(-1))
        words = [(sheet.words[i], sheet.words[j]) for i, j in zip(left.tolist(), right.tolist(), strict=True)]
        differences = [
            [
                len(a.names - b.every) / max(1, len(a.names)),
                len(b.names - a.every) / max(1, len(b.names)),
                min(3, len(a.numbers ^ b.numbers)) / 3,
            ]
            for a, b in words
        ]
        return torch.cat([torch.stack(scalars, -1), torch.tensor(differences)], 1)


class PairScorer:
    """Scores, as a logit, whether two questions ask the same."""

    def __init__(self, weights: Mapping[str, Tensor], encoder: str = "") -> None:
        """`encoder` is the fingerprint of the encoder with which the scorer was trained, and `learned` holds the tuning
        of the encoder's upper layers."""
        self.learned = {name.removeprefix(TUNED): each for name, each in weights.items() if name.startswith(TUNED)}
        own = {name: each.float() for name, each in weights.items() if not name.startswith(TUNED)}
        width, read = own["project.weight"].shape
        layers = len({name.split(".")[1] for name in own if name.startswith("blocks.")})
        self._net = PairNet(read // 2, width, layers).eval()
        self._net.load_state_dict(own)
        self.encoder = encoder
        digest = hashlib.sha256(encoder.encode())
        for name in sorted(weights):
            digest.update(weights[name].half().numpy().tobytes())
        self.fingerprint = digest.hexdigest()[:16]

    def network(self) -> PairNet:
        """A copy of the network, for further training."""
        return copy.deepcopy(self._net)

    def score(self, question: EncodedText, keys: Sequence[EncodedText]) -> Tensor:
        """The logits (N,) fp32 of each key, above 0 if `question` asks the same."""
        return self.table([question], keys)[0]

    @torch.inference_mode()
    def table(self, questions: Sequence[EncodedText], keys: Sequence[EncodedText]) -> Tensor:
        """The logits (A, N) fp32 of each text beside each key."""
        if not keys or not questions:
            return torch.zeros(len(questions), len(keys))
        sheet = batch_of([*questions, *keys])
        left, right = torch.cartesian_prod(torch.arange(len(questions)), torch.arange(len(keys))).T
        parts = zip(left.split(PAIRS_AT_ONCE), right.split(PAIRS_AT_ONCE), strict=True)
        return torch.cat([self._net(sheet, one, len(questions) + other) for one, other in parts]).view(
            len(questions), -1
        )


def load_scorer(file: Path = WEIGHTS) -> PairScorer:
    """Load the scorer that ships, or that of another file."""
    with safe_open(file, "pt") as opened:
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        header: dict[str, str] = json.loads((opened.metadata() or {}).get("scorer", "{}"))
    return PairScorer(weights, header.get("encoder", ""))
