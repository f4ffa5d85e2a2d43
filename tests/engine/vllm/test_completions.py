"""Requests and tokens in the words of vLLM's /v1/completions."""

from app.engine.vllm.completions import completion_body, tokens_of


def test_log_probabilities_that_nobody_reads_are_neither_asked_for_nor_told() -> None:
    parameters = {"max_tokens": 5, "logprobs": None, "logit_bias": []}
    assert completion_body("a model", [1, 2], parameters, None, "s", "guidance")["logprobs"] is None
    assert completion_body("a model", [1, 2], {**parameters, "logprobs": 0}, None, "s", "guidance")["logprobs"] == 1
    assert tokens_of({"choices": [{"token_ids": [7, 8], "logprobs": None}]}) == [[7, None, 0, []], [8, None, 0, []]]
