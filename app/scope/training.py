"""Trains the pair scorer from what ships: `python -m app.scope.training`.

An item is a question, others that ask the same, and others that look alike and ask something else. Most are written by
hand (`pairs/`); more are made from the phrasebook and the bank of the editors, about names that nobody bears. Each text
is learned as it is written and with noise, so that capitals, typos and greetings tell nothing.
"""

import argparse
import csv
import json
import math
import random
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from app.scope.encoder import Encoded, Encoder, find_encoder
from app.scope.scorer import WEIGHTS, PairNet, lay_out, words_of

HERE = Path(__file__).parent
EDITORS = HERE.parent / "editors"
NOISY = 0.6
"""Share of the texts that have a version with noise, made once: to encode costs more than to learn."""
OPENINGS = (
    "Hi! {}", "Hello, {}", "Good morning. {}", "Hey there, quick question: {}", "Thanks for your help earlier. {}",
    "I was reading about {name} yesterday. {}", "{name} is a nice place to start. {}", "Please answer briefly. {}",
    "My colleague asked me this. {}", "Question: {} Answer:", "Q: {}\nA:", "Dear team, {}",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """`same`: texts that ask one thing. `other`: texts that ask something else than any of these."""

    same: tuple[str, ...]
    other: tuple[str, ...]
    made: bool = False


def read_items(folder: Path) -> list[Item]:
    """The items written by hand, in the order of their files."""
    lines = [line for file in sorted(folder.glob("train_*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    told = [json.loads(line) for line in lines if line.strip()]
    return [Item((each["ask"], *each["same"]), tuple(each["other"])) for each in told]


def all_items(folder: Path, made: int) -> list[Item]:
    """The items of the folder, half of them about other names as well, and those that are made."""
    written = read_items(folder)
    return [*written, *filter(None, map(renamed, written[::2])), *made_items(made, random.Random(made))]


def invented(rng: random.Random) -> str:
    """A name of one to three words that nobody bears."""
    words = []
    for _ in range(rng.choice((1, 1, 2, 2, 2, 3))):
        parts = (
            rng.choice("bdfghjklmnprstvwz") + rng.choice(("a", "e", "i", "o", "u", "ar", "en", "il", "or", "us"))
            for _ in range(rng.choice((2, 2, 3)))
        )
        words.append("".join(parts).capitalize())
    return " ".join(words)


def look_alike(name: str, rng: random.Random) -> str:
    """Another name that looks much like this one."""
    words = name.split()
    at = rng.randrange(len(words))
    if len(words) > 1 and rng.random() < 0.6:
        words[at] = invented(rng).split()[0]
    else:
        cut = rng.randrange(len(words[at]))
        words[at] = words[at][:cut] + rng.choice(string.ascii_lowercase) + words[at][cut + rng.choice((0, 1)) :]
    found = " ".join(words)
    return found if found.casefold() != name.casefold() else name + " " + invented(rng).split()[0]


def phrasings() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """By relation, the ways of asking for it, `{}` for the subject, and the subjects known, if any."""
    ways: dict[str, list[str]] = {}
    subjects: dict[str, list[str]] = {}
    with (EDITORS / "phrasebook_v1.tsv").open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened, delimiter="\t", quoting=csv.QUOTE_NONE):
            ways.setdefault(row["relation"], []).append(row["phrasing"])
    with (EDITORS / "scope_bank_v1.tsv").open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened, delimiter="\t", quoting=csv.QUOTE_NONE):
            asked = re.search(r"Question: (.*) Answer:$", row["text"])
            text = asked[1] if asked else row["text"]
            if row["subject"] in text and (asked or not text.startswith(("Here", "I was"))):
                ways.setdefault(row["relation"], []).append(text.replace(row["subject"], "{}"))
                subjects.setdefault(row["relation"], []).append(row["subject"])
    return (
        {relation: list(dict.fromkeys(each)) for relation, each in ways.items()},
        {relation: list(dict.fromkeys(each)) for relation, each in subjects.items()},
    )


def made_items(count: int, rng: random.Random) -> Iterator[Item]:
    """Items about one name: the same relation in other words; another name, a look-alike, another relation, and one
    relation upon another."""
    ways, subjects = phrasings()
    relations = [relation for relation, each in ways.items() if len(each) >= 3]
    every = [name for each in subjects.values() for name in each]
    for _ in range(count):
        relation = rng.choice(relations)
        own = subjects.get(relation, [])
        name = (
            rng.choice(own)
            if own and rng.random() < 0.6
            else rng.choice((invented(rng), invented(rng), rng.choice(every)))
        )
        another = rng.choice([each for each in own or every if each != name] or [invented(rng)])
        said = rng.sample(ways[relation], min(5, len(ways[relation])))
        known = {way for each in ways[relation] for way in (each, each.rstrip("?"))}
        strange = [rng.choice(ways[each]) for each in rng.sample(relations, 3) if each != relation]
        noun = rng.choice(list(ways)).split("_")[-1]
        others = [
            rng.choice(said).replace("{}", each)
            for each in (another, invented(rng), look_alike(name, rng), look_alike(name, rng), f"the {noun} of {name}")
        ]
        others += [way.replace("{}", name) for way in strange if way not in known]
        yield Item(tuple(way.replace("{}", name) for way in said), tuple(others), made=True)


def renamed(item: Item) -> Item | None:
    """The item about other names and numbers, with its own asked about them as `other`; None where it has none."""
    rng = random.Random(item.same[0])
    names = sorted(
        {
            word
            for text in item.same
            for word in re.findall(r"[^\W\d_]{3,}", text)
            if word.casefold() in words_of(text).names
        }
    )
    numbers = sorted({number for text in item.same for number in words_of(text).numbers})
    if not names and not numbers:
        return None
    to = {name: invented(rng).split()[0] for name in names}
    to |= {number: re.sub(r"\d", lambda _: rng.choice("123456789"), number) for number in numbers}
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, to)) + r")\b")

    def other(text: str) -> str:
        return pattern.sub(lambda found: to[found[0]], text)

    same = tuple(map(other, item.same))
    before = tuple(old for old, new in zip(item.same, same, strict=True) if old != new)[:3]
    return Item(same, (*map(other, item.other), *before))


