"""Contrast: how near a question lies to what is asked anyway."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from app.domain.scope import Traffic
from app.scope.background import MANY, NEAREST, Background, CompiledBackground, NearbyBackground
from app.scope.vectors import Vectors
from tests.rig import an_encoder


def turned(*degrees: float) -> Tensor:
    """Unit vectors (N, 2) at these angles."""
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], -1)


def test_contrast_is_the_mean_of_the_nearest_few() -> None:
    background = CompiledBackground((), turned(20, 30, 40, 50, 60, 70, 80), traffic=True)
    found = background.near(turned(0)).contrast(turned(-45))
    assert found == torch.deg2rad(torch.tensor([20.0, 30, 40, 50, 60])).cos().mean()
    assert NEAREST == 5


def test_what_may_ask_for_the_edit_itself_is_no_contrast() -> None:
    """A key at 60 degrees: what lies at 40 is nearer to it than to the question at 0."""
    background = CompiledBackground((), turned(-20, -22, -24, -26, -28, 40), traffic=True)
    found = background.near(turned(0)).contrast(turned(60))
    assert found == torch.deg2rad(torch.tensor([20.0, 22, 24, 26, 28])).cos().mean()


def test_where_hardly_anything_is_nearer_to_the_question_all_is_contrast() -> None:
    """What resembles nothing must not be taken for the edit's."""
    found = CompiledBackground((), turned(40, 42, 44, 46, 48), traffic=True).near(turned(0)).contrast(turned(60))
    assert found == torch.deg2rad(torch.tensor([40.0, 42, 44, 46, 48])).cos().mean()


def test_what_is_asked_in_the_same_words_is_no_contrast() -> None:
    assert CompiledBackground((), turned(0, 3), traffic=True).near(turned(0)).contrast(turned(90)) == 0


def test_without_anything_asked_there_is_no_contrast() -> None:
    assert NearbyBackground(torch.zeros(0), torch.zeros(0, 2)).contrast(turned(0)) == 0
    assert CompiledBackground((), torch.zeros(0, 2), traffic=False).near(turned(0)).contrast(turned(0)) == 0


def test_many_prompts_of_a_namespace_say_what_is_usual_there(tmp_path: Path) -> None:
    asked = [f"Where is room {at}?" for at in range(MANY)]
    kept = {"busy": asked, "quiet": asked[:3]}
    background = Background(
        Vectors(an_encoder(), tmp_path), ["Who founded Lumen?"], lambda name: Traffic(asked=tuple(kept.get(name, ())))
    )
    found = {name: background.of(name) for name in ("busy", "quiet", "other")}
    assert {name: each.traffic for name, each in found.items()} == {"busy": True, "quiet": False, "other": False}
    assert [len(each.texts) for each in found.values()] == [MANY + 1, 4, 1]
    assert all(torch.allclose(each.vectors, normalize(each.vectors, dim=-1)) for each in found.values())
    assert background.of("busy") is found["busy"]


def test_what_no_edit_is_to_answer_stands_before_what_was_merely_asked() -> None:
    told = Traffic(others=("Is it open?", "Is it far?"), asked=("Is it far?", "Who?"))
    background = Background(Vectors(an_encoder()), ["Who founded Lumen?"], lambda _: told).of("default")
    assert background.texts == ("Who founded Lumen?", "Is it open?", "Is it far?", "Who?")
    assert background.others == 3


def test_what_is_asked_is_written_nowhere_and_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, told = Vectors(an_encoder(), tmp_path), Traffic(asked=("Is it open?", "Is it far?"))
    background = Background(vectors, ["Who founded Lumen?"], lambda _: told)
    before = background.of("default")
    (kept,) = tmp_path.iterdir()
    with closing(sqlite3.connect(kept)) as opened:
        assert opened.execute("SELECT count(*) FROM vectors").fetchone() == (1,)
    encoded: list[str] = []
    uncached = vectors.uncached
    monkeypatch.setattr(vectors, "uncached", lambda texts: encoded.extend(texts) or uncached(texts))
    told = Traffic(asked=("Is it far?", "Who?"))
    after = background.of("default")
    assert encoded == ["Who?"]
    assert torch.equal(after.vectors[1], before.vectors[2])
