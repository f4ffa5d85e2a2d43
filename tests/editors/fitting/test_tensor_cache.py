"""What is kept of a model between starts: the same tensors, or None, never something else and never an error."""

import shutil
from pathlib import Path

import pytest
import torch

from app.editors.fitting.tensor_cache import Kept

HELD = {
    "whiten": torch.randn(8, 8),
    "scale": torch.tensor([0.5, 2.0]),
    "radius": torch.tensor(0.1, dtype=torch.float64),
}


def kept_in(folder: Path, model: str = "llama/float32") -> tuple[Kept, Path]:
    kept = Kept(folder, model)
    kept.store("scope-keys", ["1", "bank"], HELD)
    (file,) = folder.iterdir()
    return kept, file


def test_what_was_kept_comes_back_bit_for_bit(tmp_path: Path) -> None:
    kept_in(tmp_path / "made" / "on demand")
    found = Kept(tmp_path / "made" / "on demand", "llama/float32").load("scope-keys", ["1", "bank"])
    assert found is not None
    assert found.keys() == HELD.keys()
    assert all(torch.equal(found[name], HELD[name]) and found[name].dtype == HELD[name].dtype for name in HELD)


def test_what_is_of_another_model_version_or_bank_is_not_taken(tmp_path: Path) -> None:
    kept, file = kept_in(tmp_path)
    assert Kept(tmp_path, "llama/bfloat16").load("scope-keys", ["1", "bank"]) is None
    assert kept.load("scope-keys", ["2", "bank"]) is None
    assert kept.load("scope-keys", ["1", "other bank"]) is None
    # nor under the name that another model's would have
    other, theirs = kept_in(tmp_path / "other", "gpt2/float32")
    shutil.copy(file, theirs)
    assert other.load("scope-keys", ["1", "bank"]) is None


@pytest.mark.parametrize("offset", [0, 4, 20, 200, -1, -8, -100])
def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path, offset: int) -> None:
    kept, file = kept_in(tmp_path)
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)
    assert kept.load("scope-keys", ["1", "bank"]) is None


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_half_a_file_is_noticed(tmp_path: Path, size: int) -> None:
    kept, file = kept_in(tmp_path)
    file.write_bytes(file.read_bytes()[:size])
    assert kept.load("scope-keys", ["1", "bank"]) is None
    kept.store("scope-keys", ["1", "bank"], HELD)
    assert kept.load("scope-keys", ["1", "bank"]) is not None


def test_a_folder_that_cannot_be_written_is_said_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    in_the_way = tmp_path / "cache"
    in_the_way.write_text("a file where the folder should be")
    kept = Kept(in_the_way, "llama/float32")
    kept.store("scope-keys", ["1", "bank"], HELD)
    assert kept.load("scope-keys", ["1", "bank"]) is None
    assert "computed again" in caplog.text


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    Kept(tmp_path, "llama/float32").store("scope-keys", ["1", "bank"], HELD)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_kept() -> None:
    kept = Kept()
    kept.store("scope-keys", [], HELD)
    assert kept.load("scope-keys") is None
