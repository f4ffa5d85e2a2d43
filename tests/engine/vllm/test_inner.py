"""Settings and versions of vLLM are refused by name, and its LoRAs are those of edits.

A stand-in takes the place of vLLM's modules.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from app.engine.vllm.inside.errata_vllm.rows import ADAPTER_PATH
from tests.engine.vllm.stand_ins import over_stand_ins

SITE = "model.layers.1.mlp"


@pytest.fixture
def inner() -> Iterator[Any]:
    with over_stand_ins("inner") as module:
        yield module


def drafter(method: str, model: str) -> Any:
    return SimpleNamespace(method=method, model=model)


def config(**changes: Any) -> Any:
    given = {
        "speculative_config": None,
        "async_scheduling": False,
        "use_v2_model_runner": False,
        "enable_dbo": False,
        "data_parallel_size": 1,
        "prefill_context_parallel_size": 1,
    }
    given |= changes
    return SimpleNamespace(
        speculative_config=given["speculative_config"],
        use_v2_model_runner=given["use_v2_model_runner"],
        additional_config={},
        model_config=SimpleNamespace(dtype=None, get_hidden_size=None, max_model_len=20),
        scheduler_config=SimpleNamespace(async_scheduling=given["async_scheduling"], max_num_batched_tokens=8),
        parallel_config=SimpleNamespace(
            enable_dbo=given["enable_dbo"],
            data_parallel_size=given["data_parallel_size"],
            prefill_context_parallel_size=given["prefill_context_parallel_size"],
        ),
    )


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"speculative_config": drafter("eagle", "a/model")}, "speculative decoding by eagle"),
        ({"speculative_config": drafter("custom_class", "a.Class")}, "speculative decoding by a.Class"),
        ({"async_scheduling": True}, "async scheduling"),
        ({"use_v2_model_runner": True}, "the V2 model runner"),
        ({"enable_dbo": True}, "dual batch overlap"),
        ({"data_parallel_size": 2}, "data parallelism"),
        ({"prefill_context_parallel_size": 2}, "prefill context parallelism"),
    ],
)
def test_a_setting_under_which_rows_would_be_placed_wrongly_is_refused_by_name(
    inner: Any, changes: dict[str, Any], name: str
) -> None:
    inner.check_config(config())
    inner.check_config(config(speculative_config=drafter("ngram", "ngram")))
    inner.check_config(config(speculative_config=drafter("custom_class", "errata_vllm.lookahead.Lookahead")))
    with pytest.raises(inner.VllmRefusal, match=f"{name} of vLLM 0.0"):
        inner.check_config(config(**changes))


def ffn(**down: Any) -> torch.nn.Module:
    """An FFN whose last linear map has these marks of vLLM's."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    for name, value in down.items():
        setattr(module[1], name, value)
    return module


def test_a_site_that_returns_a_part_of_a_sum_is_refused(inner: Any) -> None:
    """Each tensor-parallel rank adds the row: to the sum, of which all hold the same, or each to its own part."""
    inner.check_sum(ffn(), SITE)
    inner.check_sum(ffn(tp_size=2, reduce_results=True), SITE)
    inner.check_sum(ffn(tp_size=1, reduce_results=False), SITE)
    with pytest.raises(inner.VllmRefusal, match=f"sums the parts of {SITE} .* tensor_parallel_size to 1"):
        inner.check_sum(ffn(tp_size=2, reduce_results=False), SITE)


