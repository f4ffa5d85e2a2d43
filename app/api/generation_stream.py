"""A generation as the events of a stream. Independent of HTTP."""

from collections.abc import AsyncGenerator, AsyncIterator

from app.api.schemas.generate import Details, GenerateBody, StreamEvent, TokenOut, TopToken, shown_text
from app.domain.generation import Generation, GenerationParameters, Token


async def events_of(
    body: GenerateBody, parameters: GenerationParameters, items: AsyncIterator[Token | Generation]
) -> AsyncGenerator[StreamEvent, None]:
    """One event for each token, as soon as it is known; the event of the last token has the whole text.

    A token that may be the last is held until what follows it is known; holding any other would only delay it.
    """
    held: Token | None = None
    count = sent = 0
    async for item in items:
        if isinstance(item, Generation):
            yield _last(body, item, held, sent + 1)
            return
        if held is not None:
            sent += 1
            yield _event(body, held, sent)
        count += 1
        held = item if _may_be_last(item, count, parameters) else None
        if held is None:
            sent += 1
            yield _event(body, item, sent)
    raise AssertionError("a stream ended without its generation")


def _event(body: GenerateBody, token: Token, index: int) -> StreamEvent:
    top = TopToken.all_of(token) if body.parameters.top_n_tokens else None
    return StreamEvent(index=index, token=TokenOut.of(token), top_tokens=top, generated_text=None, details=None)


def _may_be_last(token: Token, count: int, parameters: GenerationParameters) -> bool:
    # a stop text may end anywhere; an end-of-text token shows nothing
    return token.special or not token.text or count >= parameters.max_new_tokens or bool(parameters.stop)


def _last(body: GenerateBody, generation: Generation, held: Token | None, index: int) -> StreamEvent:
    # if the token was shown already, against expectation, the event still has a token, with an empty text
    token = held or Token(generation.tokens[-1].id, "", generation.tokens[-1].logprob, True)
    top = bool(body.parameters.top_n_tokens)
    return _event(body, token, index).model_copy(
        update={
            "generated_text": shown_text(body, generation),
            "details": Details.of(generation, top=top) if body.parameters.wants_details else None,
        }
    )
