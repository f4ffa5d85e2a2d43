"""Errata's use cases, one method each. Every client request passes through here."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from app.domain.edit import Edit, EditRequest
from app.domain.events import EditsDisabled, EditsRolledBack, Origin
from app.domain.generation import Generation, GenerationParameters, Hit, Token
from app.editors.base import Fitted
from app.service.lifecycle import Lifecycle
from app.service.log_lines import refusals
from app.service.namespace_setup import set_namespace
from app.service.retunes import Retune
from app.service.views import EditFilter, EditOptions, EditResults, EditView, OnProgress, Page, silent
from app.store.snapshots import Manifest


class Service(Lifecycle):
    """The facade of all use cases. Each checks whether the service takes work, then passes the request on."""

    @property
    def revision(self) -> int:
        return self.records.revision

    def check_fitted(self, edits: Sequence[Edit]) -> None:
        """Raises IncompatibleEdit for edits that were fitted for another model or site."""
        self.loader.check(edits, where="The file")

    async def adopt(self, fitted: Sequence[tuple[EditRequest, str, Fitted]], origin: Origin) -> EditResults:
        """Commit edits that were fitted elsewhere, once they are verified here."""
        self.policies.check_alone([request.namespace for request, _, _ in fitted], "nothing may be imported into it")
        with self.admission.working("edit"):
            return await self._intake.adopt(fitted, origin)

    # -- generate

    async def generate(self, prompt: str, parameters: GenerationParameters) -> Generation:
        return (await self.generate_all([prompt], parameters))[0]

    async def generate_all(
        self, prompts: Sequence[str], parameters: GenerationParameters, n: int = 1
    ) -> list[Generation]:
        """`n` answers to each prompt at one revision: those to the first prompt, then those to the next."""
        generations: dict[int, Generation] = {}
        async with aclosing(self.stream(prompts, parameters, n)) as items:
            async for at, item in items:
                if isinstance(item, Generation):
                    generations[at] = item
        return [generations[at] for at in range(len(prompts) * n)]

    async def score(self, prompt: str, continuation: str, parameters: GenerationParameters) -> Generation:
        """The probability of a continuation, including end-of-text, by teacher forcing through the serving path."""
        ids = self.engine.text.encode_target(prompt, continuation)
        return await self.generate(prompt, replace(parameters, forced=ids, max_new_tokens=len(ids)))

    async def stream(
        self, prompts: Sequence[str], parameters: GenerationParameters, n: int = 1
    ) -> AsyncGenerator[tuple[int, Token | Generation], None]:
        """Yields (index, token) for `n` answers to each prompt at one revision, and each Generation last.

        Closing the iterator early cancels the answers that have not ended.
        """
        with self.admission.working("answer"):
            async with aclosing(self.answers.stream(prompts, parameters, n)) as items:
                async for item in items:
                    yield item

    # -- edits

    async def edit(
        self,
        requests: Sequence[EditRequest],
        origin: Origin,
        *,
        atomic: bool = True,
        batch: bool = False,
        dry_run: bool = False,
        on_progress: OnProgress = silent,
        read: int | None = None,
    ) -> EditResults:
        """Make edits, or propose those that need a second person. `read` is the revision that the client has read."""
        options = EditOptions(atomic=atomic, batch=batch, dry_run=dry_run, on_progress=on_progress, read=read)
        logged = refusals("Edit", requests, origin, self.records.ledger.keys, unless=dry_run)
        with self.admission.working("edit"), logged as failures:
            for request in requests:
                self.admission.check_reason(request.reason or origin.reason)
            if not dry_run and self.policies.proposes([each.namespace for each in requests], origin):
                return await self.proposals.propose(requests, origin, options)
            results = await self._intake.edit(requests, origin, options)
            failures.extend(results.failures)
            return results

    async def retune(
        self, edit_id: str, change: Retune, origin: Origin, read: int | None = None, on_progress: OnProgress = silent
    ) -> EditView:
        """Change an edit's scope, as a new revision."""
        self.policies.check_alone_on(edit_id)
        with self.admission.working("edit"), refusals("Retune", (), origin, self.records.ledger.keys):
            self.admission.check_reason(origin.reason)
            return await self._retuner.retune(edit_id, change, origin, read, on_progress)

    async def neighbours(self, edit_id: str) -> list[EditView]:
        """The live edits on the same subject as this one, newest first."""
        return await self._neighbourhood.neighbours(edit_id)

    async def scope_of(self, prompts: Sequence[str], namespace: str) -> list[tuple[Hit | None, Hit | None]]:
        """The live edit in whose scope each prompt is, and the nearest edit. Generates no answer."""
        with self.admission.working("answer"):
            return await self.answers.scope_of(prompts, namespace)

    def false_hits(self, namespace: str) -> float:
        """The share of unrelated questions that the namespace's edits may answer, as the operator has set it."""
        return self.answers.false_hits(namespace)

    async def set_probes(self, namespace: str, prompts: Sequence[str], origin: Origin) -> int:
        """Set the prompts of a namespace whose answers no edit may change; returns the revision."""
        await asyncio.to_thread(self.request_builder.check_prompts, prompts)
        self.check_change(origin)
        return await self._changes.set_probes(namespace, prompts, origin)

    def edits(self, where: EditFilter, limit: int, cursor: str | None) -> Page:
        return self.records.page(where, limit, cursor)

    def edit_view(self, edit_id: str) -> EditView:
        return self.records.view(edit_id)

    async def roll_back(self, edit_ids: Sequence[str], origin: Origin, read: int | None = None) -> tuple[EditView, ...]:
        """Roll back edits in one event; edits that they had superseded are live again."""
        self.check_change(origin)
        return await self._changes.flag(EditsRolledBack, edit_ids, origin, read)

    async def disable(self, edit_ids: Sequence[str], origin: Origin, read: int | None = None) -> tuple[EditView, ...]:
        self.check_change(origin)
        return await self._changes.flag(EditsDisabled, edit_ids, origin, read)

    async def enable(self, edit_ids: Sequence[str], origin: Origin, read: int | None = None) -> tuple[EditView, ...]:
        self.check_change(origin)
        with self.admission.working("edit"):
            return await self._changes.enable(edit_ids, origin, read)

    async def roll_back_to(
        self, revision: int, namespace: str | None, origin: Origin, read: int | None = None
    ) -> tuple[EditView, ...]:
        """Roll back every edit of a namespace (None: of all) that was committed after a revision."""
        self.check_change(origin)
        return await self._changes.roll_back_to(revision, namespace, origin, read)

    async def set_switch(self, namespace: str | None, on: bool, origin: Origin) -> int:
        """Switch the edits of a namespace, or of all, on or off. Returns the new revision."""
        self.check_change(origin)
        return await self._changes.set_switch(namespace, on, origin)

    async def set_namespace(self, namespace: str, description: str, origin: Origin) -> int:
        """Set up a namespace, or change its description; returns the revision."""
        self.check_change(origin)
        return await set_namespace(self.records, self._clock, namespace, description, origin)

    def check_change(self, origin: Origin) -> None:
        """Raises if a change cannot be accepted, because of the server's state or a missing reason."""
        self.admission.check_change(origin)

    async def take_snapshot(self) -> tuple[Manifest, bool]:
        """A snapshot of the newest revision, and whether it is new."""
        self.admission.check()
        return await self.snapshots.take()
