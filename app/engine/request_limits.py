"""Checks a request against the limits of the hosted model. Knows no queue."""

from collections.abc import Sequence

from app.domain.errors import InvalidRequest
from app.domain.generation import GenerationParameters
from app.engine.model import HostedModel


def check_request(ids: Sequence[int], parameters: GenerationParameters, hosted: HostedModel) -> None:
    """Raises InvalidRequest if the answer does not fit the context, or for a bias on a token outside the vocabulary."""
    room = hosted.max_tokens - len(ids)
    if parameters.max_new_tokens > room:
        raise InvalidRequest(
            f"The prompt has {len(ids)} tokens, which leaves room for {room} more: "
            f"`max_new_tokens` is {parameters.max_new_tokens}, lower it or shorten the prompt. "
            f"See /help/troubleshooting#the-prompt-is-too-long.",
            prompt_tokens=len(ids),
            limit=hosted.max_tokens,
        )
    for token_id, _ in parameters.logit_bias:
        if not 0 <= token_id < hosted.vocabulary:
            raise InvalidRequest(
                f"`logit_bias` names the token {token_id}: this model's go from 0 to {hosted.vocabulary - 1}."
            )
