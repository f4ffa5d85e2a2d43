"""The tokenizer of the demonstration model and its documents as batches of token ids.

Knows nothing about facts or the training loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from app.demo.corpus import Document

END_OF_TEXT = "<|endoftext|>"
END_ID = 0
MAX_TOKENS = 256
IGNORED = -100


@dataclass(frozen=True)
class DocumentBatch:
    """Rows of documents, padded on the right, which needs no mask: a causal model never looks there.

    `targets` is IGNORED wherever nothing is to be learnt.
    """

    inputs: torch.Tensor
    targets: torch.Tensor


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer whose digits stand alone, so that numbers are spelt, not memorised as units."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def batches(
    documents: Sequence[Document], tokenizer: Any, tokens: int, given_share: float, rng: Random
) -> Iterator[DocumentBatch]:
    """Batches of about `tokens` tokens of documents of like length, in random order.

    Of the given part only a share of the positions is graded: the answers are what must be learnt, and the
    output layer is the dearest part of a model this small.
    """
    given = tokenizer([document.given for document in documents], add_special_tokens=False)["input_ids"]
    graded = tokenizer([document.graded for document in documents], add_special_tokens=False)["input_ids"]
    order = sorted(range(len(documents)), key=lambda at: (len(given[at]) + len(graded[at]), rng.random()))
    rows: list[tuple[list[int], list[int]]] = []
    rows_of_batches: list[list[tuple[list[int], list[int]]]] = []
    width = 0
    for at in order:
        ids = [*given[at], *graded[at], END_ID][: MAX_TOKENS + 1]
        share = given_share if documents[at].learn_given else 0.0
        targets = [
            token if place >= len(given[at]) or rng.random() < share else IGNORED for place, token in enumerate(ids)
        ]
        width = max(width, len(ids))
        if rows and width * (len(rows) + 1) > tokens:
            rows_of_batches.append(rows)
            rows, width = [], len(ids)
        rows.append((ids[:-1], targets[1:]))
    rows_of_batches.append(rows)
    rng.shuffle(rows_of_batches)
    for batch in rows_of_batches:
        yield _padded(batch)


def _padded(rows: Sequence[tuple[list[int], list[int]]]) -> DocumentBatch:
    """Rows of unequal length as two tensors."""
    width = max(len(ids) for ids, _ in rows)
    return DocumentBatch(
        inputs=torch.tensor([ids + [END_ID] * (width - len(ids)) for ids, _ in rows]),
        targets=torch.tensor([targets + [IGNORED] * (width - len(targets)) for _, targets in rows]),
    )