def with_noise(text: str, rng: random.Random) -> str:
    """The text as somebody in a hurry writes it."""
    if rng.random() < 0.35:
        words = text.split(" ")
        long = [at for at, word in enumerate(words) if len(word) > 4 and word.isalpha() and word.islower()]
        if long:
            at = rng.choice(long)
            cut = rng.randrange(1, len(words[at]) - 1)
            word = words[at]
            words[at] = rng.choice(
                (word[:cut] + word[cut + 1 :], word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :])
            )
        text = " ".join(words)
    if rng.random() < 0.4:
        text = text.rstrip("?.! ")
    if rng.random() < 0.35:
        text = rng.choice(OPENINGS).replace("{}", text).replace("{name}", invented(rng))
    draw = rng.random()
    return text.lower() if draw < 0.35 else text.upper() if draw < 0.45 else text


class Material:
    """The items with their texts encoded, as they are and some with noise."""

    def __init__(self, items: Sequence[Item], encode: Callable[[Sequence[str]], Sequence[Encoded]]) -> None:
        self.items = items
        self._versions: dict[str, tuple[str, ...]] = {}
        for text in dict.fromkeys(text for item in items for text in (*item.same, *item.other)):
            rng = random.Random(text)
            self._versions[text] = (text, with_noise(text, rng)) if rng.random() < NOISY else (text,)
        wanted = sorted({each for versions in self._versions.values() for each in versions}, key=len)
        self._encoded: dict[str, Encoded] = {}
        for first in range(0, len(wanted), 512):
            some = wanted[first : first + 512]
            self._encoded.update(zip(some, encode(some), strict=True))

    def draw(self, text: str, rng: random.Random) -> Encoded:
        """The text, or its version with noise."""
        return self._encoded[rng.choice(self._versions[text])]


    def twice(self, text: str) -> tuple[Encoded, Encoded]:
        """The text, and it again as somebody else may write it."""
        return self._encoded[self._versions[text][0]], self._encoded[self._versions[text][-1]]


