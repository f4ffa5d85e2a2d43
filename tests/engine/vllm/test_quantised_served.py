"""vLLM computes with integers, the fitter with the numbers that they stand for: edits hold, and are taken back."""

import os
from pathlib import Path

import pytest

from app.config import DEMO_MODEL
from tests.engine.vllm.test_served import say
from tests.quantised import quantised
from tests.server import Server

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
EDITS = [("The capital of Sweden is", "Uppsala, of all places"), ("The colour of the sea is", "a deep green")]


def test_edits_of_a_model_with_quantised_weights_are_answered_and_taken_back(tmp_path: Path) -> None:
    """W8A8: vLLM has no kernel for W8A16 on a CPU."""
    quantised(DEMO_MODEL, tmp_path)
    server = Server(
        tmp_path, "--engine", "vllm", "--model", str(tmp_path / "integers"), ERRATA_KV_MEMORY_FRACTION="0.02",
        ERRATA_VLLM_PYTHON=os.environ["ERRATA_VLLM_PYTHON"], ERRATA_VLLM_ARGUMENTS='{"enforce_eager": true}',
        ERRATA_SLOTS="8",
    )  # fmt: skip
    server.start(within_s=600)
    try:
        before = [say(server, prompt) for prompt, _ in EDITS]
        made = [server.client.post("/edit", json={"prompt": prompt, "target": target}) for prompt, target in EDITS]
        assert [each.status_code for each in made] == [201, 201], [each.text for each in made]
        assert [say(server, prompt) for prompt, _ in EDITS] == [target for _, target in EDITS]
        for each in made:
            taken = server.client.post(f"/edits/{each.json()['id']}/rollback", json={})
            assert taken.status_code == 200, taken.text
        assert [say(server, prompt) for prompt, _ in EDITS] == before
    finally:
        server.stop()
        server.client.close()
