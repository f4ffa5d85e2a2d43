"""A cross-encoder as a judge: what can be one, what it answers, and that it may pass the exam."""

import asyncio
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.domain.errors import InvalidRequest
from app.scope.cross_encoder import CrossEncoder
from app.scope.doubt import Doubt
from app.scope.exam import ExamResults, load_exam
from app.service.examined_judge import ExaminedJudge
from tests.judges import cross_encoder

EXAM = load_exam()


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("knows") / "duplicates", EXAM, knows=True)


@pytest.fixture(scope="module")
def guessing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("guesses") / "duplicates", EXAM, knows=False)


def sat(folder: Path, results: ExamResults | None = None) -> ExaminedJudge:
    examined_judge = ExaminedJudge(CrossEncoder(folder), results)
    asyncio.run(examined_judge.run())
    return examined_judge


def test_one_that_knows_passes_the_whole_exam_and_its_result_is_kept(knowing: Path, tmp_path: Path) -> None:
    view = sat(knowing, ExamResults(tmp_path)).view()
    assert (view.state, view.judge, view.pairs) == ("serving", "duplicates", len(EXAM))
    assert (view.same, view.other, view.wrong) == (1.0, 1.0, ())
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["judge"] == "duplicates"


def test_one_that_guesses_fails_it(guessing: Path) -> None:
    view = sat(guessing).view()
    assert view.state == "failed"
    assert view.why_not is not None
    assert "failed its exam" in view.why_not
    assert view.wrong


def test_the_key_that_is_nearest_counts_and_a_counter_example_that_is_nearer_speaks_against(knowing: Path) -> None:
    judge = CrossEncoder(knowing)
    pair = next(pair for pair in EXAM if pair.same and pair.doubt.counter)
    question, known, counter = pair.doubt.question, pair.doubt.keys[0], pair.doubt.counter[0]
    tokenizer = AutoTokenizer.from_pretrained(knowing)
    model = AutoModelForSequenceClassification.from_pretrained(knowing).eval()
    with torch.inference_mode():
        yes, no = (float(model(**tokenizer(question, each, return_tensors="pt")).logits) for each in (known, counter))
    assert yes > no

    def logit(keys: tuple[str, ...], counter: tuple[str, ...] = ()) -> float:
        return asyncio.run(judge.logit(Doubt(question, keys, counter)))

    assert logit((known,)) == pytest.approx(yes, abs=1e-4)
    assert logit((counter, known)) == pytest.approx(yes, abs=1e-3)
    assert logit((known,), (counter,)) == pytest.approx(yes, abs=1e-3)
    assert logit((counter,), (known,)) == -math.inf


def test_its_fingerprint_is_of_what_it_computes_with(knowing: Path, guessing: Path, tmp_path: Path) -> None:
    same = shutil.copytree(knowing, tmp_path / "elsewhere")
    assert CrossEncoder(same).fingerprint() == CrossEncoder(knowing).fingerprint()
    assert CrossEncoder(guessing).fingerprint() != CrossEncoder(knowing).fingerprint()
    (same / "tokenizer.json").write_text("{}")
    assert CrossEncoder(same).fingerprint() != CrossEncoder(knowing).fingerprint()


def test_what_is_no_cross_encoder_is_refused_with_advice(knowing: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"There is no model in .*`off`, `hosted`, or the folder"):
        CrossEncoder(tmp_path / "nowhere")
    with pytest.raises(InvalidRequest, match="There is no model in"):
        CrossEncoder(Path("hosted "))
    wide = shutil.copytree(knowing, tmp_path / "wide")
    config = json.loads((wide / "config.json").read_text())
    config["id2label"] = {"0": "a", "1": "b", "2": "c"}
    config["label2id"] = {"a": 0, "b": 1, "c": 2}
    (wide / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidRequest, match="has 3 logits"):
        CrossEncoder(wide)
    (wide / "config.json").write_text('{"model_type": "no such model"}')
    with pytest.raises(InvalidRequest, match="cannot be read"):
        CrossEncoder(wide)


def test_weights_that_cannot_be_read_break_the_judge_and_nothing_else(knowing: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(knowing, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    view = sat(broken).view()
    assert view.state == "broken"
    assert view.why_not is not None
    assert "could not be examined" in view.why_not
