"""Finds contradictions within a batch from its texts alone, because fitting first could waste minutes."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Sequence

import torch

from app.domain.errors import ScopeConflict
from app.domain.scope import ScopeRequest
from app.domain.words import same_text
from app.engine.client import EngineClient
from app.engine.controls import quoted
from app.scope.index import ABOUT_THE_SAME, ScopeIndex
from app.service.conflicts import APART_IN_A_BATCH
from app.service.edit_draft import EditDraft
from app.service.fit_requests import FitRequestBuilder

Clash = tuple[int, int, int]
"""(index of the edit that answers, index of the edit in whose place it answers, index of the latter's text)."""


async def check_ahead(drafts: Sequence[EditDraft], engine: EngineClient, request_builder: FitRequestBuilder) -> None:
    """Raises ScopeConflict if the scope of an edit holds a question that a later one asks in other words with another
    target.

    Edits of editors that decide scope themselves are checked once they are fitted; then all others are checked again.
    """
    spaces: dict[str, list[int]] = defaultdict(list)
    for at, draft in enumerate(drafts):
        if engine.capabilities(draft.editor).scoped and not draft.options.dry_run:
            spaces[draft.request.namespace].append(at)
    for places in spaces.values():
        if len({drafts[at].request.target.strip() for at in places}) < 2:
            continue
        requests = [request_builder.scope_request(drafts[at].request) for at in places]
        own = [drafts[at] for at in places]
        clash = await asyncio.to_thread(_clash, engine.scope, own, requests)
        if clash is not None:
            first, at, text = clash
            raise _contradiction(own[first], own[at], (places[first], places[at]), text)


def _clash(scope: ScopeIndex, drafts: Sequence[EditDraft], requests: Sequence[ScopeRequest]) -> Clash | None:
    """The first clash of a batch of drafts, whose scopes are learned from `requests` and loaded only for this."""
    questions = [[scope.question(turns) for turns in each.keys] for each in requests]
    vectors = torch.cat([question.queries for mine in questions for question in mine])
    counts = [sum(len(question.queries) for question in mine) for mine in questions]
    owners = torch.repeat_interleave(torch.arange(len(drafts)), torch.tensor(counts))
    ids: dict[int, str] = {}
    try:
        for at, draft in enumerate(drafts):
            if draft.request.force:
                continue
            cosines = (vectors @ vectors[owners == at].T).amax(1)
            near = sorted({i for i in owners[cosines >= ABOUT_THE_SAME].tolist() if i < at})
            others = {i for i in near if not same_text(drafts[i].request.target, draft.request.target)}
            if not others:
                continue
            for i in near:
                if i not in ids:
                    ids[i] = f"ahead_{uuid.uuid4().hex}"
                    scope.load(ids[i], scope.learn(requests[i]).model_dump())
            part = scope.compile(draft.request.namespace, [ids[i] for i in near])
            place = {ids[i]: i for i in near}
            for text, question in enumerate(questions[at]):
                match = scope.nearest(question, part)
                if match is not None and match.margin >= 0 and place[match.edit_id] in others:
                    return place[match.edit_id], at, text
    finally:
        for edit_id in ids.values():
            if edit_id in scope:
                scope.drop(edit_id)
    return None


def _contradiction(first: EditDraft, later: EditDraft, places: tuple[int, int], text: int) -> ScopeConflict:
    question = list(dict.fromkeys((later.request.prompt, *later.request.paraphrases)))[text]
    return ScopeConflict(
        f"Edits {places[0]} and {places[1]} of the batch contradict each other: the one "
        f"({quoted(first.request.prompt)} -> {first.request.target!r}) would answer {quoted(question)}, which the "
        f"other corrects to {later.request.target!r}. {APART_IN_A_BATCH}",
        conflicts=[],
        edits=list(places),
        index=places[1],
    )
