"""What is asked: prompts of a wanted length out of generic text, and how long their answers shall be. Seeded."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

TEXTS = 500
"""Of the generic text, which prompts are cut from."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt, as text and as the ids that it is served as, and the tokens wanted of its answer."""

    prompt: str
    ids: tuple[int, ...]
    tokens: int


class Workload:
    """Prompts of a tokenizer, cut from texts. No two begin alike."""

    def __init__(self, tokenizer: Any, texts: Iterable[str], seed: int) -> None:
        self._tokenizer = tokenizer
        self._words = [word for text in islice(texts, TEXTS) for word in text.split()]
        self._random = random.Random(seed)

    def prompt(self, tokens: int) -> Ask:
        """A prompt of so many tokens, give or take a word."""
        words = [str(self._random.randrange(10_000, 100_000))]
        start, count = self._random.randrange(len(self._words)), 0
        ids: list[int] = []
        while len(ids) < tokens:
            count = max(count + 1, count * tokens // max(1, 2 * len(ids)))
            ids = self._tokenizer(" ".join(words + self._cut(start, count))).input_ids
        while len(ids) > tokens and count > 1:
            count -= 1
            ids = self._tokenizer(" ".join(words + self._cut(start, count))).input_ids
        return Ask(" ".join(words + self._cut(start, count)), tuple(ids), 0)

    def _cut(self, start: int, count: int) -> list[str]:
        return [self._words[(start + i) % len(self._words)] for i in range(count)]

    def even(self, requests: int, prompt: int, answer: int) -> list[Ask]:
        """All of one length."""
        return [Ask(each.prompt, each.ids, answer) for each in (self.prompt(prompt) for _ in range(requests))]

    def ragged(self, requests: int, prompts: tuple[int, int], answers: tuple[int, int]) -> list[Ask]:
        """Lengths drawn evenly between bounds, prompts and answers apart."""
        drawn = [(self._random.randint(*prompts), self._random.randint(*answers)) for _ in range(requests)]
        return [Ask(each.prompt, each.ids, answer) for each, answer in ((self.prompt(p), a) for p, a in drawn)]


def tokens_of(asked: Sequence[Ask]) -> int:
    return sum(each.tokens for each in asked)
