"""Trains the pair scorer. Each text is learned as it is written and with noise, so that capitals, typos and greetings
tell nothing.
"""

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence

from app.scope.encoder import EncodedText
from app.scope.scorer import TUNED, PairNet, TextBatch, batch_of
from app.scope.tuned_layers import TunedLayers
from app.scope_training.items import Item, with_noise

NOISY = 0.3
"""The share of texts with a noisy version, made once, as encoding costs more than learning."""
TUNED_RATE, TUNED_DECAY = 5e-4, 0.01
READ_AT_ONCE = 48
STRANGERS = 4
"""The number of likeliest questions of other items that each question of a step is to be told from. A namespace asks
its edits about everything, and one of many edits that answers what has nothing to do with it is one too many."""


class TrainingTexts:
    """The items with their encoded texts, some of them also with noise."""

    def __init__(
        self, items: Sequence[Item], encode: Callable[[Sequence[str]], Sequence[EncodedText]], noisy: float = NOISY
    ) -> None:
        """`noisy` is the share of texts that also have a version with noise."""
        self.items = items
        self._versions: dict[str, tuple[str, ...]] = {}
        for text in dict.fromkeys(text for item in items for text in (*item.same, *item.other)):
            rng = random.Random(text)
            self._versions[text] = (text, with_noise(text, rng)) if rng.random() < noisy else (text,)
        wanted = sorted({each for versions in self._versions.values() for each in versions}, key=len)
        self._encoded: dict[str, EncodedText] = {}
        for first in range(0, len(wanted), 512):
            some = wanted[first : first + 512]
            with halved():
                self._encoded.update(zip(some, encode(some), strict=True))

    @property
    def encoder_width(self) -> int:
        return len(next(iter(self._encoded.values())).vector)

    def draw(self, text: str, rng: random.Random) -> EncodedText:
        """The text, or its version with noise."""
        return self._encoded[rng.choice(self._versions[text])]

    def twice(self, text: str) -> tuple[EncodedText, EncodedText]:
        """The text, and the same text as somebody else may write it."""
        return self._encoded[self._versions[text][0]], self._encoded[self._versions[text][-1]]


def drawn_pairs(
    material: TrainingTexts, items: Sequence[Item], rng: random.Random
) -> tuple[list[EncodedText], Tensor, Tensor, Tensor]:
    """The texts of a step, the pairs of them (P, 2), the labels (P,), and the place (I,) of each item's question."""
    texts: list[EncodedText] = []
    pairs: list[tuple[int, int]] = []
    labels: list[float] = []
    asks: list[int] = []
    for item in items:
        same = [len(texts) + at for at in range(min(5, len(item.same)))]
        texts += [material.draw(text, rng) for text in rng.sample(item.same, len(same))]
        other = [len(texts) + at for at in range(min(6, len(item.other)))]
        texts += [material.draw(text, rng) for text in rng.sample(item.other, len(other))]
        alike = [(i, j) for i in same for j in same if i != j]
        apart = [pair for i in same for j in other for pair in ((i, j), (j, i))]
        for some, label in (
            (rng.sample(alike, min(8, len(alike))), 1.0),
            (rng.sample(apart, min(14, len(apart))), 0.0),
        ):
            pairs += some
            labels += [label] * len(some)
        for text in (rng.choice(item.same), rng.choice(item.other)):
            pairs.append((len(texts), len(texts) + 1))
            labels.append(1.0)
            texts += material.twice(text)
        asks.append(same[0])
    vectors = torch.stack([texts[at].vector for at in asks])
    near = (vectors @ vectors.T).fill_diagonal_(-1).topk(min(2, len(asks) - 1), -1).indices
    for row, at in enumerate(asks):
        strange = [asks[other] for other in near[row].tolist()] + rng.choices(asks, k=2)
        pairs += [(at, other) for other in strange if other != at]
        labels += [0.0 for other in strange if other != at]
    return texts, torch.tensor(pairs), torch.tensor(labels), torch.tensor(asks)


def strangers(net: PairNet, sheet: TextBatch) -> Tensor:
    """The pairs (STRANGERS * I, 2) of a batch of I unrelated questions that the network takes most for the same."""
    count = len(sheet.words)
    apart = torch.cartesian_prod(torch.arange(count), torch.arange(count))
    apart = apart[apart[:, 0] != apart[:, 1]]
    with torch.no_grad():
        logits = net(sheet, *apart.T).float()
    return apart[logits.topk(min(STRANGERS * count, len(apart))).indices]


def shared(texts: Sequence[EncodedText], pairs: Tensor) -> Tensor:
    """The share (P,) of word pieces that both texts of each pair have, in tenths, from 0 to 9."""
    pieces = [frozenset(text.ids) for text in texts]
    overlaps = [len(pieces[i] & pieces[j]) / max(1, len(pieces[i] | pieces[j])) for i, j in pairs.tolist()]
    return (torch.tensor(overlaps) * 9.99).long()


def by_length(texts: Sequence[EncodedText], pairs: Tensor) -> Iterator[Tensor]:
    """Batches of pairs of similar length, which need little padding."""
    longest = torch.tensor([max(len(texts[i].ids), len(texts[j].ids)) for i, j in pairs.tolist()])
    yield from longest.argsort(stable=True).chunk(6)


