"""Compares the log probabilities of answers without an edit, through `errata serve --engine vllm` and from vLLM alone.

    ERRATA_VLLM_PYTHON=PYTHON python -m tests.engine.vllm.bare FOLDER

compares a model in a folder, in bfloat16, and prints how many answers are equal in every bit.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.engine.vllm.parallel import PLAIN
from tests.server import Server

PROMPTS = [f"Question: {each}\nAnswer:" for each in PLAIN]
TOKENS, SLOTS, LENGTH = 24, 8, 512
ALONE = """
import json, sys
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    model, dtype, length, slots, tokens, prompts = json.loads(sys.argv[1])
    llm = LLM(model=model, dtype=dtype, max_model_len=length, max_num_seqs=slots, enforce_eager=True, seed=0,
              kv_cache_memory_bytes=2**28)
    asked = SamplingParams(temperature=0, max_tokens=tokens, logprobs=0)
    found = []
    for prompt in prompts:
        answer = llm.generate([prompt], asked, use_tqdm=False)[0].outputs[0]
        logprobs = [each[id].logprob for id, each in zip(answer.token_ids, answer.logprobs)]
        found.append(logprobs[:-1] if answer.finish_reason == "stop" else logprobs)
    print("FOUND" + json.dumps(found))
"""


def alone(model: str, dtype: str) -> list[list[float]]:
    """The log probabilities of the tokens of each answer of vLLM, without that of the end of text. The process holds
    nothing of Errata."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "alone.py"
        script.write_text(ALONE)
        given = json.dumps([model, dtype, LENGTH, SLOTS, TOKENS, PROMPTS])
        python = os.environ["ERRATA_VLLM_PYTHON"]
        ran = subprocess.run([python, str(script), given], stdout=subprocess.PIPE, text=True, check=True)
    (line,) = [each for each in ran.stdout.splitlines() if each.startswith("FOUND")]
    found: list[list[float]] = json.loads(line.removeprefix("FOUND"))
    return found


def through_errata(model: str, dtype: str) -> list[list[float]]:
    """The same, of answers of `errata serve`, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(
            Path(folder), "--engine", "vllm", "--model", model, "--dtype", dtype,
            ERRATA_VLLM_PYTHON=os.environ["ERRATA_VLLM_PYTHON"], ERRATA_VLLM_ARGUMENTS='{"enforce_eager": true}',
            ERRATA_SLOTS=str(SLOTS), ERRATA_MAX_SEQUENCE_TOKENS=str(LENGTH), ERRATA_KV_MEMORY_FRACTION="0.02",
            ERRATA_VLLM_DEADLINE_S="600",
        )  # fmt: skip
        try:
            server.start(within_s=600)
            found = []
            for prompt in PROMPTS:
                body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "logprobs": 1}
                answer = server.client.post("/v1/completions", json=body, timeout=300)
                assert answer.status_code == 200, answer.text
                found.append(answer.json()["choices"][0]["logprobs"]["token_logprobs"])
            return found
        finally:
            server.stop()
            server.client.close()


def main() -> None:
    found, expected = through_errata(sys.argv[1], "bfloat16"), alone(sys.argv[1], "bfloat16")
    equal = sum(one == other for one, other in zip(found, expected, strict=True))
    print(f"{equal} of {len(expected)} answers, {sum(map(len, expected))} tokens, are equal in every bit")
    print(json.dumps([found, expected]))


if __name__ == "__main__":
    main()
