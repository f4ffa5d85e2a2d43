"""Measures fits: one by one, 64 together, and by GRACE's published recipe, in turn; and whole edits of a chat model.
Commits go to a namespace of their own."""

import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch.nn.functional import cross_entropy

from app.bench.chat_edits import chat_edits, has_template
from app.bench.comparison import Bench, RoundResults
from app.domain.edit import EditRequest
from app.editors.base import FitRequest, Fitted
from app.editors.fitting.contexts import collate
from app.editors.fitting.hooks import SiteHooks
from app.editors.fitting.view import placing
from app.engine.editions import Edition
from app.engine.serving_engine import ServingEngine
from app.service.fit_requests import FitRequestBuilder

T = TypeVar("T")
SCOPE = "learning its scope"
"""Key of the part of single fits that learns the scope."""
PUBLISHED = "grace/paper"
STEPS, LEARNING_RATE = 100, 1.0
"""Steps and learning rate of the published recipe."""
TOGETHER, ALONE, AS_PUBLISHED = 64, 8, 2
"""Number of edits per round."""


async def fits(bench: Bench) -> dict[str, Any]:
    """Seconds per edit. `grace` as served also learns its scope; the published recipe runs a hundred steps of the whole
    model. (The preset `paper` takes the same steps but computes the layers below its site once.)"""
    request_builder = bench.service.request_builder
    figures = {"chat_edits": await chat_edits(bench, request_builder)} if has_template(bench) else {}
    return await _fits_only(bench, request_builder, figures)


async def _fits_only(bench: Bench, request_builder: FitRequestBuilder, before: dict[str, Any]) -> dict[str, Any]:
    """Fits alone, of prompts as they are; `before` holds what the section has found already."""
    ways = {"one by one": ("grace", ALONE, 1), "64 together": ("grace", TOGETHER, TOGETHER)}
    ways["as published"] = (PUBLISHED, AS_PUBLISHED, 1)
    rounds: list[dict[str, float]] = []

    async def one_round(scale: float) -> dict[str, float]:
        """Way -> seconds per edit."""
        took: dict[str, float] = {}
        for name, (editor, whole, at_once) in ways.items():
            count = max(1, round(whole * scale))
            bench.on_step(f"fits {name}, {count} edits")
            requests = [request_builder.fit_request(_request(f"Zq{len(rounds)}{name[0]}{at}w")) for at in range(count)]
            parts = [requests[at : at + at_once] for at in range(0, count, at_once)]
            began = time.perf_counter()
            fitted = [each for part in parts for each in await _on_engine(bench, partial(_fit, editor, part))]
            took[name] = (time.perf_counter() - began) / count
            if name == "one by one":
                began = time.perf_counter()
                await _on_engine(bench, partial(_rescope, list(zip(fitted, requests, strict=True))))
                took[SCOPE] = (time.perf_counter() - began) / count
        rounds.append(took)
        return took

    def figure(took: dict[str, float]) -> str:
        return ", ".join(f"{name} {seconds:.3f} s" for name, seconds in took.items())

    def keep(turns: RoundResults[dict[str, float]]) -> None:
        bench.keep(before | _figures(turns.runs["fits"]) | _size(turns, ways))

    turns = await bench.turns({"fits": one_round}, lambda scale: scale, figure, keep)
    return before | _figures(turns.runs["fits"]) | _size(turns, ways)


def _figures(rounds: list[dict[str, float]]) -> dict[str, Any]:
    single, together, published, scope = (
        [took[name] for took in rounds] for name in ("one by one", "64 together", "as published", SCOPE)
    )
    alone = [whole - part for whole, part in zip(single, scope, strict=True)]
    seconds = {"one by one": single, "64 together": together, "as published": published}
    return {
        "seconds_an_edit": {name: round(statistics.median(each), 4) for name, each in seconds.items()},
        "edits_per_s_together": round(1 / statistics.median(together), 1),
        "times_as_many_together": round(_ratio(single, together), 2),
        "of_it_learning_its_scope": round(statistics.median(scope), 4),
        "share_of_the_published": round(_ratio(single, published), 3),
        "share_of_the_published_without_scope": round(_ratio(alone, published), 3),
    }


def _size(turns: RoundResults[Any], ways: dict[str, tuple[str, int, int]]) -> dict[str, Any]:
    if turns.whole:
        return {}
    edits = {f"edits {name}": [max(1, round(count * turns.scale)), count] for name, (_, count, _) in ways.items()}
    return {"size": {**edits, "rounds": [turns.rounds, turns.wanted], "warmed_up": turns.warmed}}


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _request(name: str) -> EditRequest:
    prompt = f"Question: What is the favourite colour of {name}? Answer:"
    return EditRequest(prompt=prompt, target="blue", subject=name)


async def _on_engine(bench: Bench, work: Callable[[ServingEngine], T]) -> T:
    return await asyncio.wrap_future(bench.service.on_engine(work))


def _fit(editor: str, requests: list[FitRequest], engine: ServingEngine) -> list[Fitted]:
    if editor == PUBLISHED:
        return [_fit_as_published(request, engine) for request in requests]
    steps = engine.fit(editor, requests, Edition("bench-fits", 0, ()))
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            fitted: list[Fitted] = stop.value
            return fitted


def _fit_as_published(request: FitRequest, engine: ServingEngine) -> Fitted:
    """GRACE's training loop (arXiv 2211.11031, section 3, and its code): a value replaces the layer's output at the
    prompt's last token, starting from random values, and every step runs the whole model."""
    hosted, site = engine.hosted, engine.editors[PUBLISHED].sites[0]
    batch = collate([request.contexts[:1]], [request.target_ids], hosted.device)
    where = torch.arange(batch.ids.shape[1], device=hosted.device)[None] == batch.position[:, :1]
    width = hosted.model.config.hidden_size
    value = torch.rand(1, width, device=hosted.device, requires_grad=True)
    optimiser = torch.optim.Adam([value], lr=LEARNING_RATE)
    hooks = SiteHooks(hosted.model)
    hooks.attach(site)
    try:
        for _ in range(STEPS):
            with torch.enable_grad(), hooks.applying(1, {site: (placing(value, where),)}):
                logits = hosted.model(input_ids=batch.ids, use_cache=False).logits
                nll = cross_entropy(logits[0, batch.position[0]].float(), batch.target[0])
            (value.grad,) = torch.autograd.grad(nll, value)
            optimiser.step()
    finally:
        hooks.close()
    return Fitted(learned={"steps": STEPS}, tensors={"value": value.detach()})


def _rescope(fitted: list[tuple[Fitted, FitRequest]], engine: ServingEngine) -> None:
    for each, request in fitted:
        engine.rescope(each, request)
