"""The training of the scope's models as a command, with another encoder than the default one."""

import json
from pathlib import Path

import pytest

from app.scope.encoder import Encoder
from app.scope.match_model import MATCH_WEIGHTS
from app.scope.models import load_models
from app.scope.scorer import WEIGHTS
from app.scope_training.__main__ import main
from app.scope_training.items import held_out, read_items
from tests.scope.small_encoder import QUESTIONS, SAME, small_encoder


def write_pairs(folder: Path) -> Path:
    """Items and intents in five languages."""
    folder.mkdir()
    items = [
        {
            "ask": f"{number}. {question}",
            "same": [f"{number}. {same}", f"{same} {number}"],
            "other": [f"{number}. {other}", f"{other} {number}", f"{number + 1}. {question}"],
        }
        for number in range(6)
        for question, same, other in QUESTIONS.values()
    ]
    intents = [
        {"domain": "help", "texts": [f"{number}. {text}" for number in range(8) for text in texts]}
        for texts in QUESTIONS.values()
    ]
    for name, rows in (("train_mixed.jsonl", items), ("intents.jsonl", intents)):
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.mark.slow
def test_models_for_another_encoder_are_written_into_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_encoder(tmp_path / "encoder", [text for texts in QUESTIONS.values() for text in texts], SAME)
    pairs, shipped = write_pairs(tmp_path / "pairs"), [file.read_bytes() for file in (WEIGHTS, MATCH_WEIGHTS)]
    assert 0 < sum(map(held_out, read_items(pairs))) < 15

    def train(*more: str) -> None:
        given = ["--encoder", str(folder), "--pairs", str(pairs), "--made", "0", "--epochs", "1", "--tuned-epochs", "1"]
        monkeypatch.setattr("sys.argv", ["", *given, *more])
        main()

    train()
    models = load_models(str(folder))
    assert models.scorer.encoder == models.match_model.encoder == Encoder(folder).fingerprint
    assert models.scorer.learned, "the encoder's upper layers are tuned"
    assert [file.read_bytes() for file in (WEIGHTS, MATCH_WEIGHTS)] == shipped

    with pytest.raises(SystemExit):
        train("--onward", str(WEIGHTS))
    assert "was trained with another encoder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train("--pairs", str(tmp_path / "nowhere"))
    assert "run this in a checkout" in capsys.readouterr().err