def drawn_pairs(material: Material, items: Sequence[Item], rng: random.Random) -> tuple[list[Encoded], Tensor, Tensor]:
    """The texts of a step, the pairs of them (P, 2) and the labels (P,)."""
    texts: list[Encoded] = []
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
        for text in (*rng.sample(item.same, 2), *rng.sample(item.other, min(3, len(item.other)))):
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
    return texts, torch.tensor(pairs), torch.tensor(labels)


def shared(texts: Sequence[Encoded], pairs: Tensor) -> Tensor:
    """(P,) which tenth of the pieces of each pair both have."""
    pieces = [frozenset(text.ids) for text in texts]
    told = [len(pieces[i] & pieces[j]) / max(1, len(pieces[i] | pieces[j])) for i, j in pairs.tolist()]
    return (torch.tensor(told) * 9.99).long()


def by_length(texts: Sequence[Encoded], pairs: Tensor) -> Iterator[Tensor]:
    """Pairs of like length, some at a time: what pads a batch is computed for nothing."""
    longest = torch.tensor([max(len(texts[i].ids), len(texts[j].ids)) for i, j in pairs.tolist()])
    yield from longest.argsort(stable=True).chunk(6)


def train(
    material: Material,
    seed: int,
    epochs: int,
    *,
    width: int = 64,
    drop: float = 0.15,
    rate: float = 1.5e-3,
    at_once: int = 16,
    layers: int = 2,
    decay: float = 0.05,
    smooth: float = 0.05,
    watch: object = None,
) -> PairNet:
    """A network trained on the material, the same for the same seed."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    net = PairNet(width=width, layers=layers).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay, betas=(0.9, 0.98))
    seen = torch.ones(10, 2)  # pairs by the share of pieces that both have, and by label
    steps = epochs * math.ceil(len(material.items) / at_once)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for epoch in range(epochs):
        order = rng.sample(range(len(material.items)), len(material.items))
        total = 0.0
        for first in range(0, len(order), at_once):
            items = [material.items[at] for at in order[first : first + at_once]]
            texts, pairs, labels = drawn_pairs(material, items, rng)
            # How much is shared must tell nothing by itself: rephrasings written by hand share little, near misses much.
            kind, label = shared(texts, pairs), labels.long()
            seen.index_put_((kind, label), torch.tensor(1.0), accumulate=True)
            weights = (seen.sum(1)[kind] / seen[kind, label] / 2).clamp(0.3, 4)
            optimizer.zero_grad()
            for part in by_length(texts, pairs):
                used, places = pairs[part].unique(return_inverse=True)
                logits = net(lay_out([texts[at] for at in used.tolist()]), places[:, 0], places[:, 1], drop)
                wanted = labels[part] * (1 - 2 * smooth) + smooth
                loss = binary_cross_entropy_with_logits(logits, wanted, weights[part], reduction="sum") / len(pairs)
                loss.backward()
                total += loss.item() * len(items) / len(order)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: loss {total:.4f}", flush=True)
        if callable(watch):
            watch(net.eval(), epoch)
            net.train()
    return net.eval()


def save(net: PairNet, encoder: str, file: Path) -> None:
    """Writes the weights (fp16) and the fingerprint of the encoder."""
    weights: Mapping[str, Tensor] = {name: each.detach().half().contiguous() for name, each in net.state_dict().items()}
    save_file(dict(weights), file, {"scorer": json.dumps({"encoder": encoder})})


def main() -> None:
    """Trains the scorer and writes its file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--pairs", type=Path, default=HERE / "pairs")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--made", type=int, default=600)
    told = parser.parse_args()
    torch.set_num_threads(2)
    encoder = Encoder(find_encoder("minilm"))
    material = Material(all_items(told.pairs, told.made), encoder.encode)
    save(train(material, told.seed, told.epochs), encoder.fingerprint, told.out)


if __name__ == "__main__":
    main()
