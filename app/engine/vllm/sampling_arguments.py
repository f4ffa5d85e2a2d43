"""A request's decoding parameters in vLLM's words. Pure: it imports no vLLM."""

import random
from typing import Any

from app.domain.errors import InvalidRequest
from app.domain.generation import GenerationParameters
from app.engine.grammar import Grammar
from app.engine.sampler import MIN_TEMPERATURE


def check_parameters(parameters: GenerationParameters, *, speculates: bool = False) -> None:
    """Raises InvalidRequest for what this engine does not offer. `speculates`: vLLM drafts tokens."""
    if parameters.forced:
        raise InvalidRequest("The engine vllm cannot be made to give a certain answer: measure with transformers.")
    for name in ("logit_bias", "min_p"):
        if speculates and getattr(parameters, name):
            raise InvalidRequest(
                f"`{name}` is not served here, because vLLM drafts tokens (speculative_config) and does not apply it "
                "to them: leave it out."
            )


def drawn_seed(parameters: GenerationParameters) -> int | None:
    """The seed of a request that samples, drawn if it gives none; None if it decodes greedily."""
    if not parameters.samples:
        return None
    return parameters.seed if parameters.seed is not None else random.SystemRandom().getrandbits(48)


def sampling_arguments(
    parameters: GenerationParameters, seed: int | None, eos_ids: frozenset[int], grammar: Grammar | None = None
) -> dict[str, Any]:
    """The arguments of vLLM's SamplingParams. Stop texts are not among them: this server cuts at them and then aborts
    the request."""
    given: dict[str, Any] = {
        "max_tokens": parameters.max_new_tokens,
        "temperature": 0.0,
        "ignore_eos": parameters.ignore_eos,
        "stop_token_ids": [] if parameters.ignore_eos else sorted(eos_ids),
        "repetition_penalty": parameters.repetition_penalty or 1.0,
        "frequency_penalty": parameters.frequency_penalty or 0.0,
        "presence_penalty": parameters.presence_penalty or 0.0,
        "logit_bias": [list(each) for each in parameters.logit_bias],
        "logprobs": (parameters.top_logprobs or 0) if parameters.token_logprobs else None,
    }
    if seed is not None:
        given |= {
            "temperature": max(MIN_TEMPERATURE, 1.0 if parameters.temperature is None else parameters.temperature),
            "top_k": max(0, parameters.top_k or 0),
            "top_p": 1.0 if parameters.top_p is None else parameters.top_p,
            "min_p": parameters.min_p or 0.0,
            "seed": 2**64 - 1 if seed == -1 else seed,  # vLLM takes -1 for none; both give the generator the same bits
        }
        if parameters.top_p == 0:  # only the likeliest token; vLLM's top_p must be above 0
            given |= {"top_p": 1.0, "top_k": 1}
    if grammar is not None:
        given["structured_outputs"] = {"grammar": grammar.lark}
    return given
