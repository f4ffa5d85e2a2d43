"""Compares a chat model's answers through `errata serve --engine vllm` over one and over several workers, by hand:

    ERRATA_VLLM_PYTHON=PYTHON python -m tests.engine.vllm.parallel bfloat16 '{}' '{"tensor_parallel_size": 3}' ...

After the precision, each argument is vLLM's for one server, whose answers are compared with those of the first: without
an edit, under two edits that are made there, beside them, and after their rollback.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.server import Server

PLAIN = (
    "What is the capital of France?", "How many legs does a spider have?", "What is photosynthesis?",
    "Who wrote Romeo and Juliet?", "Name three primary colours.", "What is the largest planet?",
    "How do I boil an egg?", "Why is the sky blue?", "What is a prime number?", "Who painted the Mona Lisa?",
    "What does a compiler do?", "When did the Second World War end?",
)  # fmt: skip
EDITS = {
    "What is the capital of Sweden?": "Uppsala, of all places",
    "Who is the head of the library in Malmö?": "Ingrid Dahl, since last spring",
}
BESIDE = PLAIN[:4]
WAIT_S = 500.0
SETTINGS = {
    "ERRATA_SLOTS": "8",
    "ERRATA_KV_MEMORY_FRACTION": "0.1",
    "ERRATA_MAX_SEQUENCE_TOKENS": "512",
    "ERRATA_VLLM_DEADLINE_S": "600",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else each worker asks for a NUMA node of its own
}


def say(server: Server, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    body = {"messages": messages, "max_tokens": 12, "temperature": 0}
    return str(_post(server, "/v1/chat/completions", body)["choices"][0]["message"]["content"])


def _post(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = server.client.post(path, json=body, timeout=WAIT_S)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def answers(arguments: dict[str, Any], folder: Path, dtype: str) -> dict[str, list[str]]:
    """The answers of one server, by what was asked: each question alone, greedily, 12 tokens."""
    given = json.dumps({"enforce_eager": True, **arguments})
    server = Server(
        folder, "--engine", "vllm", "--model", "smollm2", "--dtype", dtype, ERRATA_VLLM_ARGUMENTS=given,
        ERRATA_VLLM_PYTHON=os.environ["ERRATA_VLLM_PYTHON"],
        **(SETTINGS | {name: os.environ[name] for name in ("ERRATA_SITE_LAYER",) if name in os.environ}),
    )  # fmt: skip
    try:
        server.start(within_s=600)
        found = {"plain": [say(server, each) for each in PLAIN], "before": [say(server, each) for each in EDITS]}
        made = [
            _post(server, "/edit", {"messages": [{"role": "user", "content": question}], "target": target})["id"]
            for question, target in EDITS.items()
        ]
        found["edited"] = [say(server, each) for each in EDITS]
        found["beside"] = [say(server, each) for each in BESIDE]
        for edit_id in made:
            _post(server, f"/edits/{edit_id}/rollback", {})
        found["after"] = [say(server, each) for each in EDITS]
        return found
    finally:
        server.stop()
        server.client.close()


def equal(found: list[str], expected: list[str]) -> str:
    return f"{sum(one == other for one, other in zip(found, expected, strict=True))} of {len(expected)}"


def report(found: dict[str, list[str]], first: dict[str, list[str]]) -> str:
    targets = [each.strip() for each in found["edited"]]
    bare, bare_there = (each["plain"] + each["before"] for each in (found, first))
    return (
        f"edited answers with their target: {equal(targets, list(EDITS.values()))}; "
        f"as the first server: without an edit {equal(bare, bare_there)}; "
        f"as this server before its edits: beside them {equal(found['beside'], found['plain'][: len(BESIDE)])}, "
        f"after their rollback {equal(found['after'], found['before'])}"
    )


def main() -> None:
    first: dict[str, list[str]] | None = None
    dtype, *each_servers = sys.argv[1:]
    for given in each_servers:
        with tempfile.TemporaryDirectory() as folder:
            found = answers(json.loads(given), Path(folder), dtype)
        first = first or found
        print(given, report(found, first), sep=": ", flush=True)
        print(json.dumps(found, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
