"""Chooses the next token from logits. Seeds are per request: a seed gives the same tokens whatever else is in the
batch."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from app.domain.generation import GenerationParameters
from app.engine.grammar import Grammar

MIN_TEMPERATURE = 1e-4
"""Lower bound of the temperature: sampling is already greedy there, and a smaller divisor would overflow fp32."""
MAX_SCORE = 1e30
"""Scores are clamped to +-MAX_SCORE: extreme penalties would make them infinite and their softmax NaN."""


class Sampler:
    """The token choice of one request. Penalties apply to greedy decoding too; `seed` is drawn if none is given."""

    def __init__(self, parameters: GenerationParameters, grammar: Grammar | None = None) -> None:
        self.grammar = grammar
        self.samples = parameters.samples
        self._forced = parameters.forced
        self.seed: int | None = None
        self._generator: torch.Generator | None = None
        if self.samples:
            self.seed = parameters.seed if parameters.seed is not None else random.SystemRandom().getrandbits(48)
            # on the CPU, whatever the model's device: a GPU generator would give other tokens
            self._generator = torch.Generator().manual_seed(self.seed)
        self._frequency = parameters.frequency_penalty or 0.0
        self._presence = parameters.presence_penalty or 0.0
        self._penalties, self._processors = LogitsProcessorList(), LogitsProcessorList()
        if parameters.logit_bias:
            self._penalties.append(SequenceBiasLogitsProcessor([[[id_], bias] for id_, bias in parameters.logit_bias]))
        if parameters.repetition_penalty is not None:
            self._penalties.append(RepetitionPenaltyLogitsProcessor(parameters.repetition_penalty))
        if self.samples:
            if parameters.temperature is not None:
                self._processors.append(TemperatureLogitsWarper(max(parameters.temperature, MIN_TEMPERATURE)))
            if parameters.top_k is not None and parameters.top_k > 0:
                self._processors.append(TopKLogitsWarper(parameters.top_k))
            if parameters.top_p is not None:
                self._processors.append(TopPLogitsWarper(parameters.top_p))
            if parameters.min_p is not None:
                self._processors.append(MinPLogitsWarper(parameters.min_p))

    @property
    def plain_greedy(self) -> bool:
        """True if the choice is the arg max of the raw logits: such rows are decided in one call for the batch."""
        changed = self._penalties or self._frequency or self._presence or self._forced or self.grammar
        return not (self.samples or changed)

    @property
    def problem(self) -> str | None:
        """Why the answer can no longer be held to its schema; None if it can."""
        return None if self.grammar is None else self.grammar.problem

    def choose(self, logits: Tensor, prompt: Sequence[int], generated: Sequence[int]) -> int:
        """(V,) fp32 logits -> a token id."""
        if len(generated) < len(self._forced):
            return self._forced[len(generated)]
        scores = logits.cpu()
        if generated and (self._frequency or self._presence):
            counts = torch.bincount(torch.tensor(generated), minlength=len(scores)).to(scores.dtype)
            scores = scores - self._frequency * counts - self._presence * (counts > 0)
        ids: Any = torch.tensor([[*prompt, *generated]])
        if self._penalties:
            scores = self._penalties(ids, scores[None])[0]
        scores = scores.nan_to_num(nan=0.0, posinf=MAX_SCORE, neginf=-MAX_SCORE).clamp(-MAX_SCORE, MAX_SCORE)
        if self.grammar is None:
            return self._pick(scores, ids)
        chosen = self._pick(scores.masked_fill(~self.grammar.allowed(), -torch.inf), ids)
        self.grammar.advance(chosen)
        return chosen

    def _pick(self, scores: Tensor, ids: Any) -> int:
        if self._generator is None:
            return int(scores.argmax())
        scores = self._processors(ids, (scores - scores.max())[None])[0]  # at most 0: no division overflows
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))


def rank(logits: Tensor, chosen: int, count: int) -> list[tuple[int, float]]:
    """(V,) fp32 -> (token id, log probability without penalties) of the chosen token, then of the likeliest."""
    logprobs = logits.log_softmax(-1)
    values, ids = logprobs.topk(min(count, len(logprobs)))
    return [(chosen, logprobs[chosen].item()), *zip(ids.tolist(), values.tolist(), strict=True)]


def choose_all(
    logits: Tensor, samplers: Sequence[Sampler], prompts: Sequence[Sequence[int]], generated: Sequence[Sequence[int]]
) -> tuple[list[int], list[float], list[bool]]:
    """(B, V) fp32 -> B token ids, their log probabilities without penalties, and whether each is its row's arg max."""
    likeliest: list[int] = logits.argmax(-1).tolist()
    ids = list(likeliest)
    for row, sampler in enumerate(samplers):
        if not sampler.plain_greedy:
            ids[row] = sampler.choose(logits[row], prompts[row], generated[row])
    picked = logits.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0]
    logprobs: list[float] = (picked - logits.logsumexp(-1)).tolist()
    return ids, logprobs, [a == b for a, b in zip(ids, likeliest, strict=True)]
