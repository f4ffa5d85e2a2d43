"""Decoding parameters are translated into vLLM's, or refused by name."""

import pytest
import torch

from app.domain.errors import InvalidRequest
from app.domain.generation import GenerationParameters
from app.editors.base import FixedAdapters, Site
from app.engine.vllm.engine_arguments import speculates, vllm_arguments
from app.engine.vllm.sampling_arguments import check_parameters, drawn_seed, sampling_arguments
from tests.models import tiny

EOS = frozenset({2, 0})
SITE = Site(1, "model.layers.1.mlp")
ADAPTERS = FixedAdapters(modules=("m.1", "m.2"), rank=12, of=lambda _: {})


def arguments(**given: object) -> dict[str, object]:
    parameters = GenerationParameters(**given)  # type: ignore[arg-type]
    return sampling_arguments(parameters, drawn_seed(parameters), EOS)


def test_greedy_decoding_has_no_seed_and_stops_at_end_of_text() -> None:
    found = arguments(max_new_tokens=5, top_p=0.5)
    assert (found["temperature"], found["max_tokens"], found["stop_token_ids"]) == (0.0, 5, [0, 2])
    assert "seed" not in found
    assert "top_p" not in found
    past = arguments(ignore_eos=True)
    assert (past["ignore_eos"], past["stop_token_ids"]) == (True, [])


def test_sampling_keeps_its_parameters_and_draws_a_seed_if_none_is_given() -> None:
    found = arguments(temperature=0.7, top_k=-1, top_p=0.9, min_p=0.1, seed=5)
    assert {name: found[name] for name in ("temperature", "top_k", "top_p", "min_p", "seed")} == {
        "temperature": 0.7,
        "top_k": 0,
        "top_p": 0.9,
        "min_p": 0.1,
        "seed": 5,
    }
    assert arguments(do_sample=True)["temperature"] == 1.0
    assert arguments(do_sample=True)["seed"] != arguments(do_sample=True)["seed"]


def test_a_top_p_of_nothing_is_greedy_and_the_seed_that_vllm_takes_for_none_is_kept() -> None:
    assert {name: arguments(do_sample=True, top_p=0.0)[name] for name in ("top_p", "top_k")} == {
        "top_p": 1.0,
        "top_k": 1,
    }
    first, second = torch.Generator().manual_seed(-1), torch.Generator().manual_seed(2**64 - 1)
    assert arguments(do_sample=True, seed=-1)["seed"] == 2**64 - 1
    assert torch.equal(torch.rand(4, generator=first), torch.rand(4, generator=second))


def test_what_this_engine_does_not_offer_is_refused_by_name() -> None:
    check_parameters(GenerationParameters())
    with pytest.raises(InvalidRequest, match="certain answer"):
        check_parameters(GenerationParameters(forced=(1,)))


def test_what_vllm_does_not_apply_to_drafted_tokens_is_refused_where_it_drafts() -> None:
    check_parameters(GenerationParameters(temperature=1.0, top_p=0.5), speculates=True)
    for refused in (GenerationParameters(min_p=0.1), GenerationParameters(logit_bias=((3, 1.0),))):
        check_parameters(refused)
        with pytest.raises(InvalidRequest, match=r"`(min_p|logit_bias)` is not served here.*speculative_config"):
            check_parameters(refused, speculates=True)


def test_vllm_serves_the_hosted_model_at_the_editors_site() -> None:
    hosted = tiny("llama")
    found = vllm_arguments(hosted, SITE, 4, 100, None, ADAPTERS, {"enforce_eager": True})
    assert not {name for name in found if "lora" in name}
    assert found["additional_config"] == {"errata": {"site": "model.layers.1.mlp"}}
    assert found["kv_cache_memory_bytes"] == 100 * hosted.kv_bytes_per_token()
    assert (found["max_num_seqs"], found["max_model_len"], found["dtype"]) == (4, hosted.max_tokens, "float32")
    assert found["enforce_eager"] is True


@pytest.mark.parametrize(
    ("workers", "part"),
    [
        ({"tensor_parallel_size": 2}, 1 / 2),
        ({"tensor_parallel_size": 4}, 1 / 2),  # two of them hold the same one of two heads
        ({"pipeline_parallel_size": 2}, 1 / 2),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, 1 / 4),
    ],
)
def test_all_workers_together_hold_the_keys_and_values_that_one_would(workers: dict[str, int], part: float) -> None:
    hosted = tiny("llama")
    assert (hosted.kv_shape[0], hosted.model.config.num_hidden_layers % 2) == (2, 0)
    found = vllm_arguments(hosted, SITE, 4, 100, None, ADAPTERS, workers)
    assert found["kv_cache_memory_bytes"] == 100 * hosted.kv_bytes_per_token() * part
    assert workers.items() <= found.items()


@pytest.mark.parametrize("count", [0, "2", None])
def test_a_number_of_workers_that_is_none_is_refused(count: object) -> None:
    with pytest.raises(InvalidRequest, match=r"pipeline_parallel_size is .* a number from 1 on"):
        vllm_arguments(tiny("llama"), SITE, 4, 100, None, ADAPTERS, {"pipeline_parallel_size": count})


def test_with_loras_vllm_makes_room_for_those_of_the_editor_and_at_its_modules_only() -> None:
    found = vllm_arguments(tiny("llama"), SITE, 4, 100, None, ADAPTERS, {"enable_lora": True})
    assert (found["max_lora_rank"], found["max_loras"], found["lora_target_modules"]) == (16, 4, ["m.1", "m.2"])
    more = vllm_arguments(tiny("llama"), SITE, 4, 100, None, ADAPTERS, {"enable_lora": True, "max_lora_rank": 32})
    assert more["max_lora_rank"] == 32


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("structured_outputs_config", "decided by Errata"),
        ("async_scheduling", "decided by Errata"),
        ("speculative_config", "'ngram'"),
    ],
)
def test_an_argument_under_which_edits_would_go_wrong_is_refused_by_name(name: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name}.*{why}"):
        vllm_arguments(tiny("llama"), SITE, 4, 100, None, ADAPTERS, {name: 2})


LOOKAHEAD = {"method": "custom_class", "model": "errata_vllm.lookahead.Lookahead"}


@pytest.mark.parametrize("drafter", [{"method": "ngram"}, LOOKAHEAD])
def test_vllm_may_draft_by_n_grams_or_look_ahead(drafter: dict[str, object]) -> None:
    given = {"speculative_config": {**drafter, "num_speculative_tokens": 4}}
    assert given.items() <= vllm_arguments(tiny("llama"), SITE, 4, 100, None, ADAPTERS, given).items()
    assert speculates(given)
    assert not speculates({"speculative_config": None})


@pytest.mark.parametrize(
    "drafter",
    [{"method": "eagle", "model": "a/model"}, {"model": "a/model"}, LOOKAHEAD | {"model": "another.Class"}, "ngram"],
)
def test_another_drafter_is_refused(drafter: object) -> None:
    with pytest.raises(InvalidRequest, match="with no other"):
        vllm_arguments(tiny("llama"), SITE, 4, 100, None, ADAPTERS, {"speculative_config": drafter})


def test_log_probabilities_are_asked_for_only_if_somebody_reads_them() -> None:
    assert arguments()["logprobs"] == 0
    assert arguments(top_logprobs=2)["logprobs"] == 2
    assert arguments(token_logprobs=False)["logprobs"] is None
