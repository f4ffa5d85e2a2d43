"""A request in the words of /v1/completions: what is translated, and what is refused by name."""

from typing import Any

import pytest

from app.domain.errors import InvalidRequest
from app.engine.vllm.completions import completion_body

GRAMMAR = {"grammar": "start: "}


def body(backend: str = "guidance", **more: Any) -> dict[str, Any]:
    parameters = {"max_tokens": 5, "temperature": 0.0, "logprobs": 0, "logit_bias": [], **more}
    return completion_body("a model", [1, 2], parameters, None, "a session", backend)


def test_a_grammar_goes_to_the_backend_that_it_was_written_for_and_to_no_other() -> None:
    assert body(structured_outputs=GRAMMAR)["structured_outputs"] == GRAMMAR
    for other in ("auto", "xgrammar"):
        with pytest.raises(InvalidRequest, match=f"has '{other}' read grammars") as caught:
            body(other, structured_outputs=GRAMMAR)
        assert """--structured-outputs-config '{"backend": "guidance"}'""" in caught.value.message
        assert "structured_outputs" not in body(other)


@pytest.mark.parametrize(("seed", "sent"), [(5, 5), (2**64 - 2, -2), (2**64 - 1, -(2**63)), (2**63 - 1, 2**63 - 1)])
def test_a_seed_is_sent_as_a_signed_number_and_never_as_the_one_that_vllm_takes_for_none(seed: int, sent: int) -> None:
    assert body(seed=seed)["seed"] == sent
    assert "seed" not in body()
