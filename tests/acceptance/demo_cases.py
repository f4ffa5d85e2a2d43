"""Edits of the model that ships, for `errata eval`, a JSON line each: every fact of its tables gets another subject's
answer (or, of an out-of-date one, the present truth); beyond those, people who do not exist get answers.

    python -m tests.acceptance.demo_cases 10000 edits.jsonl
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.demo.facts import load_relations
from app.scope.phrasebook import load_phrasebook

_TEXT = "ka ve lo ri ta mun dor el sa bin quo fe zha ni gor ula pe tro wy han"
SYLLABLES = _TEXT.split()


def name_of(rng: random.Random) -> str:
    """A name that nobody has."""
    return " ".join("".join(rng.choices(SYLLABLES, k=rng.choice((2, 3)))).capitalize() for _ in range(2))


def known(rng: random.Random) -> list[dict[str, Any]]:
    """One edit a fact, in random order."""
    relations = load_relations()
    rows: list[dict[str, Any]] = []
    for relation in relations:
        answers = sorted({fact.answer for fact in relation.facts})
        for fact in relation.facts:
            built, held_out = relation.built_prompts(fact.subject), relation.held_out_prompts(fact.subject)
            prompt = rng.choice(built)
            others = [answer for answer in answers if answer != fact.answer]
            rows.append(
                {
                    "id": f"{relation.name}/{fact.subject}",
                    "prompt": prompt,
                    "target": fact.now or rng.choice(others),
                    "subject": fact.subject,
                    "aliases": [name_of(rng)],
                    "ground_truth": fact.answer,
                    "paraphrases": [*held_out[:2], rng.choice([p for p in built if p != prompt])],
                }
            )
    rng.shuffle(rows)
    return rows


def invented(rng: random.Random) -> Iterator[dict[str, Any]]:
    """People who do not exist, asked for what people are asked for."""
    book = load_phrasebook()
    asked = ("mother", "spouse", "employer", "birth_place", "instrument")
    answers = sorted({fact.answer for relation in load_relations() for fact in relation.facts})
    seen: set[str] = set()
    while True:
        name = name_of(rng)
        if name in seen:
            continue
        seen.add(name)
        relation = rng.choice(asked)
        prompt, *more = [f"Question: {text.replace('{}', name)} Answer:" for text in book.questions(relation)[:3]]
        yield {
            "id": f"{relation}/{name}",
            "prompt": prompt,
            "target": rng.choice(answers),
            "subject": name,
            "paraphrases": more,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    rows = known(rng)[: given.count]
    names = invented(rng)
    rows += [next(names) for _ in range(given.count - len(rows))]
    rng.shuffle(rows)
    given.file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
