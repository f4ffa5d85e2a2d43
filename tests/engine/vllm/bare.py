"""Compares the log probabilities of answers without an edit, through `errata serve --engine vllm` and from vLLM alone.

    ERRATA_VLLM_PYTHON=PYTHON python -m tests.engine.vllm.bare FOLDER --dtype float32 --compiled

Each of 12 prompts is asked alone, greedily, past the end of text: of a process that holds nothing of Errata, of the
server before it has an edit, and of the server with an edit resident that answers none of them. The model lies in the
folder. Prints how many answers are equal in every bit, and the greatest difference.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.engine.vllm.parallel import PLAIN
from tests.server import Server

PROMPTS = [f"Question: {each}\nAnswer:" for each in PLAIN]
PROMPT, TARGET = "The capital of Sweden is", "Uppsala, of all places"
TOKENS, SLOTS, LENGTH = 24, 8, 512
WAIT_S = 900
"""The longest time for a start or for an answer, in seconds: where several programs share a core, a compilation takes
minutes."""
ALONE = """
import json, sys
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    given, tokens, prompts = json.loads(sys.argv[1])
    llm = LLM(kv_cache_memory_bytes=2**28, seed=0, **given)
    asked = SamplingParams(temperature=0, max_tokens=tokens, logprobs=0, ignore_eos=True)
    found = []
    for prompt in prompts:
        answer = llm.generate([prompt], asked, use_tqdm=False)[0].outputs[0]
        found.append([each[id].logprob for id, each in zip(answer.token_ids, answer.logprobs)])
    mode = llm.llm_engine.vllm_config.compilation_config.mode.name
    print("FOUND" + json.dumps([mode, found]))
"""

Answers = list[list[float]]
"""The log probabilities of the tokens of each answer."""


def alone(model: str, dtype: str, arguments: dict[str, Any]) -> tuple[str, Answers]:
    """vLLM's mode of compilation, and its answers."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "alone.py"
        script.write_text(ALONE)
        given = {"model": model, "dtype": dtype, "max_model_len": LENGTH, "max_num_seqs": SLOTS, **arguments}
        ran = subprocess.run(
            [os.environ["ERRATA_VLLM_PYTHON"], str(script), json.dumps([given, TOKENS, PROMPTS])],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    (line,) = [each for each in ran.stdout.splitlines() if each.startswith("FOUND")]
    mode, found = json.loads(line.removeprefix("FOUND"))
    return mode, found


def through_errata(model: str, dtype: str, arguments: dict[str, Any]) -> dict[str, Answers]:
    """The answers of `errata serve`, by what it holds."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(
            Path(folder), "--engine", "vllm", "--model", model, "--dtype", dtype,
            ERRATA_VLLM_PYTHON=os.environ["ERRATA_VLLM_PYTHON"], ERRATA_VLLM_ARGUMENTS=json.dumps(arguments),
            ERRATA_SLOTS=str(SLOTS), ERRATA_MAX_SEQUENCE_TOKENS=str(LENGTH), ERRATA_KV_MEMORY_FRACTION="0.02",
            ERRATA_VLLM_DEADLINE_S=str(WAIT_S),
        )  # fmt: skip
        try:
            server.start(within_s=WAIT_S)
            found = {"before an edit": [logprobs_of(say(server, prompt)) for prompt in PROMPTS]}
            edit = {"prompt": PROMPT, "target": TARGET}
            made = server.client.post("/edit", json=edit, timeout=WAIT_S)
            assert made.status_code == 201, made.text
            beside = [say(server, prompt) for prompt in PROMPTS]
            assert not any(choice["errata"]["edits"] for choice in beside), "the edit is to answer nothing here"
            assert say(server, PROMPT)["text"].strip().startswith(TARGET), "it is resident"
            return found | {"beside an edit": [logprobs_of(choice) for choice in beside]}
        finally:
            server.stop()
            server.client.close()


def say(server: Server, prompt: str) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "logprobs": 1, "ignore_eos": True}
    answer = server.client.post("/v1/completions", json=body, timeout=WAIT_S)
    assert answer.status_code == 200, answer.text
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


def logprobs_of(choice: dict[str, Any]) -> list[float]:
    found: list[float] = choice["logprobs"]["token_logprobs"]
    return found


def report(found: Answers, expected: Answers) -> str:
    equal = sum(one == other for one, other in zip(found, expected, strict=True))
    tokens = [each for pair in zip(found, expected, strict=True) for each in zip(*pair, strict=True)]
    same = sum(one == other for one, other in tokens)
    return (
        f"{equal} of {len(expected)} answers and {same} of {len(tokens)} tokens are equal in every bit; "
        f"the greatest difference is {max(abs(one - other) for one, other in tokens):.2g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--compiled", action="store_true")
    given = parser.parse_args()
    arguments = {"enforce_eager": not given.compiled, "max_num_batched_tokens": LENGTH}
    mode, expected = alone(given.model, given.dtype, arguments)
    print(f"vLLM's mode of compilation: {mode}", flush=True)
    found = through_errata(given.model, given.dtype, arguments)
    for holding, answers in found.items():
        print(f"{holding}: {report(answers, expected)}", flush=True)
    print(json.dumps([expected, found]))
    if any(answers != expected for answers in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
