"""Asks a built model every fact in every phrasing and counts exact answers: `python -m app.demo.check`.

Knows nothing about the build; it loads the saved folder as anyone would.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.demo.facts import Relation, load_relations
from app.demo.greedy_answers import answer_all, exact

MODEL = Path(__file__).with_name("model")


@dataclass
class Score:
    """Exact answers among those asked, of one relation or of all."""

    facts: int = 0
    exact: dict[str, int] = field(default_factory=lambda: {"built": 0, "held_out": 0})
    asked: dict[str, int] = field(default_factory=lambda: {"built": 0, "held_out": 0})

    def count(self, kind: str, hit: bool) -> None:
        """Add one answer."""
        self.exact[kind] += hit
        self.asked[kind] += 1

    def add(self, other: Score) -> None:
        """Add another score, for the total."""
        self.facts += other.facts
        for kind in self.asked:
            self.exact[kind] += other.exact[kind]
            self.asked[kind] += other.asked[kind]

    def share(self, kind: str) -> float:
        """The share of exact answers."""
        return self.exact[kind] / max(self.asked[kind], 1)


def check(
    model: Annotated[Path, typer.Option(help="Folder of the model.")] = MODEL,
    json_out: Annotated[Path | None, typer.Option("--json", help="File for the scores.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads to compute with.")] = 2,
    misses: Annotated[int, typer.Option(help="The number of wrong answers to show.")] = 0,
) -> None:
    """Ask everything greedily to the end of text; print and write exact answers per relation."""
    torch.set_num_threads(threads)
    relations = load_relations()
    tokenizer = AutoTokenizer.from_pretrained(model)
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    network.eval()
    entries = [entry for relation in relations for entry in _entries(relation)]
    with Progress(transient=True) as progress:
        task = progress.add_task("Asking", total=len(entries))
        prompts = [prompt for _, _, prompt, _ in entries]
        answers = answer_all(network, tokenizer, prompts, lambda count: progress.advance(task, count))
    scores = {relation.name: Score(facts=len(relation.facts)) for relation in relations}
    wrong: list[str] = []
    for (name, kind, prompt, answer), got in zip(entries, answers, strict=True):
        hit = exact(got, answer)
        scores[name].count(kind, hit)
        if not hit:
            wrong.append(f"{name} ({kind}): {prompt!r} -> {got!r} instead of {' ' + answer!r}")
    total = Score()
    for score in scores.values():
        total.add(score)
    console = Console()
    console.print(_table(scores, total))
    for line in wrong[:: max(1, len(wrong) // misses)][:misses] if misses else []:
        console.print(line, markup=False)
    if json_out is not None:
        json_out.write_text(json.dumps(_report(scores, total), indent=1) + "\n", encoding="utf-8")


def _entries(relation: Relation) -> Iterator[tuple[str, str, str, str]]:
    """Each prompt of a relation as its name, whether it was built with, the prompt and the answer."""
    for fact in relation.facts:
        for prompt in relation.built_prompts(fact.subject):
            yield relation.name, "built", prompt, fact.answer
        for prompt in relation.held_out_prompts(fact.subject):
            yield relation.name, "held_out", prompt, fact.answer


def _table(scores: dict[str, Score], total: Score) -> Table:
    """The scores for a terminal."""
    table = Table(title="Exact answers, greedy to the end of text")
    table.add_column("Relation")
    for heading in ("Facts", "Built with", "Held out", "Prompts"):
        table.add_column(heading, justify="right")
    for name, score in [*scores.items(), ("total", total)]:
        cells = [str(score.facts), f"{score.share('built'):.1%}", f"{score.share('held_out'):.1%}"]
        table.add_row(name, *cells, str(sum(score.asked.values())), end_section=name == list(scores)[-1])
    return table


def _report(scores: dict[str, Score], total: Score) -> dict[str, object]:
    """The scores for a file."""

    def entry(score: Score) -> dict[str, object]:
        return {"facts": score.facts, "exact": score.exact, "asked": score.asked,
                "share": {kind: round(score.share(kind), 5) for kind in score.asked}}  # fmt: skip

    return {"total": entry(total), "relations": {name: entry(score) for name, score in scores.items()}}


if __name__ == "__main__":
    typer.run(check)
