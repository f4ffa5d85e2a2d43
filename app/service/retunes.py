"""Retuning: the scope of a live edit is widened, narrowed or given more texts, as a new revision under the same id.

The fit is kept if possible: the edit is fitted again only if a new paraphrase is not answered with the target, or if
its editor learns value and scope together.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.domain.edit import MOST_WIDENED, Edit, EditRequest, State, check_widen, edit_id_of, fit_id_of
from app.domain.errors import EditRejected, InvalidRequest, StateConflict
from app.domain.events import EditRetuned, Event, Origin, Refit
from app.editors.base import Fitted
from app.editors.packing import pack, unpack
from app.engine.editions import Edition
from app.scope.index import widen
from app.service.collaborators import Collaborators
from app.service.conflicts import check_texts, conflict_with, in_the_way
from app.service.edit_draft import new_id, silenced
from app.service.supersession import check_read
from app.service.tasks import uninterrupted
from app.service.verification import Verdict, bound_of
from app.service.verification_progress import progress_of_prompts
from app.service.views import EditView, OnProgress, kept_report, silent

DISTINGUISH = "Leave that out, roll them back first, or add `counter_examples` or `aliases` that tell the edits apart."


@dataclass(frozen=True, slots=True, kw_only=True)
class Retune:
    """A change of scope. Texts are added to those of the edit; `widen` multiplies the odds at which a question counts
    as the same, and narrows below 1."""

    paraphrases: tuple[str, ...] = ()
    counter_examples: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    widen: float = 1.0
    force: bool = False

    def __post_init__(self) -> None:
        check_widen(self.widen)
        if self.widen == 1 and not (self.paraphrases or self.counter_examples or self.aliases or self.probes):
            raise InvalidRequest("There is nothing to change: give `widen`, or texts to add.")

    @property
    def changes(self) -> dict[str, Any]:
        """The change as it is recorded in the log."""
        texts = {name: list(getattr(self, name)) for name in ("paraphrases", "counter_examples", "aliases", "probes")}
        return {"widen": self.widen, **{name: given for name, given in texts.items() if given}}

    def of(self, request: EditRequest, framed_like: Callable[[str, str], str] = lambda _, text: text) -> EditRequest:
        """The changed request; `framed_like` turns a text into a prompt like the request's."""

        def joined(had: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
            return tuple(dict.fromkeys((*had, *(framed_like(request.prompt, text) for text in given))))

        paraphrases = joined(request.paraphrases, self.paraphrases)
        changed = replace(
            request,
            aliases=tuple(dict.fromkeys((*request.aliases, *self.aliases))),
            paraphrases=tuple(each for each in paraphrases if each != request.prompt),
            counter_examples=joined(request.counter_examples, self.counter_examples),
            probes=joined(request.probes, self.probes),
        )
        if changed == request and self.widen == 1:
            raise InvalidRequest("There is nothing to change: the edit has all of these texts already.")
        if not self.force:
            given = (*self.paraphrases, *self.counter_examples, *self.probes)
            check_texts(changed, among={framed_like(request.prompt, text) for text in given})
        return changed


class Retuner:
    """Retunes edits, one change of an edit at a time: a second one finds a newer fit and starts again."""

    def __init__(self, parts: Collaborators) -> None:
        self._engine, self._records, self._pins, self._clock = parts.engine, parts.records, parts.pins, parts.clock
        self._fit_queue, self._request_builder, self._locks = parts.fit_queue, parts.request_builder, parts.locks
        self._trial_answers, self._verifier = parts.trial_answers, parts.verifier
        self._neighbourhood = parts.neighbourhood

    async def retune(
        self, edit_id: str, change: Retune, origin: Origin, read: int | None = None, on_progress: OnProgress = silent
    ) -> EditView:
        """Retune an edit. `read` is the revision at which the requester has read it.

        Raises UnknownEdit, StateConflict, PreconditionFailed, InvalidRequest, ScopeConflict or EditRejected.
        """
        if self._records.done_under(origin) is not None:
            return self._records.view(edit_id)
        lost = False
        while True:
            entry = self._records.ledger.entry(edit_id)
            self._check(edit_id)
            check_read(self._records.ledger, [edit_id], read)
            request = change.of(entry.request, self._request_builder.framed_like)
            current, name = entry.fits(self._records.revision)[-1], new_id()
            try:
                async with self._locks.taken([request.namespace] if lost else ()):
                    now = self._pins.live_edition(request.namespace)
                    await self._look(entry.request, request, edit_id, now, force=change.force)
                    (answer,) = await self._trial_answers.first_tokens([request.prompt], now)
                    before = bound_of(answer, edit_id).get("bound")
                    fitted, verdict = await self._fitted(current, request, change.widen, now, name, on_progress)
                    if before is not None:
                        verdict = replace(verdict, report={**verdict.report, "bound_before": before})
                    if not change.force:
                        self._judge(verdict)
                    if await self._commit(current, request, now, fitted, verdict, change, origin):
                        return self._records.view(edit_id)
                    lost = True
            finally:
                await uninterrupted(self._engine.drop([name]))

    def _check(self, edit_id: str) -> None:
        self._records.ledger.check(EditRetuned, [edit_id])
        state = self._records.ledger.state(edit_id)
        if state is not State.LIVE:
            by = self._records.ledger.entry(edit_id).superseded_by
            successor = f" by {by[-1]}" if state is State.SUPERSEDED and by else ""
            raise StateConflict(
                f"The edit {edit_id} is {state.value.replace('_', ' ')}{successor}: only a live one is retuned.",
                edit_id=edit_id,
                state=state.value,
            )

    async def _look(self, stood: EditRequest, request: EditRequest, edit_id: str, now: Edition, *, force: bool) -> None:
        """Raises ScopeConflict if another edit answers a paraphrase that is added."""
        added = [each for each in request.paraphrases if each not in stood.paraphrases]
        answers = await self._trial_answers.first_tokens(added, now)
        ledger = self._records.ledger
        if conflicts := in_the_way(ledger, replace(request, force=force), (edit_id,), answers):
            raise conflict_with(
                ledger, conflicts, "Edits with another target already answer what is to be added", DISTINGUISH
            )

    def _judge(self, verdict: Verdict) -> None:
        if verdict.overruns:
            what = "With this change the edit would answer the prompts of others"
            raise conflict_with(self._records.ledger, verdict.overruns, what, DISTINGUISH)
        if not verdict.passed:
            raise EditRejected(
                f"With this change the edit would not hold, so nothing was changed: {'; '.join(verdict.problems)}. "
                "Leave out what it fails on, add counter-examples or a smaller `widen`, or set `force`. "
                "See /help/scope#retuning.",
                report=kept_report(verdict.report),
            )

    async def _fitted(
        self, current: Edit, request: EditRequest, factor: float, now: Edition, name: str, on_progress: OnProgress
    ) -> tuple[Fitted, Verdict]:
        """The fit with only its scope changed; if that does not hold, a new fit."""
        (fit_request,) = await self._neighbourhood.fit_requests([request])
        learned = silenced(Fitted(learned=current.learned, tensors=unpack(current.tensors)), ())
        if self._engine.capabilities(current.editor_key).scoped:
            on_progress("scope", None)
            fitted = _widened(await asyncio.to_thread(self._engine.rescope, learned, fit_request), factor)
            with progress_of_prompts(on_progress):
                verdict = await self._verified(current, request, fitted, now, name)
            if verdict.passed or not request.paraphrases:
                return silenced(fitted, verdict.silent_in), verdict
            await self._engine.drop([name])
        others = now.trying((), frozenset((edit_id_of(current.id),)))
        (anew,) = await self._fit_queue.fit(current.editor_key, [fit_request], others, on_progress)
        fitted = _widened(_in_its_scope(anew, current), factor)
        with progress_of_prompts(on_progress):
            verdict = await self._verified(current, request, fitted, now, name)
        return silenced(fitted, verdict.silent_in), verdict

    async def _verified(self, current: Edit, request: EditRequest, fitted: Fitted, now: Edition, name: str) -> Verdict:
        edit_id = edit_id_of(current.id)
        await self._engine.load([(name, current.editor_key, fitted)])
        trial = now.replacing({edit_id: name})
        base = now.without(frozenset((edit_id,)))  # answers that must stay are compared with those without the edit
        neighbourhood = await self._neighbourhood.of(request, base, [edit_id], among=1, preview=False)
        return await self._verifier.verify(request, name, base, trial, neighbourhood, now)

    async def _commit(
        self, current: Edit, request: EditRequest, now: Edition, fitted: Fitted, verdict: Verdict, change: Retune,
        origin: Origin,
    ) -> bool:  # fmt: skip
        """Append the event; False if the edit, or an edit beside it, has changed meanwhile."""
        edit_id = edit_id_of(current.id)
        refit = Refit(edit_id=edit_id, learned=dict(fitted.learned), tensors=pack(fitted.tensors))
        revisions: list[int] = []

        def event() -> Event | None:
            revisions.clear()
            entry = self._records.ledger.entry(edit_id)
            if self._records.done_under(origin) is not None:
                revisions.append(0)
                return None
            self._check(edit_id)
            if self._records.ledger.approval.needs_second_person([request.namespace]):
                raise StateConflict(
                    f"Edits of {request.namespace} now need a second person, so nobody may change a scope "
                    f"alone: propose an edit by POST /edit."
                )
            if entry.fit_id() != current.id or self._pins.live_edition(request.namespace).revision != now.revision:
                return None
            revisions.append(self._records.revision + 1)
            return EditRetuned(
                revision=revisions[0],
                at_s=self._clock(),
                origin=origin,
                fit=refit,
                request=request,
                report=kept_report(verdict.report),
                changed=change.changes,
                forced=change.force,
            )

        async def loaded() -> None:
            await self._engine.load([(fit_id_of(edit_id, revisions[0]), current.editor_key, fitted)])

        async def dropped() -> None:
            await self._engine.drop([fit_id_of(edit_id, revisions[0])])

        await self._records.write(event, loaded, dropped)
        return bool(revisions)


def _in_its_scope(anew: Fitted, current: Edit) -> Fitted:
    """The new fit with its scope widened as much as the present one's, whatever its request said."""
    if "scope" not in anew.learned:
        return anew
    scope = {**anew.learned["scope"], "widened": float(current.learned.get("scope", {}).get("widened", 1.0))}
    return Fitted(learned={**anew.learned, "scope": scope}, tensors=anew.tensors)


def _widened(fitted: Fitted, factor: float) -> Fitted:
    """The fit with its bound moved. Raises InvalidRequest for an editor whose edits have no bound, and beyond
    MOST_WIDENED."""
    if "scope" not in fitted.learned:
        if not math.isclose(factor, 1.0):
            raise InvalidRequest("An editor as published has no bound to widen: leave `widen` out.")
        return fitted
    scope = widen(fitted.learned["scope"], factor)
    if not 1 / MOST_WIDENED <= scope["widened"] <= MOST_WIDENED and factor != 1:
        raise InvalidRequest(
            f"With this `widen` the edit would answer at {scope['widened']:g} times the odds that it learned; it may "
            f"be from {1 / MOST_WIDENED:g} to {MOST_WIDENED:g} times, over all changes."
        )
    return Fitted(learned={**fitted.learned, "scope": scope}, tensors=fitted.tensors)
