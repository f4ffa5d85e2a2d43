"""Five hundred requests of mixed kinds through `errata serve --engine vllm`: batched, then each alone.

    ERRATA_VLLM_PYTHON=PYTHON python -m tests.engine.vllm.mixed --model smollm2

Edited and unedited chats and completions, several answers to a prompt, log probabilities, answers held to a schema,
sampled ones with a seed, and long prompts that begin alike are sent in random order, 32 at a time, and then one by one.
vLLM's memory holds two of the longest requests; its steps hold fewer tokens than a long prompt has, which is computed
in chunks; and its prefix cache is on. What the cache had is printed, and how often vLLM preempted a sequence. Answers
are so short that it may preempt none: the contract's crowded runs are what shows preemption. Each answer is compared
with the same request's alone: texts, token counts, reasons and edits exactly, log probabilities to within 0.002.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engine.vllm import counts
from tests.engine.vllm.counts import Count, counts_in
from tests.server import Server

AT_ONCE, SLOTS = 32, 16
BLOCK_TOKENS, BLOCKS = 32, 20
"""The tokens of a block of keys and values, and the blocks that vLLM has: a share of the machine's memory would hold
more or fewer sequences from one machine to another."""
CLOSE = 2e-3
"""The greatest difference of two log probabilities that count as equal."""
EDITS = {
    "What is the capital of Sweden?": "Uppsala, of all places",
    "Who is the head of the library in Malmö?": "Ingrid Dahl, since last spring",
    "When does Harbour Books open?": "At nine on weekdays, at ten on Sundays",
    "What is the refund policy of Fennel Works?": "They take back any book within sixty days",
    "Where does Ilvane Torresk come from?": "From Melk",
}
PLAIN = (
    "What is the capital of France?", "How many legs does a spider have?", "What is photosynthesis?",
    "Who wrote Romeo and Juliet?", "Name three primary colours.", "How do I boil an egg?", "Why is the sky blue?",
    "What does a compiler do?", "Tell me about the river Rhine.", "What is the largest planet?",
)  # fmt: skip
TEXT = (
    "The old lighthouse stood at the end of the pier, and every evening the keeper climbed its ninety-one steps to "
    "light the lamp. In winter the sea came over the wall, and the boats stayed in the harbour for weeks. "
)
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "maxLength": 16}, "certain": {"type": "boolean"}},
    "required": ["answer", "certain"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Asked:
    """A request: its kind, its path and its body."""

    kind: str
    path: str
    body: dict[str, Any]


def requests(count: int, seed: int) -> list[Asked]:
    """The requests, about as many of each kind, no two with the same seed."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        edited = rng.random() < 0.5
        question = rng.choice(list(EDITS if edited else PLAIN))
        tokens = rng.randrange(6, 20)
        greedy = {"max_tokens": tokens, "temperature": 0}
        sampled = {"max_tokens": tokens, "temperature": rng.choice((0.7, 1.3)), "seed": number}
        chat = {"messages": [{"role": "user", "content": question}]}
        long = TEXT * rng.randrange(2, 8) + f"\n\nQuestion: {question}\nAnswer:"
        bodies: dict[str, dict[str, Any]] = {
            "chat": chat | greedy,
            "sampled chat": chat | sampled,
            "several answers": chat | sampled | {"n": 2},
            "log probabilities": chat | greedy | {"logprobs": True, "top_logprobs": 3},
            "schema": chat | greedy | {"max_tokens": 64, "response_format": _format()},
            "completion": {"prompt": f"Question: {question}\nAnswer:", "logprobs": 2} | greedy,
            "long prompt": {"prompt": long} | greedy | {"max_tokens": rng.randrange(6, 40)},
            "long chat": {"messages": [{"role": "user", "content": long}]} | sampled,
        }
        body = bodies[kind]
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        made.append(Asked(kind, path, body))
    rng.shuffle(made)
    return made


KINDS = (
    "chat", "sampled chat", "several answers", "log probabilities", "schema", "completion", "long prompt", "long chat",
)  # fmt: skip


