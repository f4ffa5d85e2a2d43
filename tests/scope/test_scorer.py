"""The pair scorer that ships: what it tells apart, its file, and its cost."""

import json
from pathlib import Path

import pytest
import torch

from app.bootstrap import assemble
from app.config import Settings
from app.domain.errors import InvalidRequest
from app.scope.encoder import Encoder, find_encoder
from app.scope.scorer import WEIGHTS, PairScorer, batch_of, load_scorer, words_of
from app.scope_training.items import PAIRS, held_out, read_items
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
