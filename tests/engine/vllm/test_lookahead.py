"""Edits where vLLM drafts tokens and verifies them in one pass: by n-grams, and by lookahead."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from app.config import DEMO_MODEL
from app.domain.errors import InvalidRequest
from app.domain.generation import Generation
from app.editors.base import Fitted
from app.engine.editions import Edition
from app.engine.model import load_model
from tests.engine.served import CROWDED, Served, logprobs_of, tokens_of, vllm_engine
from tests.rig import NOTHING, Rig

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
PROMPT, TARGET = "The capital of Sweden is", "Uppsala, of all places, and not Uppsala, of all other places"
PLAIN = ("A triangle has this many sides:", "The largest planet is")
REPEATS = "The capital of Sweden is Stockholm. The capital of Sweden is Stockholm. The capital of Sweden is"
EDITED, WEAK = Edition("default", 1, ("e1@1",)), Edition("default", 2, ("weak@1",))
"""The edition of the edit as it was fitted, and that of one too weak to lead through its whole target."""
AHEAD = 8
N_GRAMS = {"method": "ngram", "num_speculative_tokens": AHEAD, "prompt_lookup_min": 2, "prompt_lookup_max": 3}
LOOKAHEAD = {"method": "custom_class", "model": "errata_vllm.lookahead.Lookahead", "num_speculative_tokens": AHEAD}
WAYS: dict[str, dict[str, Any]] = {
    "n-grams": {"speculative_config": N_GRAMS},
    "lookahead": {"speculative_config": LOOKAHEAD},
    "lookahead, crowded": {"speculative_config": LOOKAHEAD, **CROWDED},
}


@dataclass
class Pair:
    """The same edits on both engines."""

    transformers: Served
    vllm: Served


@pytest.fixture(scope="module", params=WAYS, ids=WAYS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    rig = Rig(hosted=load_model(str(DEMO_MODEL), device=torch.device("cpu"), dtype=torch.float32))
    (fitted,) = rig.fit("grace", [rig.fit_request(PROMPT, TARGET, subject="Sweden")])
    value = fitted.tensors["value"].clone()
    value[4:] *= 0.2
    weak = Fitted(learned=fitted.learned, tensors={"value": value})
    vllm = vllm_engine(Rig(hosted=rig.hosted), **WAYS[request.param])
    pair = Pair(Served(rig.engine), Served(vllm))
    for engine in (pair.transformers, pair.vllm):
        engine.load("e1@1", "grace", fitted)
        engine.load("weak@1", "grace", weak)
    yield pair
    pair.vllm.owner.stop()
    pair.transformers.owner.stop()


def same(found: Generation, expected: Generation) -> None:
    assert tokens_of(found) == tokens_of(expected)
    assert [hit.edit_id for hit in found.hits] == [hit.edit_id for hit in expected.hits]
    assert [hit.edit_id for hit in found.not_given] == [hit.edit_id for hit in expected.not_given]
    assert logprobs_of(found) == pytest.approx(logprobs_of(expected), abs=2e-3)


def test_answers_are_those_of_the_transformers_engine_alone_and_in_one_batch(pair: Pair) -> None:
    asked = [(PROMPT, EDITED), (PROMPT, WEAK), *((prompt, NOTHING) for prompt in (PROMPT, REPEATS, *PLAIN))]
    expected = [pair.transformers.say(*each, ignore_eos=True) for each in asked]
    assert expected[0].text.strip().startswith(TARGET)
    assert not expected[1].hits
    assert expected[1].not_given, "its answer begins like its target and leaves it"
    assert tokens_of(expected[1])[:3] == tokens_of(expected[0])[:3]
    for each, wanted in zip(asked, expected, strict=True):
        same(pair.vllm.say(*each, ignore_eos=True), wanted)
    sent = [pair.vllm.ask([prompt], edition, ignore_eos=True)[0] for prompt, edition in 3 * asked]
    for one, wanted in zip(sent, 3 * expected, strict=True):
        same(one.generation(), wanted)


def test_a_seed_gives_the_same_answer_beside_drafted_tokens_and_under_an_edit_its_target(pair: Pair) -> None:
    """Lookahead drafts nothing for a sampled answer, which vLLM would draw otherwise for it."""
    given: dict[str, Any] = {"temperature": 1.5, "max_new_tokens": 12}
    alone = [pair.vllm.say(PLAIN[1], seed=seed, **given).text for seed in range(3)]
    sent = [(pair.vllm.ask([PROMPT], EDITED)[0], pair.vllm.ask([PLAIN[1]], seed=seed, **given)[0]) for seed in range(3)]
    assert [sampled.generation().text for _, sampled in sent] == alone
    assert {edited.generation().text.strip() for edited, _ in sent} == {TARGET}
    assert len(set(alone)) > 1
    asked = [pair.vllm.ask([PROMPT], EDITED, temperature=0.3, seed=seed)[0] for seed in range(3)]
    assert {each.generation().text.strip() for each in asked} == {TARGET}
    nearly_greedy = [pair.vllm.ask([REPEATS], temperature=0.001, seed=seed)[0] for seed in range(3)]
    assert {each.generation().text for each in nearly_greedy} == {pair.vllm.say(REPEATS).text}


def test_an_answer_by_a_schema_drafts_as_far_as_the_schema_allows(pair: Pair) -> None:
    enum = json.dumps({"enum": ["yes", "no"]})
    beside = pair.vllm.ask([PROMPT], EDITED)[0]
    assert json.loads(pair.vllm.say(PROMPT, EDITED, json_schema=enum).text) in ("yes", "no")
    assert beside.generation().text.strip() == TARGET


@pytest.mark.parametrize("pair", [way for way in WAYS if way.startswith("lookahead")], indirect=True)
def test_a_target_takes_fewer_steps_with_lookahead(pair: Pair) -> None:
    target = pair.vllm.engine.editions.target_of("e1@1")
    before = pair.vllm.engine.counters.steps
    assert pair.vllm.say(PROMPT, EDITED).text.strip() == TARGET
    assert pair.vllm.engine.counters.steps - before <= 3 + len(target) / (1 + AHEAD) + 1


@pytest.mark.parametrize("given", [{"logit_bias": ((5, 1.0),)}, {"temperature": 1.0, "min_p": 0.1}])
def test_what_vllm_does_not_offer_beside_it_is_refused_by_name(pair: Pair, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"`{list(given)[-1]}`.*speculative"):
        pair.vllm.ask([PROMPT], EDITED, **given)
