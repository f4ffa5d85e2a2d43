"""The weights that ship: what they must agree with, whatever they were fitted to."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from app.scope.match_model import MatchFeatures, load_match_model


def figures(
    own: float, *, keys: int = 1, counters: int = 0, traffic: bool = False, cosine: float = 0.7
) -> MatchFeatures:
    logits, cosines = torch.full((keys,), own), torch.full((keys,), cosine)
    against = torch.full((counters,), -3.0), torch.full((counters,), 0.3)
    cohesion = 2.0 if keys > 1 else 0.0
    return MatchFeatures.of(logits, cosines, *against, contrast=0.4, traffic=traffic, cohesion=cohesion, unnamed=False)


@pytest.mark.parametrize(("keys", "counters", "traffic"), list(product((1, 4), (0, 3), (False, True))))
def test_in_every_case_a_surer_scorer_means_surer(keys: int, counters: int, traffic: bool) -> None:
    match_model = load_match_model()
    low, high = (figures(own, keys=keys, counters=counters, traffic=traffic) for own in (-4.0, 4.0))
    assert match_model.logit(low) < 0 < match_model.logit(high)


def test_a_key_that_is_far_is_less_likely_the_same() -> None:
    match_model = load_match_model()
    assert match_model.logit(figures(2.0, cosine=0.2)) < match_model.logit(figures(2.0, cosine=0.7))


def test_without_counter_examples_theirs_are_nothing() -> None:
    told = figures(1.0)
    assert (told.counter, told.counter_cosine, told.counter_mean_cosine) == (0, 0, 0)
    assert told.case == "alone"
    assert figures(1.0, keys=2, counters=1, traffic=True).case == "paraphrases, counter-examples, traffic"


def test_a_broad_edit_answers_what_lies_nearer_to_it_than_other_questions_do() -> None:
    """However little the pair scorer thinks of it; not where the edit's keys are one question, or without traffic."""
    match_model = load_match_model()
    broad = replace(figures(-3.0, keys=5, traffic=True, cosine=0.7), cohesion=0.5)
    assert match_model.logit(replace(broad, contrast=0.5)) > 0 > match_model.logit(replace(broad, contrast=0.69))
    assert match_model.logit(replace(broad, contrast=0.5, cohesion=2.5)) < 0
    assert match_model.logit(replace(broad, contrast=0.5, traffic=False)) < 0


def test_features_are_of_the_prompt_the_best_and_all_keys_and_of_the_nearest_counter_example() -> None:
    own, own_cosines = torch.tensor([1.0, 5.0, 0.0]), torch.tensor([0.5, 0.25, 0.75])
    against, against_cosines = torch.tensor([-3.0, -1.0]), torch.tensor([0.25, 0.75])
    rest = {"contrast": 0.25, "traffic": True, "cohesion": 3.0, "unnamed": True}
    found = MatchFeatures.of(own, own_cosines, against, against_cosines, **rest)
    assert found == MatchFeatures(
        prompt=1.0, best=5.0, mean=2.0, prompt_cosine=0.5, best_cosine=0.75, mean_cosine=0.5, counter=-1.0,
        counter_cosine=0.75, counter_mean_cosine=0.5, paraphrases=2, counters=2, **rest | {"unnamed": 1.0},
    )  # fmt: skip
    one = MatchFeatures.of(own, own_cosines, against[:1], against_cosines[:1], **rest)
    assert (one.counter, one.counter_cosine, one.counter_mean_cosine) == (-3.0, 0.25, 0.25)
    # squares and products of the best cosine 0.75, the contrast 0.25, the cohesion 3, and logits clipped at 4
    products = [0.25, 3.0, 0.5625, 0.0625, 0.1875, 6.0, 1.5, 2.25, 0.75, 9.0]
    assert found.values()[-len(products) :] == products
    assert replace(found, traffic=False).values() == found.values()[: -len(products)]
