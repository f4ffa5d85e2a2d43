"""Many edits on the model that ships, each judged by free generation; then half of them rolled back in random order.

The quick form runs with the tests; the long form is `python -m tests.acceptance.many_edits --edits 200`. With `--model`
and `--cases` it judges another model on edits from a file, a JSON line each: prompt, target_new, rephrase_prompts,
locality.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.bootstrap import assemble
from app.config import DEMO_MODEL, Settings
from app.demo.facts import Fact, Relation, load_relations
from app.domain.edit import EditRequest
from app.domain.errors import EditRejected, ScopeConflict
from app.domain.events import EditCommitted, Origin
from app.domain.generation import Generation, GenerationParameters
from app.engine.model import load_model, pick_device, pick_dtype
from app.scope.bank import load_bank
from app.service.service import Service
from app.store.memory import MemoryLog

ORIGIN = Origin(actor="judge")
ROOM_TOKENS = 32


@dataclass(frozen=True)
class Case:
    """An edit to make, ways of asking it that it does not carry, and the nearest questions it must not touch."""

    prompt: str
    target: str
    counterfactual: bool
    paraphrases: tuple[str, ...]
    neighbours: tuple[str, ...]


@dataclass(frozen=True)
class How:
    """The questions that are judged, and the edits that they are judged on."""

    editor: str = "auto"
    preset: str = "serving"
    batch: int = 1
    force: bool = False
    overhead: bool = False
    model: str | None = None
    cases: Path | None = None
    verbose: bool = False


def make_cases(count: int, seed: int) -> list[Case]:
    """Half take another subject's answer, half the present truth of an out-of-date fact or another surface of one."""
    rng = random.Random(seed)
    relations = load_relations()
    of_subject: dict[str, list[tuple[Relation, Fact]]] = {}
    for relation in relations:
        for fact in relation.facts:
            of_subject.setdefault(fact.subject, []).append((relation, fact))
    stale = [(r, f, f.now) for r in relations for f in r.facts if f.now is not None]
    fresh = [(r, f, None) for r in relations for f in r.facts if f.now is None]
    chosen = rng.sample(stale, min(count // 2, len(stale)))
    chosen += rng.sample(fresh, count - len(chosen))
    rng.shuffle(chosen)
    edited = {(relation.name, fact.subject) for relation, fact, _ in chosen}  # what asks these is no neighbour
    cases: list[Case] = []
    for relation, fact, now in chosen:
        built, held_out = relation.built_prompts(fact.subject), relation.held_out_prompts(fact.subject)
        prompt = rng.choice(built)
        others = [other.answer for other in relation.facts if other.answer != fact.answer]
        others_of_subject = [(r, f) for r, f in of_subject[fact.subject] if (r.name, f.subject) not in edited]
        same_subject = [r.built_prompts(f.subject) for r, f in others_of_subject]
        same_relation = [f for f in relation.facts if (relation.name, f.subject) not in edited]
        cases.append(
            Case(
                prompt=prompt,
                target=now if now is not None else rng.choice(others),
                counterfactual=now is None,
                paraphrases=(
                    *rng.sample(held_out, min(2, len(held_out))),
                    rng.choice([p for p in built if p != prompt]),
                ),
                neighbours=(
                    *(rng.choice(relation.built_prompts(f.subject)) for f in rng.sample(same_relation, 2)),
                    *(rng.choice(prompts) for prompts in rng.sample(same_subject, min(2, len(same_subject)))),
                ),
            )
        )
    return cases


def read_cases(file: Path, count: int, seed: int) -> list[Case]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    chosen = random.Random(seed).sample([row for row in rows if row["rephrase_prompts"] and row["locality"]], count)
    return [
        Case(
            prompt=row["prompt"],
            target=row["target_new"],
            counterfactual=True,
            paraphrases=tuple(row["rephrase_prompts"][:3]),
            neighbours=tuple(each["prompt"] for each in row["locality"][:4]),
        )
        for row in chosen
    ]


def demo_service(model: str | None = None) -> Service:
    device = pick_device("auto")
    hosted = load_model(model or str(DEMO_MODEL), device=device, dtype=pick_dtype("auto", device))
    return assemble(hosted, MemoryLog(), Settings(_env_file=None), bank=load_bank())  # type: ignore[call-arg]


async def ask(
    service: Service, prompts: Sequence[str], edits: Any = "live", count: int = ROOM_TOKENS
) -> list[Generation]:
    parameters = GenerationParameters(max_new_tokens=count, edits=edits)
    answers: list[Generation] = []
    for first in range(0, len(prompts), 512):  # what waits is bounded
        some = (service.generate(prompt, parameters) for prompt in prompts[first : first + 512])
        answers.extend(await asyncio.gather(*some))
    return answers


def bits(generations: Sequence[Generation]) -> list[list[tuple[int, float]]]:
    return [[(token.id, token.logprob) for token in generation.tokens] for generation in generations]


async def commit(service: Service, cases: Sequence[Case], how: How) -> list[Any]:
    """The committed edits, or None for each of a batch that was refused: a refusal counts as a failure."""
    requests = [
        EditRequest(prompt=c.prompt, target=c.target, editor=how.editor, preset=how.preset, force=how.force)
        for c in cases
    ]
    try:
        results = await service.edit(requests, ORIGIN, batch=len(cases) > 1)
        return [result.view.edit for result in results.results]
    except (EditRejected, ScopeConflict):
        return [None] * len(cases)


async def overhead(service: Service, prompts: Sequence[str], count: int) -> float:
    """The ratio of the times that `count` tokens take with the edits and without, by turns in one run."""
    took: dict[str, list[float]] = {"off": [], "live": []}
    for _ in range(7):
        for edits, seconds in took.items():
            began = time.perf_counter()
            await ask(service, prompts, edits, count)
            seconds.append(time.perf_counter() - began)
    return round(statistics.median(took["live"]) / statistics.median(took["off"]), 2)


async def judge(count: int, seed: int, how: How = How()) -> dict[str, Any]:
    model, verbose = how.model, how.verbose
    cases = make_cases(count, seed) if how.cases is None else read_cases(how.cases, count, seed)
    rng = random.Random(seed + 1)
    edited = {case.prompt for case in cases}
    neighbours = [p for case in cases for p in case.neighbours if p not in edited]
    relations = load_relations()
    unrelated = [
        rng.choice(r.built_prompts(f.subject))
        for r, f in rng.sample([(r, f) for r in relations for f in r.facts], count * 2)
        if not any(f.subject in case.prompt for case in cases)
    ]
    service = demo_service(model)
    await service.start()
    before = {
        p: g.said for p, g in zip((*neighbours, *unrelated), await ask(service, (*neighbours, *unrelated)), strict=True)
    }
    if how.editor in ("patcher", "hook_layer"):  # what they want to know of generic text is no part of an edit's time
        async for _ in service.prepare():
            pass
    began = time.perf_counter()
    edits = [
        edit
        for first in range(0, count, how.batch)
        for edit in await commit(service, cases[first : first + how.batch], how)
    ]
    seconds = (time.perf_counter() - began) / count
    answers = await ask(service, [case.prompt for case in cases])
    right = [edit is not None and g.said == case.target for edit, g, case in zip(edits, answers, cases, strict=True)]
    asked = [(p, case) for case, edit in zip(cases, edits, strict=True) if edit for p in case.paraphrases]
    heard = await ask(service, [p for p, _ in asked])
    general = [g.said == case.target for g, (_, case) in zip(heard, asked, strict=True)]

    async def unchanged(prompts: Sequence[str]) -> float:
        now = await ask(service, prompts)
        changed = [(p, before[p], g.said) for p, g in zip(prompts, now, strict=True) if g.said != before[p]]
        if verbose:
            print(*changed, sep="\n")
        return 1 - len(changed) / len(prompts)

    standing = [edit for edit in edits if edit is not None]
    by_batch = [edits[first] for first in range(0, count, how.batch) if edits[first] is not None]
    fit_seconds = sum(edit.report["seconds"]["fit"] for edit in by_batch)
    held = sum(each["held_bytes"] for each in service.editors() if each["live_edits"])
    figures: dict[str, Any] = {
        "editor": how.editor,
        "preset": how.preset,
        "batch": how.batch,
        "edits": count,
        "counterfactual": sum(case.counterfactual for case in cases),
        "refused": sum(edit is None for edit in edits),
        "exact": sum(right) / count,
        "paraphrases": len(general),
        "paraphrases_exact": sum(general) / max(1, len(general)),
        "paraphrases_hit": sum(bool(g.hits) for g in heard) / max(1, len(heard)),
        "neighbours": len(neighbours),
        "neighbours_unchanged": await unchanged(neighbours),
        "unrelated": len(unrelated),
        "unrelated_unchanged": await unchanged(unrelated),
        "seconds_per_edit": round(seconds, 3),
        "fit_seconds_per_edit": round(fit_seconds / max(1, len(standing)), 3),
        "stored_bytes_per_edit": sum(len(edit.tensors) for edit in standing) // max(1, len(standing)),
        "held_bytes": held,
    }
    if how.overhead:
        some = [case.prompt for case in cases][:32]
        figures["overhead_prefill_unrelated"] = await overhead(service, unrelated[:32], 1)
        figures["overhead_decode_unrelated"] = await overhead(service, unrelated[:32], ROOM_TOKENS)
        figures["overhead_answered"] = await overhead(service, some, ROOM_TOKENS)
    if verbose:
        for case, edit, g in zip(cases, edits, answers, strict=True):
            if edit is None or g.said != case.target:
                print("FAILED", case.prompt, "->", case.target, "|", g.said, "| refused" if edit is None else "")
        for (p, case), g in zip(asked, heard, strict=True):
            if g.said != case.target:
                print("MISSED", p, "|", case.prompt, "->", case.target, "|", g.said, "| hit" if g.hits else "")
    gone = rng.sample(standing, len(standing) // 2)
    for edit in gone:
        await service.roll_back([edit.id], ORIGIN)
    prompts = [case.prompt for case in cases]
    while service.refitter.due():
        await asyncio.sleep(0.1)
    told = await ask(service, prompts)
    lost = {edit.id for edit in gone}
    still = [(edit, g) for edit, g in zip(edits, told, strict=True) if edit is not None]
    kept = [g.said == edit.request.target for edit, g in still if edit.id not in lost]
    figures["exact_of_the_rest"] = sum(kept) / max(1, len(kept))
    bare = [g.said for g in await ask(service, prompts, "off")]
    as_bare = [
        g.said == text for edit, g, text in zip(edits, told, bare, strict=True) if edit is not None and edit.id in lost
    ]
    figures["rolled_back_as_bare"] = sum(as_bare) / max(1, len(as_bare))
    after = bits(told)
    await service.stop()
    figures["rolled_back"] = len(gone)
    if any(each["live_edits"] and each["capabilities"]["rollback"] == "approximate" for each in service.editors()):
        return figures  # a server that never had them would answer otherwise, as declared
    # the reference: a server that has only ever held the others, by their own records
    other = demo_service(model)
    await other.start()
    ledger = service.records.ledger
    for edit in standing:
        if edit.id not in lost and not lost & set(edit.supersedes):
            now = ledger.entry(edit.id).fits(ledger.revision)[-1]
            now = replace(now, id=edit.id)
            event = EditCommitted(revision=other.revision + 1, at_s=edit.created_at_s, origin=ORIGIN, edit=now)
            async with other.records.writing:
                await other.records.append(event)
                await other.loader.take_in([event], other.records.ledger)
    reference = bits(await ask(other, prompts))
    await other.stop()
    figures["tokens_equal_after_rollback"] = sum(
        [t for t, _ in a] == [t for t, _ in b] for a, b in zip(after, reference, strict=True)
    ) / len(prompts)
    figures["bits_equal_after_rollback"] = sum(a == b for a, b in zip(after, reference, strict=True)) / len(prompts)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default=None)
    parser.add_argument("--cases", type=Path, default=None)
    parser.add_argument("--editor", default="auto")
    parser.add_argument("--preset", default="serving")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--force", action="store_true", help="commit what did not hold, and count it as it answers")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    given = vars(parser.parse_args())
    count, seed = given.pop("edits"), given.pop("seed")
    print(json.dumps(asyncio.run(judge(count, seed, How(**given))), indent=1))
