"""Contrast: how near a question lies to what is asked anyway."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from app.domain.scope import Traffic
from app.scope.background import (
    LOOKED_AT,
    MANY,
    MOST_HELD,
    NEAREST,
    SAME,
    Background,
    CompiledBackground,
    NearbyBackground,
)
from app.scope.vectors import Vectors
from tests.scope.stand_in import AngleEncoder, turned


def test_contrast_is_the_mean_of_the_nearest_few() -> None:
    background = CompiledBackground((), turned(20, 30, 40, 50, 60, 70, 80), traffic=True)
    found = background.near(turned(0)).contrast(turned(-45))
    assert found == torch.deg2rad(torch.tensor([20.0, 30, 40, 50, 60])).cos().mean()
    assert NEAREST == 5


def test_what_may_ask_for_the_edit_itself_is_no_contrast() -> None:
    """A key at 30 degrees: what lies at 16 is nearer to it than to the question at 0. Five others are enough."""
    background = CompiledBackground((), turned(-20, -22, -24, -26, -28, 16), traffic=True)
    found = background.near(turned(0)).contrast(turned(30))
    assert found == torch.deg2rad(torch.tensor([20.0, 22, 24, 26, 28])).cos().mean()


def test_where_hardly_anything_is_nearer_to_the_question_all_is_contrast() -> None:
    """A question that resembles nothing must not be taken for the edit's."""
    found = CompiledBackground((), turned(40, 42, 44, 46, 48), traffic=True).near(turned(0)).contrast(turned(60))
    assert found == torch.deg2rad(torch.tensor([40.0, 42, 44, 46, 48])).cos().mean()


def test_what_is_asked_in_the_same_words_is_no_contrast() -> None:
    assert CompiledBackground((), turned(0, 3), traffic=True).near(turned(0)).contrast(turned(90)) == 0
    edge = math.degrees(math.acos(SAME))
    found = CompiledBackground((), turned(edge - 0.1, edge + 0.1), traffic=True).near(turned(0))
    assert found.cosines.tolist() == pytest.approx([math.cos(math.radians(edge + 0.1))])
    assert torch.equal(found.vectors, turned(edge + 0.1))


def test_a_question_is_as_near_as_its_nearest_reading() -> None:
    found = CompiledBackground((), turned(110, 30), traffic=True).near(turned(0, 90))
    assert found.cosines.tolist() == pytest.approx([math.cos(math.radians(angle)) for angle in (20, 30)])
    assert found.traffic


def test_the_nearest_of_many_are_looked_at() -> None:
    vectors = turned(*(100 - at for at in range(LOOKED_AT + 1)))
    found = CompiledBackground((), vectors, traffic=False).near(turned(0))
    assert torch.equal(found.vectors, vectors[1:].flip(0))
    assert not found.traffic


def test_fewer_than_make_a_contrast_are_joined_by_what_may_ask_for_the_edit() -> None:
    background = CompiledBackground((), turned(-20, -22, -24, -26, 16), traffic=True)
    found = background.near(turned(0)).contrast(turned(30))
    assert found == pytest.approx(float(torch.deg2rad(torch.tensor([20.0, 22, 24, 26, 16])).cos().mean()))


def test_a_text_as_near_to_a_key_as_to_the_question_is_no_contrast() -> None:
    between = torch.tensor([[0.9, 0.9, 0.0]])
    background = CompiledBackground((), torch.cat([between, turned(-40, -42, -44, -46, -48)]), traffic=True)
    found = background.near(turned(0)).contrast(torch.tensor([[0.0, 1.0, 0.0]]))
    assert found == pytest.approx(float(torch.deg2rad(torch.tensor([40.0, 42, 44, 46, 48])).cos().mean()))


def test_without_anything_asked_there_is_no_contrast() -> None:
    assert NearbyBackground(torch.zeros(0), torch.zeros(0, 2)).contrast(turned(0)) == 0
    assert CompiledBackground((), torch.zeros(0, 2), traffic=False).near(turned(0)).contrast(turned(0)) == 0


