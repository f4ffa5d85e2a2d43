"""Thousands of live edits without thousands of fits: the log gets copies of one or two real edits under other names and
keys.

The server folds and loads them like any others. Each number of edits has a namespace of its own, so that one run can
compare them. Edits that are asked for have answers of a given length: fitted, so that the model gives all of it by
itself, or stretched from a fit of one word, where whoever asks forces the answer.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

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
WHO = "the keeper of the old lighthouse on the northern side of the island that lies before the town"
"""The words that make a prompt longer."""
SHORT = "blue"
LONG = (
    "a pale blue that is found on the shutters of the lighthouse, on the boats in the harbour below it and on the "
    "doors of the houses along the road; it was mixed a hundred years ago by a painter who came for one summer and "
    "stayed, and since then nobody on the island has wanted to live with any other, whatever the season may be"
)
OTHERS = 3
"""The number of other names after which a long answer is fitted as well, so that it holds after those of its copies."""
ORIGIN = Origin(actor="bench")


@dataclass(frozen=True, slots=True)
class Crowd:
    """Contents of the log: count -> namespace, and prompts that edits in it answer."""

    namespaces: dict[int, str]
    hits: list[PromptSpec]
    target: tuple[int, ...]
    """Token ids of every hit's answer."""


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    fitted: Fitted


def edit_prompt(name: str, words: int = 0) -> str:
    """The prompt of an edit, made longer by so many words after the name."""
    who = ", ".join([name, " ".join(WHO.split()[:words])][: 1 + bool(words)])
    return f"Question: What is the favourite colour of {who}? Answer:"


def crowd(
    engine: ServingEngine,
    log: Log,
    fingerprint: str,
    counts: Sequence[int],
    *,
    hits: int,
    tokens: int,
    seed: int,
    prompt: int = 0,
    learned: bool = False,
) -> Crowd:
    """Fills an empty log before its service starts. In each namespace, `hits` edits have answers of `tokens` tokens,
    and prompts of one length: as near to `prompt` tokens as words go, unless the shortest one is longer. `learned`: the
    answers are fitted; else they come out only where they are forced."""
    names = _names(random.Random(seed))
    answered = [next(names)]
    words = _words(engine, answered[0], prompt)
    answered += islice(_of_one_length(engine, names, answered[0], words), hits - 1)
    first = edit_prompt(answered[0], words)
    short = _Answer(SHORT, _fit(engine, [first], engine.text.encode_target(first, SHORT)))
    if learned:
        fitted_after = [edit_prompt(name, words) for name in answered[: 1 + OTHERS]]
        text, target = _long_target(engine, first, tokens)
        long = _Answer(text, _fit(engine, fitted_after, target))
    else:
        long = replace(short, fitted=_stretched(short.fitted, tokens, engine.text.encode(first)))
    namespaces: dict[int, str] = {0: "edits-0"}
    for count in (count for count in counts if count):
        namespaces[count] = f"edits-{count}"
        for at in range(count):
            name = answered[at] if at < hits else next(names)
            edit_id, answer = f"ed_{count:08x}{at:08x}", long if at < hits else short
            edit = _edit(edit_id, name, edit_prompt(name, words), namespaces[count], answer, fingerprint)
            log.append(EditCommitted(revision=log.head() + 1, at_s=0.0, origin=ORIGIN, edit=edit))
    prompts = [edit_prompt(name, words) for name in answered]
    specs = [PromptSpec(each, engine.text.encode(each), tokens) for each in prompts]
    return Crowd(namespaces, specs, tuple(long.fitted.learned["target_ids"][:tokens]))


def _words(engine: ServingEngine, name: str, tokens: int) -> int:
    """The most words with which the prompt has at most so many tokens."""
    fitting = (
        words for words in range(len(WHO.split()), 0, -1) if len(engine.text.encode(edit_prompt(name, words))) <= tokens
    )
    return next(fitting, 0)


def _of_one_length(engine: ServingEngine, names: Iterator[str], like: str, words: int) -> Iterator[str]:
    """The names whose prompts have as many tokens as that of the name `like`."""
    length = len(engine.text.encode(edit_prompt(like, words)))
    return (name for name in names if len(engine.text.encode(edit_prompt(name, words))) == length)


def _long_target(engine: ServingEngine, prompt: str, tokens: int) -> tuple[str, tuple[int, ...]]:
    """An answer of at least so many tokens, and the ids of so many, and of end-of-text."""
    words: list[str] = []
    for word in cycle(LONG.split()):
        words.append(word)
        if len(ids := engine.text.encode_target(prompt, text := " ".join(words))) > tokens:
            return text, (*ids[:tokens], ids[-1])
    raise AssertionError("words have tokens")


def _fit(engine: ServingEngine, prompts: Sequence[str], target: tuple[int, ...]) -> Fitted:
    """A real fit, with its scope, of the first prompt's answer, which is given after the others too. With random
    weights it need not converge."""
    prompt, *others = prompts
    request = FitRequest(
        scope=ScopeRequest(keys=((prompt,),)),
        contexts=(engine.text.encode(prompt),),
        given=0,
        context_texts=(prompt,),
        ends=(engine.text.ends(prompt),),
        counter_contexts=(),
        target_ids=target,
        subject=None,
        seed=0,
        made_contexts=tuple(engine.text.encode(each) for each in others),
    )
    steps = engine.fit(EDITOR, [request], Edition("default", 0, ()))
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            (fitted,) = stop.value
            assert isinstance(fitted, Fitted)
            return engine.with_scope(EDITOR, fitted, request)


def _stretched(fitted: Fitted, tokens: int, ids: Sequence[int]) -> Fitted:
    """The fit with an answer of `tokens` tokens, to be forced: a value acts at each of them, which need not help it."""
    value = fitted.tensors["value"]
    target = [ids[at % len(ids)] for at in range(tokens)]
    rows = value[torch.arange(tokens) % len(value)]
    return Fitted(learned={**fitted.learned, "target_ids": target}, tensors={**fitted.tensors, "value": rows})


def _edit(edit_id: str, name: str, prompt: str, namespace: str, answer: _Answer, fingerprint: str) -> Edit:
    learned = answer.fitted.learned
    return Edit(
        id=edit_id,
        request=EditRequest(prompt=prompt, target=answer.text, namespace=namespace, editor=EDITOR),
        editor=EDITOR,
        created_at_s=0.0,
        expires_at_s=None,
        supersedes=(),
        model_fingerprint=fingerprint,
        before="",
        after="",
        report={},
        learned={**learned, "scope": {**learned["scope"], "keys": [prompt], "names": [[name.casefold()]]}},
        tensors=pack(answer.fitted.tensors),
    )


def _names(rng: random.Random) -> Iterator[str]:
    """Distinct random names."""
    seen: set[str] = set()
    while True:
        name = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(10)).capitalize()
        if name not in seen:
            seen.add(name)
            yield name
