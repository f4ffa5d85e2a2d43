"""Conflicts between edits: within a batch, by name, and with edits that already answer a prompt."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from app.domain.edit import EditRequest
from app.domain.errors import InvalidRequest, ScopeConflict, of_batch
from app.domain.generation import Generation
from app.domain.ledger import Ledger
from app.domain.words import same_text
from app.engine.controls import quoted
from app.engine.editions import Edition
from app.service.edit_draft import EditDraft
from app.service.neighbourhood import Neighbourhood
from app.service.trial_answers import TrialAnswers


def check_batch(requests: Sequence[EditRequest], *, dry_run: bool = False) -> None:
    """Raises InvalidRequest for two edits of one prompt, for a text that two edits answer differently, and for a
    self-contradictory edit, unless it is forced or only a preview."""
    first_at: dict[tuple[str, str], int] = {}
    for at, request in enumerate(requests):
        if not request.force and not dry_run:
            with of_batch(at if len(requests) > 1 else None):
                check_texts(request)
        for text in (request.prompt, *request.paraphrases):
            first = first_at.setdefault((request.namespace, " ".join(text.split())), at)
            other = requests[first]
            if first != at and not same_text(other.target, request.target):
                raise InvalidRequest(
                    f"Edits {first} and {at} of the batch contradict each other: {quoted(text)} must be answered "
                    f"{other.target!r} by the one ({quoted(other.prompt)}) and {request.target!r} by the other "
                    f"({quoted(request.prompt)}). Keep one of them.",
                    edits=[first, at],
                    index=at,
                )
            if first != at and text == request.prompt and text.strip() == other.prompt.strip():
                raise InvalidRequest(
                    f"Edits {first} and {at} of the batch correct the prompt {quoted(text)} twice: keep one of them.",
                    edits=[first, at],
                    index=at,
                )


def check_texts(request: EditRequest, among: Collection[str] | None = None) -> None:
    """Raises InvalidRequest for a text that must both be answered with the target and be left unchanged; if given,
    only texts `among` these count."""
    answered = {text.strip() for text in (request.prompt, *request.paraphrases)}
    for name in ("counter_examples", "probes"):
        for text in getattr(request, name):
            if text.strip() in answered and (among is None or text in among):
                raise InvalidRequest(
                    f"{quoted(text)} is among the `{name}`, whose answers stay as they are, and is to be answered with "
                    "the target as well, as the prompt or a paraphrase: remove it from one of them."
                )


def in_the_way(
    ledger: Ledger, request: EditRequest, supersedes: Sequence[str], before: Iterable[Generation]
) -> tuple[str, ...]:
    """The ids of other edits that answer the prompt or its paraphrases now, remain live, and have another target."""
    ids = dict.fromkeys(hit.edit_id for generation in before for hit in generation.reached)
    targets = {edit_id: ledger.entry(edit_id).request.target for edit_id in ids if edit_id not in supersedes}
    return tuple(i for i, target in targets.items() if not same_text(target, request.target) and not request.force)


async def check_scopes(
    drafts: Sequence[EditDraft], bases: Mapping[str, Edition], around: Neighbourhood, trial_answers: TrialAnswers
) -> None:
    """Raises ScopeConflict if an edit of a batch, once fitted, answers a question that a later one asks in other words
    with another target: made one by one, the later one would have been refused. A preview reports it in its verdict."""
    place = {draft.id: at for at, draft in enumerate(drafts)}
    for at, draft in enumerate(drafts):
        request = draft.request
        near = [] if request.force else await around.about_the_same(request, place)
        earlier = [i for i in near if place[i] < at and drafts[place[i]].request.namespace == request.namespace]
        others = {i for i in earlier if not same_text(drafts[place[i]].request.target, request.target)}
        if not others:
            continue
        mates = [each.id for each in drafts[:at] if each.request.namespace == request.namespace]
        gone = frozenset(edit_id for each in drafts[:at] for edit_id in each.around.supersedes)
        before = bases[request.namespace].trying(mates, gone)
        for text in (request.prompt, *request.paraphrases):
            (answer,) = await trial_answers.first_tokens([text], before)
            first = next((place[hit.edit_id] for hit in answer.reached if hit.edit_id in others), None)
            if first is None:
                continue
            other = drafts[first].request
            problem = (
                f"Edits {first} and {at} of the batch contradict each other: the one ({quoted(other.prompt)} -> "
                f"{other.target!r}) answers {quoted(text)}, which the other corrects to {request.target!r}"
            )
            if not draft.options.dry_run:
                raise ScopeConflict(f"{problem}. {APART_IN_A_BATCH}", conflicts=[], edits=[first, at], index=at)
            draft.attempt.verdict = replace(draft.verdict, problems=(problem, *draft.verdict.problems))
            break


APART_IN_A_BATCH = (
    "Keep one of them, give a `subject`, `counter_examples` or `aliases` that tell them apart, or set the later one's "
    "`force`. See /help/editors#conflicts."
)
APART = (
    "Name them in `supersede`, roll them back first, or give a `subject`, `counter_examples` or `aliases` that tell "
    "the edits apart. See /help/editors#conflicts."
)


def conflict_with(ledger: Ledger, conflicts: Sequence[str], what: str, advice: str = APART) -> ScopeConflict:
    """The error for conflicting edits."""
    listed = "; ".join(
        f"{edit_id} ({quoted(entry.request.prompt)} -> {entry.request.target!r})"
        for edit_id in conflicts
        for entry in (ledger.entry(edit_id),)
    )
    return ScopeConflict(
        f"{what}: {listed}. {advice}",
        conflicts=list(conflicts),
    )