@pytest.mark.parametrize("first", [True, False])
def test_a_later_stage_has_buffers_for_the_states_that_it_receives(
    inner: Any, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    monkeypatch.setattr(inner, "get_pp_group", lambda: SimpleNamespace(is_first_rank=first))
    model = SimpleNamespace(make_empty_intermediate_tensors=lambda **given: given)
    made = SimpleNamespace(
        intermediate_tensors=None, get_model=lambda: model, max_num_tokens=7, device="cpu",
        model_config=SimpleNamespace(dtype=torch.bfloat16),
    )  # fmt: skip
    inner.receive_states(made)
    wanted = None if first else {"batch_size": 7, "dtype": torch.bfloat16, "device": "cpu"}
    assert made.intermediate_tensors == wanted
    made.intermediate_tensors = "vLLM's own"
    inner.receive_states(made)
    assert made.intermediate_tensors == "vLLM's own"


def runner(*modules: str, device: str = "cpu") -> Any:
    """A model runner with two places for LoRAs of rank 1 at each module, both taken. As vLLM's, its head has one tensor
    for them, and other modules several."""
    places = torch.ones(2, 1, 4, 1)
    layers = {name: SimpleNamespace(lora_b_stacked=places if name == "head" else (places,)) for name in modules}
    manager = SimpleNamespace(
        _load_adapter=lambda _: "from a folder", remove_adapter=None, _adapter_manager=SimpleNamespace(modules=layers)
    )
    lora_config = SimpleNamespace(lora_dtype=torch.float32)
    return SimpleNamespace(lora_config=lora_config, lora_manager=manager, device=torch.device(device))


def modules_of(runner: Any) -> Any:
    return vars(runner.lora_manager)["_adapter_manager"].modules


def test_vllm_takes_a_lora_by_its_number_and_none_for_a_number_that_was_dropped(inner: Any) -> None:
    held = {7: {"base_model.model.m.lora_A.weight": torch.ones(2, 3), "base_model.model.m.lora_B.weight": None}}
    made = runner("m")
    inner.serve_adapters(made, lambda number: held.get(number, {}))
    load = vars(made.lora_manager)["_load_adapter"]
    found = load(SimpleNamespace(lora_int_id=7, lora_path=ADAPTER_PATH))
    assert (found.number, found.rank, set(found.tensors)) == (7, 2, set(held[7]))
    assert load(SimpleNamespace(lora_int_id=8, lora_path=ADAPTER_PATH)).tensors == {}
    elsewhere = SimpleNamespace(lora_int_id=7, lora_path="/a/folder")
    assert load(elsewhere) == "from a folder", "LoRAs of others are read as ever"


def test_on_a_cpu_the_index_that_means_no_lora_finds_an_empty_place(inner: Any) -> None:
    made, elsewhere = runner("m", "head"), runner("m", device="meta")
    for each in (made, elsewhere):
        inner.serve_adapters(each, lambda _: {})
    (linear,), head = (modules_of(made)[name].lora_b_stacked for name in ("m", "head"))
    for stacked in (linear, head):
        assert stacked.shape == (3, 1, 4, 1)
        assert not stacked[-1].any()
        assert stacked[:2].all()
    assert len(modules_of(elsewhere)["m"].lora_b_stacked[0]) == 2


def test_loras_at_the_site_of_rows_are_refused(inner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(inner.SITES, SITE, object())
    with pytest.raises(inner.VllmRefusal, match=f"LoRAs act at {SITE}"):
        inner.serve_adapters(runner(SITE), lambda _: {})
    inner.serve_adapters(runner(f"{SITE}.down_proj"), lambda _: {})


def test_spans_of_requests_that_ask_for_something_hold_the_answer_and_after_it_what_is_drafted(inner: Any) -> None:
    asking, plain = (
        SimpleNamespace(sampling_params=SimpleNamespace(extra_args=extra), num_prompt_tokens=5, output_token_ids=[7])
        for extra in ({"errata_edit": "e1@1"}, None)
    )
    state, requests = asking, {"a": asking, "plain": plain, "b": asking}
    batch = SimpleNamespace(req_ids=list(requests), num_computed_tokens_cpu=[5, 5, 5], spec_token_ids=[[8, 9], [], []])
    starts = SimpleNamespace(np=[0, 3, 4, 5])
    made = SimpleNamespace(input_batch=batch, query_start_loc=starts, requests=requests)
    found = [(first, span.first, span.count, span.generated) for first, _, span in inner.spans(made)]
    assert found == [(0, 5, 3, [7, 8, 9]), (4, 5, 1, [7])]
    assert state.output_token_ids == [7]


SPECULATES = SimpleNamespace(speculative_config="any")


def test_lookahead_drafts_for_greedy_answers_as_many_tokens_as_there_is_room_for(inner: Any) -> None:
    def state(temperature: float) -> Any:
        parameters = SimpleNamespace(temperature=temperature, extra_args={"errata_edit": "e1@1"})
        return SimpleNamespace(sampling_params=parameters, output_token_ids=[7])

    sizes = SimpleNamespace(max_model_len=20)
    made = inner.Lookahead(
        SimpleNamespace(speculative_config=SimpleNamespace(num_speculative_tokens=3), model_config=sizes)
    )
    made.load_model(None)
    assert made.propose([[7]], [5], None) == [[]], "nobody has told it of edits"
    requests = {"greedy": state(0.0), "sampled": state(0.7)}
    batch = SimpleNamespace(req_ids=["greedy", "sampled", "greedy", "greedy"])
    runner = SimpleNamespace(
        drafter=made, input_batch=batch, requests=requests, device=torch.device("meta"), vllm_config=SPECULATES
    )
    inner.serve_drafts(runner, lambda at: (1, 2, 3, 4) if inner.answer_at(runner, at) else ())
    assert inner.answer_at(runner, 0) == ({"errata_edit": "e1@1"}, [7])
    assert made.propose([[7], [7], [], [7]], [5, 5, 5, 18], None) == [[1, 2, 3], [], [], [1]]
    inner.serve_drafts(SimpleNamespace(vllm_config=SimpleNamespace(speculative_config=None)), lambda _: ())


def test_on_a_cpu_each_drafted_token_is_chosen_by_the_parameters_of_its_request(inner: Any) -> None:
    runner = SimpleNamespace(drafter=object(), device=torch.device("cpu"), vllm_config=SPECULATES)
    inner.serve_drafts(runner, lambda _: ())
    given = torch.tensor([0.7, 0.0, 0.3]), torch.tensor([2, 2, 5], dtype=torch.int32), 5
    found = inner.rejection_sampler.expand_batch_to_tokens(*given, replace_from=0, replace_to=1)
    assert found.tolist() == torch.tensor([0.7, 0.7, 0.3, 0.3, 0.3]).tolist()
    greedy = torch.tensor([0.0, 0.5]), torch.tensor([1, 3]), 3
    assert inner.expanded(*greedy, replace_from=0, replace_to=1).tolist() == [1.0, 0.5, 0.5]


def test_without_loras_nothing_is_changed(inner: Any) -> None:
    made = SimpleNamespace(lora_config=None)
    inner.serve_adapters(made, lambda _: {})
    assert vars(made) == {"lora_config": None}


def test_a_seeded_request_has_its_generator_only_where_its_sample_counts(inner: Any) -> None:
    """vLLM would turn the generator back after a part of a prompt, which one on a CPU refuses."""
    requests = {name: SimpleNamespace(generator=torch.Generator()) for name in "ab"}
    requests["greedy"] = SimpleNamespace(generator=None)
    batch = SimpleNamespace(req_ids=["a", "greedy", "b"], generators={0: requests["a"].generator})
    mask = SimpleNamespace(np=[True, True, False])
    made = SimpleNamespace(device=torch.device("cpu"), input_batch=batch, requests=requests, discard_request_mask=mask)
    inner.hold_generators(made)
    assert batch.generators == {2: requests["b"].generator}
    mask.np = [False, False, False]
    inner.hold_generators(made)
    assert batch.generators == {0: requests["a"].generator, 2: requests["b"].generator}
    on_gpu = SimpleNamespace(device=torch.device("meta"), input_batch=batch, requests=requests)
    mask.np = [True, True, True]
    inner.hold_generators(on_gpu)
    assert len(batch.generators) == 2
