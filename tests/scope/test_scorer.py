"""The pair scorer that ships: what it tells apart, its file, and its cost."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.bootstrap import assemble
from app.config import Settings
from app.domain.errors import InvalidRequest
from app.scope.encoder import Encoder, find_encoder
from app.scope.items import PAIRS, all_items, held_out, read_items
from app.scope.scorer import WEIGHTS, PairNet, PairScorer, TextBatch, batch_of, load_scorer, words_of
from app.scope.training import STRANGERS, TrainingTexts, save, strangers, train
from app.store.memory import MemoryLog
from tests.models import tiny


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(find_encoder("minilm"), load_scorer().learned)


@pytest.fixture(scope="module")
def scorer() -> PairScorer:
    return load_scorer()


def _score(scorer: PairScorer, encoder: Encoder, asked: str, *keys: str) -> list[float]:
    first, *rest = encoder.encode([asked, *keys])
    found: list[float] = scorer.score(first, rest).tolist()
    return found


def test_it_was_trained_with_the_encoder_that_is_the_default(scorer: PairScorer, encoder: Encoder) -> None:
    assert scorer.encoder == encoder.fingerprint
    assert len(scorer.fingerprint) == 16


def test_its_file_is_small() -> None:
    assert WEIGHTS.stat().st_size < 1_200_000


@pytest.mark.parametrize(
    ("asked", "same", "other"),
    [
        (
            "I forgot my password, what should I do?",
            "How do I reset my password?",
            "How do I set a greeting?",
        ),
        ("how do i switch off notifications", "How do I turn off notifications?", "How do I turn on notifications?"),
        ("By whom was the Orlan Bridge designed?", "Who designed the Orlan Bridge?", "Who designed the Berin Bridge?"),
    ],
)
def test_the_same_scores_above_what_looks_alike(
    scorer: PairScorer, encoder: Encoder, asked: str, same: str, other: str
) -> None:
    alike, apart = _score(scorer, encoder, asked, same, other)
    assert alike > apart


def test_a_question_asks_the_same_as_itself(scorer: PairScorer, encoder: Encoder) -> None:
    text = "Which tools do I need to assemble the Halvik shelf?"
    assert _score(scorer, encoder, text, text)[0] > 0


def test_questions_that_have_nothing_to_do_with_one_another_are_told_apart(
    scorer: PairScorer, encoder: Encoder
) -> None:
    """A namespace asks each of many edits about everything, so that even a small share would be too many."""
    items = [item for item in read_items(PAIRS) if held_out(item)][::11][:60]
    asked = encoder.encode([item.same[at % len(item.same)] for at, item in enumerate(items)])
    vectors = torch.stack([each.vector for each in asked])
    unrelated = (vectors @ vectors.T) < 0.2
    assert unrelated.sum() > 3000
    assert (scorer.table(asked, asked)[unrelated] > 0).float().mean() < 0.005


def test_a_score_does_not_depend_on_the_other_keys(scorer: PairScorer, encoder: Encoder) -> None:
    keys = [
        "How do I reset my password?",
        "Who wrote the long report that the board read in spring 2019?",
        "Why?",
    ]
    together = _score(scorer, encoder, "I forgot my password", *keys)
    alone = [_score(scorer, encoder, "I forgot my password", key)[0] for key in keys]
    assert together == pytest.approx(alone, abs=1e-3)


def test_no_keys_no_scores(scorer: PairScorer, encoder: Encoder) -> None:
    assert scorer.score(encoder.encode(["Why?"])[0], []).shape == (0,)


def test_an_empty_text_has_a_score(scorer: PairScorer, encoder: Encoder) -> None:
    assert torch.isfinite(torch.tensor(_score(scorer, encoder, "", "How?", ""))).all()


def test_names_are_words_with_a_capital_inside_a_sentence() -> None:
    told = words_of("Is Anna's car older than the one of Tom Berg? In 1990.")
    assert told.names == {"anna", "tom", "berg"}
    assert told.numbers == {"1990"}
    assert words_of("WHO IS ANNA?").names == frozenset()


def test_texts_are_padded_by_what_is_not_read(encoder: Encoder) -> None:
    sheet = batch_of(encoder.encode(["Why?", "Why does the lamp of the printer blink?"]))
    assert sheet.real[0].sum() == 2
    assert not sheet.states[0, 2:].any()


def test_the_pairs_that_ship_are_whole() -> None:
    items = read_items(Path(WEIGHTS).parent / "pairs")
    assert len(items) > 500
    for item in items:
        assert len(item.same) >= 2
        assert not set(item.same) & set(item.other)


@pytest.mark.slow
def test_a_focus_takes_all_of_its_fields_and_a_share_of_the_others() -> None:
    written = {item for item in read_items(PAIRS) if not held_out(item)}
    focus = {item for field in ("roles", "lookalike") for item in read_items(PAIRS, field)} & written
    taken = {*all_items(PAIRS, 0, ("roles", "lookalike"), 0.25)} & written
    assert taken > focus
    assert len(taken - focus) / len(written - focus) == pytest.approx(0.25, abs=0.03)
    assert {*all_items(PAIRS, 0)} > written


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
    items = all_items(Path(WEIGHTS).parent / "pairs", 4)[-12:]
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


def test_an_encoder_that_the_scorer_does_not_know_is_refused_with_advice(tmp_path: Path) -> None:
    """The one that ships, pooled otherwise."""
    for file in find_encoder("minilm").iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    (tmp_path / "1_Pooling").mkdir()
    pooling = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(InvalidRequest, match="ERRATA_ENCODER"):
        assemble(tiny("llama"), MemoryLog(), Settings(_env_file=None, encoder=str(tmp_path)))  # type: ignore[call-arg]