def train(
    material: TrainingTexts,
    seed: int,
    epochs: int,
    *,
    net: PairNet | None = None,
    tuned: TunedLayers | None = None,
    width: int = 64,
    drop: float = 0.15,
    rate: float = 1.5e-3,
    at_once: int = 16,
    layers: int = 2,
    decay: float = 0.05,
    smooth: float = 0.05,
    watch: Callable[[PairNet, int], None] | None = None,
) -> PairNet:
    """Train a network on the material, the same for the same seed; or continue with `net`, and with the encoder's
    `tuned` layers, which are changed in place."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    net = (net or PairNet(material.encoder_width, width, layers)).train()
    groups: list[dict[str, object]] = [{"params": list(net.parameters()), "weight_decay": decay}]
    if tuned is not None:
        groups.append({"params": list(tuned.learned().values()), "weight_decay": TUNED_DECAY})
    learned = [each for group in groups for each in group["params"]]  # type: ignore[attr-defined]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    seen = torch.ones(10, 2)  # pairs by the share of pieces that both have, and by label
    steps = epochs * math.ceil(len(material.items) / at_once)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for epoch in range(epochs):
        order = rng.sample(range(len(material.items)), len(material.items))
        total = 0.0
        for first in range(0, len(order), at_once):
            items = [material.items[at] for at in order[first : first + at_once]]
            texts, pairs, labels, asks = drawn_pairs(material, items, rng)
            # What is shared must tell nothing by itself: rephrasings written by hand share little, near misses much.
            kind, label = shared(texts, pairs), labels.long()
            seen.index_put_((kind, label), torch.tensor(1.0), accumulate=True)
            weights = (seen.sum(1)[kind] / seen[kind, label] / 2).clamp(0.3, 4)
            wanted = labels * (1 - 2 * smooth) + smooth
            optimizer.zero_grad()
            with halved():
                upper = _Upper(tuned, texts)
                prompts = [texts[at] for at in asks.tolist()]
                strange = asks[strangers(net, batch_of(prompts, upper.of(prompts)))]
            pairs = torch.cat([pairs, strange])
            weights, wanted = (
                torch.cat([each, each.new_full((len(strange),), value)])
                for each, value in ((weights, 1.0), (wanted, 0.0))
            )
            for part in by_length(texts, pairs):
                used, places = torch.unique(pairs[part], return_inverse=True)
                some = [texts[at] for at in used.tolist()]
                with halved():
                    logits = net(batch_of(some, upper.of(some)), places[:, 0], places[:, 1], drop).float()
                loss = binary_cross_entropy_with_logits(logits, wanted[part], weights[part], reduction="sum")
                loss = loss / len(pairs)
                torch.autograd.backward(loss)
                total += loss.item() * len(items) / len(order)
            upper.learn()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            schedule.step()
            done = first + len(items)
            if done % (20 * at_once) == 0:
                print(f"\repoch {epoch + 1}/{epochs}: {done}/{len(order)} items", end="", flush=True)
        print(f"\repoch {epoch + 1}/{epochs}: loss {total:.4f}                ", flush=True)
        if watch is not None:
            watch(net.eval(), epoch)
            net.train()
    return net.eval()


class _Upper:
    """The upper states of a step's texts. The tuned layers read each text once, although it is part of many pairs."""

    def __init__(self, tuned: TunedLayers | None, texts: Sequence[EncodedText]) -> None:
        self._rows: dict[str, Tensor] = {}
        self._read = self._leaf = torch.zeros(0, 0)
        if tuned is not None:
            self._read_all(tuned, sorted({text.text: text for text in texts}.values(), key=lambda text: len(text.ids)))

    def _read_all(self, tuned: TunedLayers, texts: Sequence[EncodedText]) -> None:
        parts, first = [], 0
        for at in range(0, len(texts), READ_AT_ONCE):
            some = texts[at : at + READ_AT_ONCE]
            hidden = pad_sequence([text.middle.float() for text in some], batch_first=True)
            sizes = torch.tensor([len(text.ids) for text in some])[:, None]
            place = torch.arange(hidden.shape[1])
            parts.append(tuned(hidden, place < sizes + 2)[(place > 0) & (place <= sizes)])
        for text in texts:
            self._rows[text.text] = torch.arange(first, first + len(text.ids))
            first += len(text.ids)
        self._read = torch.cat(parts)
        self._leaf = self._read.detach().requires_grad_()

    def of(self, texts: Sequence[EncodedText]) -> Tensor | None:
        """The upper states of a batch's tokens; None uses those of the encoder."""
        if not self._rows:
            return None
        return self._leaf.index_select(0, torch.cat([self._rows[text.text] for text in texts]))

    def learn(self) -> None:
        """Backpropagate the gradients of the states, gathered from all pairs, through the tuned layers."""
        if self._leaf.grad is not None:
            torch.autograd.backward(self._read, self._leaf.grad)


@contextmanager
def halved() -> Iterator[None]:
    """Autocast to bfloat16 where the processor multiplies in it, which more than halves the time. Elsewhere bfloat16
    is emulated, and a step would take ten times as long. Attention is computed plainly: on a CPU the backward pass of
    the fused kernel takes a third of a step."""
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    with torch.autocast("cpu", torch.bfloat16, enabled=native), sdpa_kernel(SDPBackend.MATH):
        yield


def save(net: PairNet, tuned: TunedLayers | None, encoder: str, file: Path) -> None:
    """Write the weights (fp16) and the fingerprint of the encoder."""
    weights = dict(net.state_dict())
    if tuned is not None:
        weights |= {TUNED + name: each for name, each in tuned.learned().items()}
    halved = {name: each.detach().half().contiguous() for name, each in weights.items()}
    save_file(halved, file, {"scorer": json.dumps({"encoder": encoder})})