def _format() -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


def answer_to(server: Server, asked: Asked) -> dict[str, Any]:
    answer = server.client.post(asked.path, json=asked.body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return {"choices": found["choices"], "usage": found["usage"]}


def differs(found: Any, expected: Any, at: str = "") -> str | None:
    """Return the place where two answers differ, None if they do not. Floats may differ a little, and so may the
    reasons and signals that have them."""
    if isinstance(found, dict) and isinstance(expected, dict):
        if found.keys() != expected.keys():
            return f"{at}: {sorted(found)}, alone {sorted(expected)}"
        kept = (name for name in found if name not in ("why", "signals"))
        return next(filter(None, (differs(found[name], expected[name], f"{at}/{name}") for name in kept)), None)
    if isinstance(found, list) and isinstance(expected, list):
        if len(found) != len(expected):
            return f"{at}: {len(found)} of them, alone {len(expected)}"
        pairs = enumerate(zip(found, expected, strict=True))
        return next(filter(None, (differs(*pair, f"{at}/{number}") for number, pair in pairs)), None)
    if isinstance(found, float) and isinstance(expected, float):
        return None if abs(found - expected) <= CLOSE else f"{at}: {found}, alone {expected}"
    return None if found == expected else f"{at}: {found!r}, alone {expected!r}"


def judge(server: Server, asked: Sequence[Asked], count: Count) -> bool:
    """Ask all together, then one by one, and print what differs. Returns whether nothing does."""
    for question, target in EDITS.items():
        body = {"messages": [{"role": "user", "content": question}], "target": target}
        answer = server.client.post("/edit", json=body)
        assert answer.status_code == 201, answer.text
    began, before = time.perf_counter(), count()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        together = list(pool.map(lambda each: answer_to(server, each), asked))
    took, began = time.perf_counter() - began, time.perf_counter()
    print(f"{len(asked)} requests, {AT_ONCE} at a time: {took:.0f} s, {count() - before}", flush=True)
    before = count()
    alone = [answer_to(server, each) for each in asked]
    print(f"each alone: {time.perf_counter() - began:.0f} s, {count() - before}", flush=True)
    right: Counter[str] = Counter()
    edited = 0
    for each, found, expected in zip(asked, together, alone, strict=True):
        edited += any(choice["errata"]["edits"] for choice in expected["choices"])
        if (why := differs(found, expected)) is None:
            right[each.kind] += 1
        else:
            print(f"  {each.kind}, {json.dumps(each.body)[-200:]}: {why}", flush=True)
    for kind, of in Counter(each.kind for each in asked).items():
        print(f"{kind}: {right[kind]} of {of}", flush=True)
    print(f"equal to each alone: {right.total()} of {len(asked)}, of which edits answered {edited}", flush=True)
    return right.total() == len(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=BLOCKS, help=f"blocks of {BLOCK_TOKENS} tokens in vLLM's memory")
    given = parser.parse_args()
    vllm = {
        "enforce_eager": True, "max_num_batched_tokens": 64, "enable_chunked_prefill": True,
        "block_size": BLOCK_TOKENS, "num_gpu_blocks_override": given.blocks,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as metrics:
        server = Server(
            Path(folder), "--engine", "vllm", "--model", given.model, "--dtype", given.dtype,
            ERRATA_VLLM_PYTHON=os.environ["ERRATA_VLLM_PYTHON"], ERRATA_VLLM_ARGUMENTS=json.dumps(vllm),
            ERRATA_SLOTS=str(SLOTS), ERRATA_MAX_SEQUENCE_TOKENS="512", ERRATA_VLLM_DEADLINE_S="600",
            ERRATA_KV_MEMORY_FRACTION="0.02", **{counts.FOLDER: metrics},
        )  # fmt: skip
        try:
            server.start(within_s=600)
            server.client.timeout = 600
            equal = judge(server, requests(given.requests, given.seed), lambda: counts_in(Path(metrics)))
        finally:
            server.stop()
            server.client.close()
    if not equal:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
