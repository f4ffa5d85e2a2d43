"""Greedy answers of a model to many prompts at once, and how many are exact.

Knows nothing about how the model came to be, nor about the serving engine: it is the yardstick, kept apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from app.compat import cache_argument

MAX_NEW_TOKENS = 24
ROWS = 256


@torch.inference_mode()
def answer_all(
    model: Any, tokenizer: Any, prompts: Sequence[str], advance: Callable[[int], object] | None = None
) -> list[str]:
    """Each prompt's greedy continuation up to the end of text.

    Prompts of equal length share a batch, so that no padding can colour an answer. One that does not end within
    MAX_NEW_TOKENS comes back with all of them, and so cannot be exact.
    """
    encoded = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    by_length: dict[int, list[int]] = defaultdict(list)
    for at, ids in enumerate(encoded):
        by_length[len(ids)].append(at)
    answers = [""] * len(prompts)
    for places in by_length.values():
        for start in range(0, len(places), ROWS):
            part = places[start : start + ROWS]
            produced = _greedy(model, torch.tensor([encoded[at] for at in part]), tokenizer.eos_token_id)
            for at, ids in zip(part, produced, strict=True):
                answers[at] = tokenizer.decode(ids)
            if advance is not None:
                advance(len(part))
    return answers


def exact(produced: str, expected: str) -> bool:
    """True if a continuation is the whole answer and nothing else, after its one space."""
    return produced == f" {expected}"


def _greedy(model: Any, inputs: torch.Tensor, end: int) -> list[list[int]]:
    """The most likely token again and again; a row that has ended is only carried along."""
    cache = DynamicCache()
    rows: list[list[int]] = [[] for _ in range(inputs.shape[0])]
    ended = [False] * len(rows)
    for _ in range(MAX_NEW_TOKENS):
        out = model(input_ids=inputs, **cache_argument(cache), use_cache=True, logits_to_keep=1)
        chosen = out.logits[:, -1].argmax(-1)
        for at, token in enumerate(chosen.tolist()):
            ended[at] = ended[at] or token == end
            if not ended[at]:
                rows[at].append(token)
        if all(ended):
            break
        inputs = chosen[:, None]
    return rows
