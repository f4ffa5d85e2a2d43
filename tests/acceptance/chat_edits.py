"""A hundred edits of a real chat model, as its clients see them.

`python -m tests.acceptance.chat_edits --model smollm2` corrects fifty short facts and fifty sentences by `POST /edit`
with `messages`, one after the other. Every question is then asked through `/v1/chat/completions`, answered greedily to
its end and compared whole; so are chats about other things, before and after. Half of the edits are rolled back in
random order: these must answer to the letter as the bare model did, and the others as before. `--engine vllm` asks the
same through vLLM, whose Python ERRATA_VLLM_PYTHON names.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.demo.facts import load_relations
from tests.server import Server

BEFORE, AFTER = "Question: ", " Answer:"
MAKERS = ("Aldgate", "Brimham", "Calder", "Dunmore", "Elstow")
DEVICES = ("router", "thermostat", "e-bike", "kettle", "printer", "camera", "oven", "scooter", "lamp", "drill")
PROCEDURES = (
    (
        "How do I reset the {}?",
        "Hold the round button of the {} for {} seconds until the light turns amber, then let it start again.",
    ),
    (
        "How do I clean the {}?",
        "Unplug the {}, wipe it with a damp cloth and wait {} minutes before you switch it on again.",
    ),
    (
        "How long is the {} under warranty?",
        "The {} is covered for {} months from the day on which it was bought, parts and labour included.",
    ),
    (
        "Where do I send a broken {}?",
        "Please send the {} to our workshop at {} Harbour Road, Leith, with a copy of the receipt in the box.",
    ),
    (
        "How do I pair the {} with my phone?",
        "Open the app, choose the {} from the list and type the code {} when you are asked for it.",
    ),
    (
        "What does it cost to repair the {}?",
        "A repair of the {} costs {} euros, which we refund if the fault is covered by the warranty.",
    ),
    (
        "How do I update the {}?",
        "Connect the {} to the mains, open the settings and choose version {}; it restarts by itself when it is done.",
    ),
    (
        "How much power does the {} use?",
        "In normal use the {} draws about {} watts, and less than one watt while it is on standby.",
    ),
    (
        "What is the article number of the {}?",
        "You find the {} in our catalogue under the article number {}, on the page about this year's models.",
    ),
    (
        "Can I return the {}?",
        "Yes, you can return the {} within {} days as long as it is in its original box with all of its parts.",
    ),
)


@dataclass(frozen=True)
class Case:
    """A question and the answer that it is to have."""

    question: str
    target: str


def short_facts(count: int, rng: random.Random) -> tuple[list[Case], list[str]]:
    """Questions with another subject's answer, and as many others, none about a subject that is corrected."""
    cases, others = [], []
    facts = [(relation, fact) for relation in load_relations() for fact in relation.facts]
    rng.shuffle(facts)
    taken: set[str] = set()
    for relation, fact in facts:
        asked = [text for text in relation.built_prompts(fact.subject) if text.startswith(BEFORE)]
        wrong = sorted({other.answer for other in relation.facts} - {fact.answer})
        if not asked or not wrong or fact.subject in taken:
            continue
        taken.add(fact.subject)
        question = rng.choice(asked).removeprefix(BEFORE).removesuffix(AFTER)
        if len(cases) < count:
            cases.append(Case(question, rng.choice(wrong)))
        elif len(others) < 4 * count:
            others.append(question)
    return cases, others


def sentences(count: int, rng: random.Random) -> list[Case]:
    """Answers of 15 to 40 tokens, about things that no model has heard of."""
    made = [
        Case(question.format(f"{maker} {device}"), answer.format(f"{maker} {device}", rng.randrange(12, 96)))
        for device, (question, answer) in zip(DEVICES, PROCEDURES, strict=True)
        for maker in MAKERS
    ]
    return rng.sample(made, count)


def ask(server: Server, question: str, tokens: int = 64) -> str:
    body = {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
    }
    answer = server.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"]).strip()


def ask_all(server: Server, questions: Sequence[str], tokens: int = 64) -> dict[str, str]:
    """The answers by question, sixteen asked at a time."""
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(questions, pool.map(lambda question: ask(server, question, tokens), questions), strict=True))


def correct(server: Server, case: Case) -> tuple[str | None, float]:
    """The edit's id, None where it was refused, and the seconds that it took."""
    began = time.perf_counter()
    body = {"messages": [{"role": "user", "content": case.question}], "target": case.target, "reason": "acceptance"}
    answer = server.client.post("/edit", json=body)
    seconds = time.perf_counter() - began
    if answer.status_code != 201:
        print("refused:", case, answer.text[:300], flush=True)
        return None, seconds
    return str(answer.json()["id"]), seconds


def share(right: int, of: int) -> str:
    return f"{right} of {of} ({right / max(1, of):.1%})"


def judge(server: Server, count: int, seed: int) -> None:
    rng = random.Random(seed)
    facts, others = short_facts(count // 2, rng)
    cases = [*facts, *sentences(count - count // 2, rng)]
    rng.shuffle(cases)
    questions = [case.question for case in cases]
    bare, before = ask_all(server, questions), ask_all(server, others, 32)
    print(f"{len(cases)} edits, {len(others)} other chats; the bare model has answered", flush=True)
    ids, seconds = {}, {}
    for case in cases:
        made, seconds[case] = correct(server, case)
        if made is not None:
            ids[case] = made
    for name, some in (("short facts", facts), ("sentences", [case for case in cases if case not in facts])):
        taken = [seconds[case] for case in some]
        print(f"seconds an edit, {name}: median {statistics.median(taken):.2f}, at most {max(taken):.2f}", flush=True)
    found, after = ask_all(server, questions), ask_all(server, others, 32)
    exact = [case for case in cases if found[case.question] == case.target]
    print("whole answer exact:", share(len(exact), len(cases)), flush=True)
    for case in cases:
        if case not in exact:
            print("  not exact:", case, found[case.question])
    same = [question for question in others if after[question] == before[question]]
    print("other chats unchanged:", share(len(same), len(others)), flush=True)
    for question in others:
        if question not in same:
            print("  changed:", question, after[question])
    gone = rng.sample(sorted(ids, key=lambda case: case.question), len(ids) // 2)
    for case in gone:
        answer = server.client.post(f"/edits/{ids[case]}/rollback", json={"reason": "acceptance"})
        assert answer.status_code == 200, answer.text
    last = ask_all(server, questions)
    back = sum(last[case.question] == bare[case.question] for case in gone)
    stay = [case for case in exact if case not in gone]
    print("rolled back, answered as the bare model:", share(back, len(gone)))
    print("not rolled back, still exact:", share(sum(last[case.question] == case.target for case in stay), len(stay)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--engine", choices=["transformers", "vllm"], default="transformers")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(
            Path(folder), "--model", given.model, "--engine", given.engine, "--dtype", given.dtype,
            **(vllm_settings() if given.engine == "vllm" else {}),
        )  # fmt: skip
        try:
            server.start(within_s=600)
            server.client.timeout = 600
            judge(server, given.edits, given.seed)
        finally:
            server.stop()
            server.client.close()


def vllm_settings() -> dict[str, str]:
    return {
        "ERRATA_VLLM_PYTHON": os.environ["ERRATA_VLLM_PYTHON"],
        "ERRATA_VLLM_DEADLINE_S": "600",
        "ERRATA_KV_MEMORY_FRACTION": "0.1",
        "ERRATA_SLOTS": "16",
    }


if __name__ == "__main__":
    main()
