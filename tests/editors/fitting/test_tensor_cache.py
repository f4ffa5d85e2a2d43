"""The cache returns a model's own tensors or None, never something else and never an error."""

import shutil
from pathlib import Path

import pytest
import torch

from app.editors.fitting.tensor_cache import TensorCache

TENSORS = {
    "whiten": torch.randn(8, 8),
    "scale": torch.tensor([0.5, 2.0]),
    "radius": torch.tensor(0.1, dtype=torch.float64),
}


def stored_in(folder: Path, model: str = "llama/float32") -> tuple[TensorCache, Path]:
    cache = TensorCache(folder, model)
    cache.store("scope-keys", ["1", "bank"], TENSORS)
    (file,) = folder.iterdir()
    return cache, file


def test_stored_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    stored_in(tmp_path / "made" / "on demand")
    found = TensorCache(tmp_path / "made" / "on demand", "llama/float32").load("scope-keys", ["1", "bank"])
    assert found is not None
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) and found[name].dtype == TENSORS[name].dtype for name in TENSORS)


def test_what_is_of_another_model_version_or_bank_is_not_taken(tmp_path: Path) -> None:
    cache, file = stored_in(tmp_path)
    assert TensorCache(tmp_path, "llama/bfloat16").load("scope-keys", ["1", "bank"]) is None
    assert cache.load("scope-keys", ["2", "bank"]) is None
    assert cache.load("scope-keys", ["1", "other bank"]) is None
    # nor under the name that another model's would have
    other, theirs = stored_in(tmp_path / "other", "gpt2/float32")
    shutil.copy(file, theirs)
    assert other.load("scope-keys", ["1", "bank"]) is None


@pytest.mark.parametrize("offset", [0, 4, 20, 200, -1, -8, -100])
def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path, offset: int) -> None:
    cache, file = stored_in(tmp_path)
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)
    assert cache.load("scope-keys", ["1", "bank"]) is None


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_half_a_file_is_noticed(tmp_path: Path, size: int) -> None:
    cache, file = stored_in(tmp_path)
    file.write_bytes(file.read_bytes()[:size])
    assert cache.load("scope-keys", ["1", "bank"]) is None
    cache.store("scope-keys", ["1", "bank"], TENSORS)
    assert cache.load("scope-keys", ["1", "bank"]) is not None


def test_a_folder_that_cannot_be_written_is_said_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    in_the_way = tmp_path / "cache"
    in_the_way.write_text("a file where the folder should be")
    cache = TensorCache(in_the_way, "llama/float32")
    cache.store("scope-keys", ["1", "bank"], TENSORS)
    assert cache.load("scope-keys", ["1", "bank"]) is None
    assert "computed again" in caplog.text


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    TensorCache(tmp_path, "llama/float32").store("scope-keys", ["1", "bank"], TENSORS)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_stored() -> None:
    cache = TensorCache()
    cache.store("scope-keys", [], TENSORS)
    assert cache.load("scope-keys") is None
