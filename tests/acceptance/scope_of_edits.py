"""The edits that answer, where many are live together, by decisions alone: neither a model nor a fit is needed.

`python -m tests.acceptance.scope_of_edits FILE... [--edits N] [--half settle|report]` reads the files of `errata eval`,
learns each row's scope as `POST /edit` does from question and answer, and asks prompts, paraphrases, the rows'
questions that must stay unchanged, and questions that ship.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

from app.bootstrap import scope_index
from app.config import Settings
from app.domain.scope import ScopeRequest
from app.evaluation.case_selection import CaseSelection, generic_questions, load_cases
from app.scope.bank import load_bank
from app.scope.phrasebook import load_phrasebook

PARAPHRASES, UNTOUCHED, GENERIC = 3, 4, 300
"""The most paraphrases and unchanged questions of a row, and of questions that ship, that are asked."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--edits", type=int, default=300)
    parser.add_argument("--half", choices=("settle", "report"))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    selection = CaseSelection(most=arguments.edits, seed=arguments.seed, half=arguments.half, where={"split": "unique"})
    cases, phrasebook = load_cases(arguments.files, selection), load_phrasebook()
    with TemporaryDirectory() as folder:
        index = scope_index(Settings(_env_file=None, cache_dir=Path(folder)), load_bank())  # type: ignore[call-arg]
        for count, case in enumerate(cases, 1):
            made = tuple((text,) for text in phrasebook.paraphrases(case.prompt, None))
            index.load(case.id, index.learn(ScopeRequest(keys=((case.prompt,),), made=made)).model_dump())
            print(f"\r{count} of {len(cases)} edits", end="", flush=True)
        part, answered = index.compile("default", [case.id for case in cases]), defaultdict[str, list[str | None]](list)

        def ask(kind: str, text: str, own: str) -> None:
            match = index.nearest(index.question((text,)), part)
            hit = None if match is None or match.margin < 0 else match.edit_id
            answered[kind].append("own" if hit == own else hit and "another")

        for case in cases:
            ask(f"{case.source}: prompt", case.prompt, case.id)
            for text in case.paraphrases[:PARAPHRASES]:
                ask(f"{case.source}: paraphrase", text, case.id)
            for kind, text in case.untouched[:UNTOUCHED]:
                ask(f"{case.source}: {kind}, to be left alone", text, case.id)
        for text in generic_questions(cases)[:GENERIC]:
            ask("questions that ship, to be left alone", text, "")
    print("\nkind; asked; share answered by the row's own edit; by another")
    for kind, those in sorted(answered.items()):
        print(f"{kind}; {len(those)}; {those.count('own') / len(those):.3f}; {those.count('another') / len(those):.3f}")


if __name__ == "__main__":
    main()
