"""The training of the pair scorer: the texts and pairs of a step, and the same result for the same seed."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.scope.encoder import Encoder
from app.scope.scorer import PairNet, TextBatch, load_scorer, words_of
from app.scope_training.items import PAIRS, all_items, read_items
from app.scope_training.scorer_training import STRANGERS, TrainingTexts, save, strangers, train
from tests.rig import an_encoder


@pytest.fixture
def encoder() -> Encoder:
    return an_encoder()


@pytest.mark.slow
def test_as_many_texts_as_wanted_have_a_version_with_noise(encoder: Encoder) -> None:
    items = read_items(PAIRS)[:8]
    texts = [text for item in items for text in item.same]

    def noisy(share: float) -> float:
        material = TrainingTexts(items, encoder.encode, share)
        return sum(plain is not noise for plain, noise in map(material.twice, texts)) / len(texts)

    assert noisy(0.0) == 0
    assert 0.2 < noisy(0.5) < noisy(1.0)


def test_each_step_draws_the_unrelated_questions_that_are_most_confused() -> None:
    count, confused = 10, {(2, 7), (7, 2), (0, 9)}

    class Confused(PairNet):
        def forward(self, _: TextBatch, left: Tensor, right: Tensor, drop: float = 0.0) -> Tensor:
            pairs = zip(left.tolist(), right.tolist(), strict=True)
            return torch.tensor([5.0 if pair in confused or pair[0] == pair[1] else -1.0 for pair in pairs])

    sheet = TextBatch(*(torch.zeros(count) for _ in range(5)), [words_of("Why?")] * count)
    drawn = [(int(left), int(right)) for left, right in strangers(Confused(), sheet)]
    assert confused < set(drawn)
    assert all(left != right for left, right in drawn)
    assert len(drawn) == len(set(drawn)) == STRANGERS * count


@pytest.mark.slow
def test_the_same_seed_trains_the_same(encoder: Encoder, tmp_path: Path) -> None:
    items = all_items(PAIRS, 4)[-12:]
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for file in files:
        torch.manual_seed(3)
        material, tuned = TrainingTexts(items, encoder.encode), encoder.tunable(rank=2)
        net = train(material, 3, 1, width=16, layers=1)
        before = {name: each.clone() for name, each in tuned.learned().items()}
        train(material, 3, 1, net=net, tuned=tuned)
        assert all(not each.equal(before[name]) for name, each in tuned.learned().items() if name.endswith(".up"))
        save(net, tuned, encoder.fingerprint, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert load_scorer(files[0]).fingerprint == load_scorer(files[1]).fingerprint
