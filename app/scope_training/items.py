"""The pair scorer's training items: some were written by hand, and some are generated.

An item is a question, others that ask the same, and others that look alike and ask something else. Most are written by
hand (`pairs/`); more are made from the phrasebook and the bank, about names that nobody bears.
"""

import csv
import hashlib
import json
import random
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.scope.bank import BANK
from app.scope.phrasebook import FILE as PHRASEBOOK
from app.scope.scorer import words_of

PAIRS = Path(__file__).parent / "pairs"
SCOPE = Path(__file__).parents[1] / "scope"
OPENINGS = (
    "Hi! {}", "Hello, {}", "Good morning. {}", "Hey there, quick question: {}", "Thanks for your help earlier. {}",
    "I was reading about {name} yesterday. {}", "{name} is a nice place to start. {}", "Please answer briefly. {}",
    "My colleague asked me this. {}", "Question: {} Answer:", "Q: {}\nA:", "Dear team, {}",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """Texts in `same` ask one thing. Texts in `other` ask something else than any of these."""

    same: tuple[str, ...]
    other: tuple[str, ...]
    made: bool = False


def read_items(folder: Path, field: str = "*") -> list[Item]:
    """Read the items written by hand, in the order of their files, or those of one field."""
    lines = [
        line for file in sorted(folder.glob(f"train_{field}.jsonl")) for line in file.read_text("utf-8").splitlines()
    ]
    rows = [json.loads(line) for line in lines if line.strip()]
    return [Item((each["ask"], *each["same"]), tuple(each["other"])) for each in rows]


def read_intents(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Read (field, utterances) of each intent: all utterances that one help article answers. Intents of one field are
    neighbours."""
    lines = (folder / "intents.jsonl").read_text("utf-8").splitlines()
    return [(each["domain"], tuple(each["texts"])) for each in map(json.loads, filter(None, lines))]


def held_out(item: Item) -> bool:
    """True if the item is kept from training, as one in eight is: these judge the scorer and fit the match model."""
    return int(hashlib.md5(item.same[0].encode()).hexdigest(), 16) % 1000 < 120


def all_items(folder: Path, made: int, focus: Sequence[str] = (), rest: float = 1.0) -> list[Item]:
    """The training items of a folder, half of them also with other names, and the generated ones. With a `focus`, all
    items of these fields are taken, and of the others the share `rest`."""
    written = read_items(folder)
    if focus:
        wanted, rng = {item for field in focus for item in read_items(folder, field)}, random.Random(0)
        written = [item for item in written if item in wanted or rng.random() < rest]
    kept = [item for item in written if not held_out(item)]
    others = (renamed(item) for item in written[::2] if not held_out(item))
    return [*kept, *filter(None, others), *made_items(made, folder, random.Random(made))]


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
    text = " ".join(words)
    return text if text.casefold() != name.casefold() else name + " " + invented(rng).split()[0]


def phrasings(folder: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The phrasings of each relation, with `{}` for the subject, and its known subjects, if any: those that ship, and
    those in `relations.tsv` of a folder of pairs."""
    ways: dict[str, list[str]] = {}
    subjects: dict[str, list[str]] = {}
    for file in (SCOPE / PHRASEBOOK, *folder.glob("relations.tsv")):
        with file.open(encoding="utf-8", newline="") as opened:
            for row in csv.DictReader(opened, delimiter="\t", quoting=csv.QUOTE_NONE):
                ways.setdefault(row["relation"], []).append(row["phrasing"])
    with (SCOPE / BANK).open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened, delimiter="\t", quoting=csv.QUOTE_NONE):
            match = re.search(r"Question: (.*) Answer:$", row["text"])
            text = match[1] if match else row["text"]
            if row["subject"] in text and (match or not text.startswith(("Here", "I was"))):
                ways.setdefault(row["relation"], []).append(text.replace(row["subject"], "{}"))
                subjects.setdefault(row["relation"], []).append(row["subject"])
    return (
        {relation: list(dict.fromkeys(each)) for relation, each in ways.items()},
        {relation: list(dict.fromkeys(each)) for relation, each in subjects.items()},
    )


def made_items(count: int, folder: Path, rng: random.Random) -> Iterator[Item]:
    """Generated items about one name. Their `other` texts ask for another name, a similar name, another relation, or
    one relation of another."""
    ways, subjects = phrasings(folder)
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
    """The item with other names and numbers, and its own questions as `other`; None if it has neither."""
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
        return pattern.sub(lambda match: to[match[0]], text)

    same = tuple(map(other, item.same))
    before = tuple(old for old, new in zip(item.same, same, strict=True) if old != new)[:3]
    return Item(same, (*map(other, item.other), *before))


def with_noise(text: str, rng: random.Random) -> str:
    """The text as written in a hurry."""
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
