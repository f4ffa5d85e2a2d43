"""Answers under editions and trials: generated through the serving path, no further than a verification reads them."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from app.domain.edit import EditRequest, edit_id_of
from app.domain.generation import Generation, GenerationParameters
from app.domain.words import begins_text, same_text
from app.engine.client import EngineClient
from app.engine.editions import Edition
from app.engine.sequence import PreparedRequest
from app.service.generation_path import items_of, prepare, scope_decisions_of
from app.service.tasks import cancelled, together
from app.service.verification_progress import prompts_begun

ROOM_TOKENS = 32
"""The tokens beyond the target's own that a verified answer may take: enough to see that it does not stop."""
LEAST_BEFORE, MOST_BEFORE = 8, 16
"""The least and the most tokens that are generated of the answer before an edit. They come one by one, and the edit
waits for them."""

Answer = asyncio.Future[Generation | None]


@dataclass(frozen=True, slots=True)
class TrialPrompt:
    """A prompt to be answered under an edition, greedily and in at most `count` tokens. With a `target`, generation
    ends where the answer leaves it."""

    prompt: str
    edition: Edition
    count: int
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """The edits in whose scope prompts are: prompt -> edit id or None. `named` is None if every prompt may be answered
    by any edit, as an editor decides scope itself or changes answers that no edit gives."""

    named: Mapping[str, str | None] | None

    def includes(self, prompt: str, ids: Collection[str] | None = None) -> bool:
        """True if one of these edits, or any if `ids` is None, may answer the prompt."""
        if self.named is None:
            return True
        edit_id = self.named[prompt]
        return edit_id is not None and (ids is None or edit_id in ids)


class TrialAnswers:
    """The answers that trials need, with at most `share` prompts in the engine at a time."""

    def __init__(self, engine: EngineClient, share: int) -> None:
        self._engine = engine
        self._share = asyncio.Semaphore(share)

    async def answer(self, prompt: str, edition: Edition, target: str) -> Generation:
        """The greedy answer, to its natural end, or to well beyond the target's length."""
        return whole((await self.ask([self.to_its_end(prompt, edition, target)]))[0])

    async def first_tokens(self, prompts: Sequence[str], edition: Edition) -> list[Generation]:
        """One token for each prompt, which is enough to know which edit answers."""
        return [whole(each) for each in await self.ask([TrialPrompt(prompt, edition, 1) for prompt in prompts])]

    def to_its_end(self, prompt: str, edition: Edition, target: str) -> TrialPrompt:
        """An answer to its natural end, or to well beyond the target's length. A probe together with the target may be
        too long, and is then answered as far as there is room."""
        return TrialPrompt(prompt, edition, min(self.room(prompt), self.length_of(target) + ROOM_TOKENS))

    def before(self, request: EditRequest, edition: Edition, *, to_its_end: bool) -> TrialPrompt:
        """The prompt's answer before an edit, cut at the target's length within LEAST_BEFORE and MOST_BEFORE, or
        `to_its_end`."""
        if to_its_end:
            return self.to_its_end(request.prompt, edition, request.target)
        wanted = min(max(LEAST_BEFORE, self.length_of(request.target)), MOST_BEFORE)
        return TrialPrompt(request.prompt, edition, min(self.room(request.prompt), wanted))

    async def ask_all(self, groups: Sequence[Sequence[TrialPrompt]]) -> list[list[Generation | None]]:
        """The answers to several groups of prompts, all asked together."""
        answers = iter(await self.ask([each for group in groups for each in group]))
        return [[next(answers) for _ in group] for group in groups]

    async def ask(self, prompts: Sequence[TrialPrompt]) -> list[Generation | None]:
        """The answers, in order; None for one that left its target. As many as there is room for are prepared together
        and posted together, so that they share the engine's passes."""
        answers: list[Answer] = [asyncio.get_running_loop().create_future() for _ in prompts]
        note_end, posts = prompts_begun(len(prompts)), list[asyncio.Task[None]]()
        try:
            at = 0
            while at < len(prompts):
                first, at = at, at + await self._room_for(len(prompts) - at)
                for answer in answers[first:at]:
                    answer.add_done_callback(lambda _: self._share.release())
                    answer.add_done_callback(note_end)
                posts.append(asyncio.create_task(self._post(prompts[first:at], answers[first:at])))
            return list(await asyncio.gather(*answers))
        finally:
            for answer in answers:
                answer.cancel()
            await cancelled(posts)

    async def _room_for(self, wanted: int) -> int:
        """Wait until there is room for a prompt, and take it, and what other room there is for so many."""
        await self._share.acquire()
        taken = 1
        while taken < wanted and not self._share.locked():
            await self._share.acquire()
            taken += 1
        return taken

    async def _post(self, prompts: Sequence[TrialPrompt], answers: Sequence[Answer]) -> None:
        try:
            prepared = await prepare(self._engine, [(each.prompt, each.edition) for each in prompts])
            groups: dict[Edition, list[tuple[TrialPrompt, PreparedRequest, Answer]]] = {}
            for each in zip(prompts, prepared, answers, strict=True):
                groups.setdefault(each[0].edition, []).append(each)
            await together(*(self._generate(edition, group) for edition, group in groups.items()))
        except Exception as error:
            for answer in answers:
                if not answer.done():
                    answer.set_exception(error)

    async def _generate(self, edition: Edition, group: Sequence[tuple[TrialPrompt, PreparedRequest, Answer]]) -> None:
        requests = [
            (spec.prompt, GenerationParameters(max_new_tokens=spec.count, namespace=edition.namespace))
            for spec, _, _ in group
        ]
        prepared, said, unwanted = [each for _, each, _ in group], [""] * len(group), set[int]()
        async with aclosing(
            items_of(self._engine, requests, edition, edition.revision, prepared=prepared, unwanted=unwanted)
        ) as items:
            async for at, item in items:
                spec, _, answer = group[at]
                if isinstance(item, Generation):
                    if not answer.done():
                        answer.set_result(item if spec.target is None or same_text(item.text, spec.target) else None)
                    continue
                said[at] += item.text
                if spec.target is not None and not begins_text(said[at], spec.target) and not answer.done():
                    answer.set_result(None)
                if answer.done():
                    unwanted.add(at)

    async def reach(self, prompts: Sequence[str], edition: Edition) -> Reach:
        """The edits of an edition in whose scope these prompts are."""
        capabilities = (self._engine.capabilities(self._engine.editor_of(each)) for each in edition.edit_ids)
        if not all(each.scoped and each.local for each in capabilities):
            return Reach(None)
        prompts = list(dict.fromkeys(prompts))
        decisions = (each.decision for each in await scope_decisions_of(self._engine, prompts, edition))
        ids = (None if each is None or each.edit_id is None else edit_id_of(each.edit_id) for each in decisions)
        return Reach(dict(zip(prompts, ids, strict=True)))

    def length_of(self, target: str) -> int:
        """The target's length in tokens, with end-of-text."""
        return len(self._engine.text.encode_target("?", target))

    def room(self, prompt: str) -> int:
        """The most tokens that the answer to a prompt may have."""
        return self._engine.max_tokens - len(self._engine.text.encode(prompt))


def whole(answer: Generation | None) -> Generation:
    """The answer to a prompt that was asked without a target, and therefore to its end."""
    assert answer is not None
    return answer
