"""Thousands of live edits without thousands of fits: the log gets copies of one real edit under other names and keys.

The server folds and loads them like any others. Each number of edits has a namespace of its own, so that one run can
compare them.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.bench.workload import PromptSpec
from app.domain.edit import Edit, EditRequest
from app.domain.events import EditCommitted, Origin
from app.domain.scope import ScopeRequest
from app.editors.base import FitRequest, Fitted
from app.editors.packing import pack
from app.engine.editions import Edition
from app.engine.serving_engine import ServingEngine
from app.store.base import Log

EDITOR = "grace"
ASKED = "Question: What is the favourite colour of {}? Answer:"
ORIGIN = Origin(actor="bench")


@dataclass(frozen=True, slots=True)
class Crowd:
    """Contents of the log: count -> namespace, and prompts that edits in it answer."""

    namespaces: dict[int, str]
    hits: list[PromptSpec]
    target: tuple[int, ...]
    """Token ids of every hit's answer."""


def crowd(
    engine: ServingEngine, log: Log, fingerprint: str, counts: Sequence[int], *, hits: int, tokens: int, seed: int
) -> Crowd:
    """Fills an empty log before its service starts. In each namespace, `hits` edits have answers of `tokens` tokens."""
    names = _names(random.Random(seed))
    answered = [next(names) for _ in range(hits)]
    fitted = _fit(engine, ASKED.format(answered[0]))
    long = _with_length(fitted, tokens, engine.text.encode(ASKED))
    namespaces: dict[int, str] = {0: "edits-0"}
    for count in (count for count in counts if count):
        namespaces[count] = f"edits-{count}"
        for at in range(count):
            name = answered[at] if at < hits else next(names)
            copy = _renamed(name, long if at < hits else fitted)
            edit = _edit(f"ed_{count:08x}{at:08x}", name, namespaces[count], copy, fingerprint)
            log.append(EditCommitted(revision=log.head() + 1, at_s=0.0, origin=ORIGIN, edit=edit))
    prompts = [ASKED.format(name) for name in answered]
    specs = [PromptSpec(prompt, engine.text.encode(prompt), tokens) for prompt in prompts]
    return Crowd(namespaces, specs, tuple(long.learned["target_ids"]))


def _fit(engine: ServingEngine, prompt: str) -> Fitted:
    """A real fit with its scope. With random weights it need not converge."""
    ids = engine.text.encode(prompt)
    request = FitRequest(
        scope=ScopeRequest(keys=((prompt,),)),
        contexts=(ids,),
        given=0,
        context_texts=(prompt,),
        ends=(engine.text.ends(prompt),),
        counter_contexts=(),
        target_ids=engine.text.encode_target(prompt, "blue"),
        subject=None,
        seed=0,
    )
    steps = engine.fit(EDITOR, [request], Edition("default", 0, ()))
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            (fitted,) = stop.value
            assert isinstance(fitted, Fitted)
            return engine.with_scope(EDITOR, fitted, request)


def _with_length(fitted: Fitted, tokens: int, ids: Sequence[int]) -> Fitted:
    """The fit with an answer of `tokens` tokens: for speed it only matters that a value acts at each of them."""
    value = fitted.tensors["value"]
    target = [ids[at % len(ids)] for at in range(tokens)]
    rows = value[torch.arange(tokens) % len(value)]
    return Fitted(learned={**fitted.learned, "target_ids": target}, tensors={**fitted.tensors, "value": rows})


def _renamed(name: str, fitted: Fitted) -> Fitted:
    scope = {**fitted.learned["scope"], "keys": [ASKED.format(name)], "names": [[name.casefold()]]}
    return Fitted(learned={**fitted.learned, "scope": scope}, tensors=fitted.tensors)


def _edit(edit_id: str, name: str, namespace: str, fitted: Fitted, fingerprint: str) -> Edit:
    return Edit(
        id=edit_id,
        request=EditRequest(prompt=ASKED.format(name), target="blue", namespace=namespace, editor=EDITOR),
        editor=EDITOR,
        created_at_s=0.0,
        expires_at_s=None,
        supersedes=(),
        model_fingerprint=fingerprint,
        before="",
        after="",
        report={},
        learned=dict(fitted.learned),
        tensors=pack(fitted.tensors),
    )


def _names(rng: random.Random) -> Any:
    """Distinct random names."""
    seen: set[str] = set()
    while True:
        name = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(10)).capitalize()
        if name not in seen:
            seen.add(name)
            yield name
