"""Parameters of a generation that are out of bounds are refused by name, and each bound lies where it is stated."""

from typing import Any

import pytest

from app.domain.errors import InvalidRequest
from app.domain.generation import MAX_TOP_LOGPROBS, GenerationParameters

BOUNDS: list[tuple[str, list[Any], list[Any]]] = [
    ("max_new_tokens", [1, 10**6], [0, -1]),
    ("temperature", [None, 0.01, 5.0], [0, -1.0]),
    ("top_k", [None, -1, 0, 1], [-2]),
    ("top_p", [None, 0, 0.5, 1], [-0.1, 1.1]),
    ("min_p", [None, 0, 0.5, 1], [-0.1, 1.1]),
    ("repetition_penalty", [None, 0.1, 3.0], [0, -1]),
    ("frequency_penalty", [None, -2, 0, 2], [-2.1, 2.1]),
    ("presence_penalty", [None, -2, 0, 2], [-2.1, 2.1]),
    ("seed", [None, -(2**63), 2**63 - 1], [-(2**63) - 1, 2**63]),
    ("stop", [(), ("a",) * 16], [("a",) * 17, ("a", "")]),
    ("namespace", ["a", "team-1"], ["", "a b"]),
    ("logit_bias", [((5, -100.0), (6, 100.0)), ((1, 0.0),) * 300], [((5, 100.5),), ((5, -100.5),), ((1, 0.0),) * 301]),
    ("top_logprobs", [None, 0, 1, MAX_TOP_LOGPROBS], [-1, MAX_TOP_LOGPROBS + 1]),
    ("timeout_s", [None, 0.1], [0, -1]),
    ("revision", [None, 0, 1], [-1]),
    ("min_revision", [None, 0, 1], [-1]),
]
TOLD = {"timeout_s": "`timeout`", "top_logprobs": f"At most {MAX_TOP_LOGPROBS} of the likeliest tokens"}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, good, _ in BOUNDS for value in good])
def test_what_lies_within_its_bounds_is_taken(name: str, value: Any) -> None:
    assert getattr(GenerationParameters(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, _, bad in BOUNDS for value in bad])
def test_what_lies_beyond_its_bounds_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=TOLD.get(name, f"`{name}`")):
        GenerationParameters(**{name: value})


def test_an_answer_that_a_schema_holds_ends_where_it_is_whole() -> None:
    assert GenerationParameters(ignore_eos=True).json_schema is None
    assert GenerationParameters(json_schema="{}").json_schema == "{}"
    with pytest.raises(InvalidRequest, match="`ignore_eos`"):
        GenerationParameters(json_schema="{}", ignore_eos=True)


@pytest.mark.parametrize(
    ("how", "samples"), [({}, False), ({"do_sample": True}, True), ({"temperature": 0.5}, True), ({"top_k": 5}, False)]
)
def test_decoding_is_greedy_unless_it_is_asked_to_sample(how: dict[str, Any], samples: bool) -> None:
    assert GenerationParameters(**how).samples is samples


def test_a_timeout_runs_from_when_the_request_came() -> None:
    assert GenerationParameters().due(5.0) is None
    parameters = GenerationParameters(timeout_s=2.5)
    assert parameters.due(5.0) == 7.5
    late = parameters.too_late(3)
    assert "within 2.5 s" in late.message
    assert late.details == {"generated_tokens": 3}
