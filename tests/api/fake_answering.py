"""How the service without a model ranks tokens and makes batches."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from app.domain.edit import EditRequest
from app.domain.errors import ErrataError
from app.domain.events import Origin
from app.domain.generation import GenerationParameters, Ranked
from app.service.views import EditFailure, EditResult, EditResults


def ranked(token_id: int, text: str, parameters: GenerationParameters, logprob: float = -0.5) -> tuple[Ranked, ...]:
    if parameters.top_logprobs is None:
        return ()
    others = (Ranked(1000 + i, f"w{i}", -float(i), b"w%d" % i) for i in range(parameters.top_logprobs))
    return (Ranked(token_id, text, logprob, text.encode()), *others)


async def each_for_itself(
    edit: Callable[..., Awaitable[EditResults]], requests: Sequence[EditRequest], origin: Origin, **how: Any
) -> EditResults:
    """A batch that is not atomic."""
    results: list[EditResult] = []
    failures: list[EditFailure] = []
    revision = 0
    for index, request in enumerate(requests):
        try:
            made = await edit([request], origin, **how)
            results.extend(made.results)
            revision = made.revision
        except ErrataError as error:
            failures.append(EditFailure(index=index, error=error))
    return EditResults(results=tuple(results), revision=revision, failures=tuple(failures))
