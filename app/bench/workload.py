"""The workload: prompts of given lengths cut from generic text, and lengths of their answers. Seeded."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

TEXTS = 500
"""Number of generic texts that prompts are cut from."""


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """A prompt as text and as served token ids, and the number of tokens wanted in its answer."""

    prompt: str
    ids: tuple[int, ...]
    tokens: int


class Workload:
    """Prompts for a tokenizer, cut from texts; no two begin alike."""

    def __init__(self, tokenizer: Any, texts: Iterable[str], seed: int) -> None:
        self._tokenizer = tokenizer
        self._words = [word for text in islice(texts, TEXTS) for word in text.split()]
        self._random = random.Random(seed)

    def prompt(self, tokens: int) -> PromptSpec:
        """A prompt of about `tokens` tokens, to within a word."""
        words = [str(self._random.randrange(10_000, 100_000))]
        start, count = self._random.randrange(len(self._words)), 0
        ids: list[int] = []
        while len(ids) < tokens:
            count = max(count + 1, count * tokens // max(1, 2 * len(ids)))
            ids = self._tokenizer(" ".join(words + self._cut(start, count))).input_ids
        while len(ids) > tokens and count > 1:
            count -= 1
            ids = self._tokenizer(" ".join(words + self._cut(start, count))).input_ids
        return PromptSpec(" ".join(words + self._cut(start, count)), tuple(ids), 0)

    def text(self, ids: Sequence[int]) -> str:
        """The text of these tokens."""
        return str(self._tokenizer.decode(ids))

    def _cut(self, start: int, count: int) -> list[str]:
        return [self._words[(start + i) % len(self._words)] for i in range(count)]

    def even(self, requests: int, prompt: int, answer: int) -> list[PromptSpec]:
        """Requests of equal length."""
        return [PromptSpec(each.prompt, each.ids, answer) for each in (self.prompt(prompt) for _ in range(requests))]

    def ragged(self, requests: int, prompts: tuple[int, int], answers: tuple[int, int]) -> list[PromptSpec]:
        """Requests with prompt and answer lengths drawn uniformly and independently."""
        drawn = [(self._random.randint(*prompts), self._random.randint(*answers)) for _ in range(requests)]
        return [PromptSpec(each.prompt, each.ids, answer) for each, answer in ((self.prompt(p), a) for p, a in drawn)]


def tokens_of(specs: Sequence[PromptSpec]) -> int:
    return sum(each.tokens for each in specs)
