"""The fake service's ranked tokens, batches and status."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from app.domain.edit import EditRequest
from app.domain.errors import ErrataError
from app.domain.events import Origin
from app.domain.generation import GenerationParameters, RankedToken
from app.service.idempotency import part_of
from app.service.namespaces import switched_off, switches
from app.service.views import EditFailure, EditResult, EditResults, Status

if TYPE_CHECKING:
    from tests.api.fake_service import FakeService


def ranked(
    token_id: int, text: str, parameters: GenerationParameters, logprob: float = -0.5
) -> tuple[RankedToken, ...]:
    if parameters.top_logprobs is None:
        return ()
    others = (RankedToken(1000 + i, f"w{i}", -float(i), b"w%d" % i) for i in range(parameters.top_logprobs))
    return (RankedToken(token_id, text, logprob, text.encode()), *others)


async def each_for_itself(
    edit: Callable[..., Awaitable[EditResults]], requests: Sequence[EditRequest], origin: Origin, **how: Any
) -> EditResults:
    """A batch that is not atomic."""
    results: list[EditResult] = []
    failures: list[EditFailure] = []
    revision = 0
    for index, request in enumerate(requests):
        try:
            made = await edit([request], part_of(origin, request.promoted_from or index), **how)
            results.extend(made.results)
            revision = made.revision
        except ErrataError as error:
            failures.append(EditFailure(index=index, error=error))
    return EditResults(results=tuple(results), revision=revision, failures=tuple(failures))


def standing(service: "FakeService") -> Status:
    return Status(
        ready=(service.why_not or service.records.held) is None,
        why_not=service.why_not or service.records.held,
        model="fake",
        model_fingerprint="f00d/mlp",
        site="mlp",
        device="cpu",
        dtype="float32",
        store="memory://",
        durable=False,
        revision=service.revision,
        hash=service.records.hash,
        live_edits=service.records.ledger.live_count(),
        pending_proposals=len(service.records.ledger.approval.pending()),
        switched_on=switches(service.records.ledger)[0].on,
        switched_off=switched_off(service.records.ledger),
        log_lag=3,
        log_silence_s=0.5,
        running=1,
        waiting=2,
        judge=service.examined_judge.view(),
        reported_answers=service.feedback.count(),
        extra={"parameters": 42, "slots": 4},
    )