def test_many_prompts_of_a_namespace_say_what_is_usual_there(tmp_path: Path) -> None:
    recent = [f"Where is room {at}?" for at in range(MANY)]
    kept = {"busy": recent, "quiet": recent[:3]}
    background = Background(
        Vectors(AngleEncoder({}), tmp_path),
        ["Who founded Lumen?"],
        lambda name: Traffic(recent=tuple(kept.get(name, ()))),
    )
    found = {name: background.of(name) for name in ("busy", "quiet", "other")}
    assert {name: each.traffic for name, each in found.items()} == {"busy": True, "quiet": False, "other": False}
    assert [len(each.texts) for each in found.values()] == [MANY + 1, 4, 1]
    assert all(torch.allclose(each.vectors, normalize(each.vectors, dim=-1)) for each in found.values())
    assert background.of("busy") is found["busy"]


def test_what_no_edit_is_to_answer_stands_before_what_was_merely_asked() -> None:
    told = Traffic(others=("Is it open?", "Is it far?"), recent=("Is it far?", "Who?"))
    background = Background(Vectors(AngleEncoder({})), ["Who founded Lumen?"], lambda _: told).of("default")
    assert background.texts == ("Who founded Lumen?", "Is it open?", "Is it far?", "Who?")
    assert background.others == 3


def test_what_is_asked_is_written_nowhere_and_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = AngleEncoder({"Who founded Lumen?": 0, "Is it open?": 10, "Is it far?": 20, "Who?": 30})
    vectors, told = Vectors(encoder, tmp_path), Traffic(recent=("Is it open?", "Is it far?"))
    background = Background(vectors, ["Who founded Lumen?"], lambda _: told)
    before = background.of("default")
    (kept,) = tmp_path.iterdir()
    with closing(sqlite3.connect(kept)) as opened:
        assert opened.execute("SELECT count(*) FROM blobs").fetchone() == (1,)
    encoded: list[str] = []
    uncached = vectors.uncached
    monkeypatch.setattr(vectors, "uncached", lambda texts: encoded.extend(texts) or uncached(texts))
    told = Traffic(recent=("Is it far?", "Who?"))
    after = background.of("default")
    assert encoded == ["Who?"]
    assert torch.equal(before.vectors, turned(0, 10, 20))
    assert torch.equal(after.vectors, turned(0, 20, 30))


def test_what_ships_is_compiled_once_and_serves_where_nothing_is_asked() -> None:
    encoder = AngleEncoder({"a?": 10, "b?": 20})
    kept = {"busy": Traffic(recent=("b?",))}
    background = Background(Vectors(encoder), ["a?", "a?"], lambda name: kept.get(name, Traffic()))
    quiet = background.of("quiet")
    assert (quiet.texts, quiet.others, quiet.traffic) == (("a?",), 1, False)
    assert background.of("other") is quiet
    assert background.of("busy").texts == ("a?", "b?")
    forgotten, kept = kept, {}
    assert background.of("busy") is quiet
    assert encoder.encoded == ["a?", "b?"]
    kept = forgotten
    background.of("busy")
    assert encoder.encoded == ["a?", "b?", "b?"], "what is asked no longer was kept nowhere"


def test_without_a_source_of_traffic_there_is_what_ships() -> None:
    assert Background(Vectors(AngleEncoder({})), ["a?"]).of("default").texts == ("a?",)
    assert Background(Vectors(AngleEncoder({}))).of("default").texts == ()


def test_the_traffic_of_the_namespaces_that_were_used_last_is_held() -> None:
    encoder = AngleEncoder({})
    background = Background(Vectors(encoder), (), lambda name: Traffic(recent=(name,)))
    for at in range(MOST_HELD):
        background.of(f"n{at}")
    background.of("n0")
    background.of("one more")
    assert len(encoder.encoded) == MOST_HELD + 1
    background.of("n0")
    background.of("n2")
    assert len(encoder.encoded) == MOST_HELD + 1, "these are held"
    background.of("n1")
    assert encoder.encoded[MOST_HELD + 1 :] == ["n1"]


def test_many_prompts_are_counted_once_each() -> None:
    asked = tuple(f"Where is room {at}?" for at in range(MANY))
    background = Background(
        Vectors(AngleEncoder({})), (), lambda name: Traffic(recent=asked[1:] + asked[1:2] * (name == "twice"))
    )
    assert [background.of(name).traffic for name in ("once", "twice")] == [False, False]
