"""The models that belong to an encoder: questions in five languages through the index, with a stand-in for a
multilingual encoder, and clear advice where its models are missing or belong to another one."""

import shutil
from pathlib import Path

import pytest
import torch

from app.bootstrap import assemble, scope_index
from app.config import Settings
from app.domain.errors import InvalidRequest
from app.domain.scope import ScopeRequest
from app.scope.bank import BankPrompt
from app.scope.encoder import Encoder, find_encoder
from app.scope.index import ScopeIndex
from app.scope.match_model import CASES, MATCH_WEIGHTS
from app.scope.models import load_models
from app.scope.scorer import WEIGHTS, load_scorer
from app.store.memory import MemoryLog
from tests.models import tiny
from tests.scope.small_encoder import (
    ALIKE,
    QUESTIONS,
    SAME,
    STEEP,
    WIDTH,
    small_encoder,
    train_nothing,
    write_match_weights,
)

BANK = [
    BankPrompt(relation="", subject="", text=text)
    for text in ("Wann fährt der Bus?", "Qui a écrit ce livre ?", "¿Cuántos años tiene?", "駅はどこですか?", "谁写的?")
]
TEXTS = [text for texts in QUESTIONS.values() for text in texts] + [prompt.text for prompt in BANK]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_encoder(tmp_path_factory.mktemp("untrained") / "encoder", TEXTS, SAME)


@pytest.fixture
def folder(untrained: Path, tmp_path: Path) -> Path:
    """An encoder's folder with the models that were trained with it."""
    folder = shutil.copytree(untrained, tmp_path / "encoder")
    train_nothing(folder)
    return folder


def settings(folder: Path) -> Settings:
    return Settings(_env_file=None, encoder=str(folder), cache_dir=folder / "cache")  # type: ignore[call-arg]


def answering(scope: ScopeIndex, question: str) -> str | None:
    match = scope.nearest(scope.question((question,)), scope.compile("default", list(QUESTIONS)))
    return match.edit_id if match is not None and match.margin >= 0 else None


def learned(folder: Path) -> ScopeIndex:
    """An index with the first question of each language, learned by one server and loaded by another."""
    scope, later = (scope_index(settings(folder), BANK) for _ in range(2))
    for language, (question, *_) in QUESTIONS.items():
        record = scope.learn(ScopeRequest(keys=((question,),)))
        later.load(language, record.model_dump())
    return later


def test_questions_are_answered_in_every_language_that_the_encoder_reads(folder: Path) -> None:
    scope = learned(folder)
    for language, (question, same, other) in QUESTIONS.items():
        assert answering(scope, question) == language
        assert answering(scope, same) == language
        assert answering(scope, other) is None
    assert [answering(scope, prompt.text) for prompt in BANK] == [None] * len(BANK)


def test_the_match_weights_of_the_folder_decide(folder: Path) -> None:
    write_match_weights(folder, Encoder(folder).fingerprint, -1.01 * STEEP)
    scope = learned(folder)
    for language, (question, same, _) in QUESTIONS.items():
        assert (answering(scope, question), answering(scope, same)) == (language, None)


def test_the_models_of_an_encoder_are_those_in_its_folder(folder: Path) -> None:
    models, (text,) = load_models(str(folder)), TEXTS[:1]
    assert models.encoder.width == WIDTH
    assert models.scorer.encoder == models.encoder.fingerprint == Encoder(folder).fingerprint
    assert models.scorer.fingerprint == load_scorer(folder / WEIGHTS.name).fingerprint
    tuned, plain = (encoder.encode([text])[0].upper for encoder in (models.encoder, Encoder(folder)))
    assert not torch.allclose(tuned, plain, atol=1e-2), "it is tuned as its scorer says"


def test_the_models_that_ship_serve_a_copy_of_the_default_encoder() -> None:
    models = load_models(str(find_encoder("minilm")))
    assert models.scorer.fingerprint == load_scorer().fingerprint
    assert models.encoder.fingerprint == models.scorer.encoder


def test_a_server_with_an_encoder_that_nothing_was_trained_with_says_what_to_run(untrained: Path) -> None:
    with pytest.raises(InvalidRequest, match="No pair scorer was trained with this encoder") as refused:
        assemble(tiny("llama"), MemoryLog(), settings(untrained))
    assert f"--encoder {untrained}`" in str(refused.value)
    assert "ERRATA_ENCODER" in str(refused.value)


def test_models_of_another_encoder_are_refused(folder: Path) -> None:
    """The scorer is of another width, which must not be found out where its tuning is merged."""
    trained = (folder / WEIGHTS.name).read_bytes()
    shutil.copy(WEIGHTS, folder)
    with pytest.raises(InvalidRequest, match=f"{WEIGHTS.name} was trained with another encoder.*--encoder {folder}"):
        load_models(str(folder))
    (folder / WEIGHTS.name).write_bytes(trained)
    write_match_weights(folder, "another", -STEEP * ALIKE)
    with pytest.raises(InvalidRequest, match=f"{MATCH_WEIGHTS.name} belong to another encoder.*--encoder {folder}"):
        load_models(str(folder))


def test_models_that_are_missing_or_broken_are_refused(folder: Path) -> None:
    weights = folder / MATCH_WEIGHTS.name
    weights.unlink()
    with pytest.raises(InvalidRequest, match=f"{weights} cannot be read.*--encoder {folder}"):
        load_models(str(folder))
    write_match_weights(folder, "", 0.0, CASES[:-1])
    with pytest.raises(InvalidRequest, match="no weights for 'paraphrases, counter-examples, traffic'"):
        load_models(str(folder))
    (folder / WEIGHTS.name).write_bytes((folder / WEIGHTS.name).read_bytes()[:-8])
    with pytest.raises(InvalidRequest, match=f"{WEIGHTS.name} cannot be read"):
        load_models(str(folder))


def test_what_holds_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="has no weights"):
        load_models(str(tmp_path))
