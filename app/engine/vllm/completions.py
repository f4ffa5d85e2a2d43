"""A request and its tokens in the words of vLLM's /v1/completions. Pure."""

from collections.abc import Mapping
from typing import Any

from app.domain.errors import InvalidRequest
from app.engine.vllm.inside.errata_vllm.rows import EDIT, SESSION

GRAMMAR_BACKEND = "guidance"
"""The part of vLLM that reads a grammar as this server does."""
STAND_IN_SEED = -(2**63)
"""The seed in place of -1, which vLLM takes for none: the least that there is, whose answers -1 shares."""
TOKEN = "token_id:"
"""The beginning of a token as vLLM writes it where `return_tokens_as_token_ids` is asked for."""


def completion_body(
    model: str, prompt: list[int], parameters: Mapping[str, Any], salt: str | None, session: str, grammar_backend: str
) -> dict[str, Any]:
    """The body of a request with these arguments of vLLM's SamplingParams. Raises InvalidRequest for a grammar where
    vLLM reads grammars by another backend, for which it was not written."""
    if "structured_outputs" in parameters and grammar_backend != GRAMMAR_BACKEND:
        raise InvalidRequest(
            f"`response_format` with a schema is not served here: the vLLM that runs has {grammar_backend!r} read "
            f"grammars, and not {GRAMMAR_BACKEND!r}. Start it with --structured-outputs-config "
            f'\'{{"backend": "{GRAMMAR_BACKEND}"}}\', or leave the schema out.'
        )
    body = {
        **parameters,
        "model": model,
        "prompt": prompt,
        "stream": True,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        # the likeliest other tells whether the token is the likeliest
        "logprobs": None if parameters["logprobs"] is None else max(1, parameters["logprobs"]),
        "logit_bias": {str(token): bias for token, bias in parameters["logit_bias"]} or None,
    }
    if (extra := body.pop("extra_args", None)) is not None:
        body["vllm_xargs"] = {**extra, SESSION: session} if EDIT in extra else extra
    if salt is not None:
        body["cache_salt"] = salt
    if body.get("seed", 0) >= 2**63:
        body["seed"] -= 2**64  # the same bits, as a signed number
    if body.get("seed") == -1:
        body["seed"] = STAND_IN_SEED
    return body


def tokens_of(chunk: Mapping[str, Any]) -> list[list[Any]]:
    """[token id, log probability, rank, [[id, log probability] of the likeliest]] of each token in a chunk of the
    stream; [token id, None, 0, []] where no log probabilities were asked for."""
    (choice,) = chunk["choices"]
    tokens, logprobs = [], choice.get("logprobs")
    if logprobs is None:
        return [[token_id, None, 0, []] for token_id in choice["token_ids"]]
    for token_id, logprob, ranked in zip(
        choice["token_ids"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        likeliest = [[int(name.removeprefix(TOKEN)), each] for name, each in ranked.items()]
        likeliest.sort(key=lambda each: -each[1])
        tokens.append([token_id, logprob, 1 + sum(each > logprob for _, each in likeliest), likeliest])
    return tokens
