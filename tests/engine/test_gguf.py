"""A GGUF file becomes a folder in Hugging Face format: the same model, whole or not at all, or a clear refusal."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from app.domain.errors import UnknownModel, UnsupportedModel
from app.engine import gguf
from app.engine.gguf import unpacked
from app.engine.gguf_header import supported
from app.engine.model import HostedModel, host, load_model
from tests.gguf_files import write_gguf
from tests.models import TINY, tiny

pytestmark = pytest.mark.slow
FLOAT32 = "float32"
KINDS = ["gpt2", "llama", "qwen2", "qwen3"]
IDS = torch.arange(1, 60)[None]


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> HostedModel:
    return load_model(str(folder), device=torch.device("cpu"), dtype=dtype)


def logits(hosted: HostedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = hosted.model(IDS).logits
    return found


def test_what_is_supported_is_what_the_tests_try() -> None:
    assert supported() == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_the_one_that_was_packed(tmp_path: Path, kind: str) -> None:
    packed = write_gguf(tmp_path / "tiny.gguf", kind)
    found = loaded(unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32))
    torch.testing.assert_close(logits(found), logits(packed), rtol=1e-5, atol=1e-5)
    assert found.tokenizer("Zürich, 1945?").input_ids == packed.tokenizer("Zürich, 1945?").input_ids
    assert found.eos_ids == packed.eos_ids
    assert found.max_tokens == packed.max_tokens


def scaled(rope: dict[str, Any]) -> HostedModel:
    """A tiny Llama whose rotary embeddings are scaled."""
    config, model_class, arguments = TINY["llama"]
    base = tiny("llama")
    model = model_class(config(**arguments, rope_parameters={"rope_theta": 10000.0, **rope}))
    model.load_state_dict(base.model.state_dict())
    return host(model, base.tokenizer, name="scaled")


def test_factors_of_the_rotary_frequencies_are_kept(tmp_path: Path) -> None:
    """Llama 3.1 and later: transformers leaves the tensor out and says nothing."""
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    packed = scaled({**llama3, "original_max_position_embeddings": 32})
    factors = tiny("llama").model.model.rotary_emb.inv_freq / packed.model.model.rotary_emb.inv_freq
    assert factors.max() == 8
    write_gguf(tmp_path / "tiny.gguf", hosted=packed, add={"rope_freqs.weight": factors})
    found = loaded(unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32))
    torch.testing.assert_close(logits(found), logits(packed), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_scaled_rotary_embeddings_are_kept(tmp_path: Path, kind: str) -> None:
    packed = scaled(
        {"rope_type": kind, "factor": 4.0} | ({"original_max_position_embeddings": 64} if kind == "yarn" else {})
    )
    fields = {"llama.rope.scaling.type": kind, "llama.rope.scaling.factor": 4.0}
    write_gguf(tmp_path / "tiny.gguf", hosted=packed, fields=fields)
    found = loaded(unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32))
    torch.testing.assert_close(logits(found), logits(packed), rtol=1e-5, atol=1e-5)


def test_rotary_embeddings_scaled_otherwise_are_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", fields={"llama.rope.scaling.type": "longrope"})
    with pytest.raises(UnsupportedModel, match=r"'longrope'.*linear and yarn"):
        unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32)


def test_prompts_begin_as_the_file_says(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", fields={"tokenizer.ggml.add_bos_token": True})
    found = loaded(unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32))
    assert found.tokenizer("x").input_ids == [0, *tiny("llama").tokenizer("x").input_ids]


def test_nothing_of_the_packing_stays_in_the_config(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    found = loaded(unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32))
    assert not hasattr(found.model.config, "quantization_config")
    assert found.model.config.eos_token_id == found.model.generation_config.eos_token_id == 0


def test_weights_are_kept_in_the_precision_that_is_served(tmp_path: Path) -> None:
    """Values that are rounded when unpacked equal those that are rounded when loaded."""
    write_gguf(tmp_path / "tiny.gguf")
    whole, half = (unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", dtype) for dtype in (FLOAT32, "bfloat16"))
    assert half != whole
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert loaded(half, torch.bfloat16).fingerprint == loaded(whole, torch.bfloat16).fingerprint


def test_a_file_is_unpacked_once_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    said: list[tuple[str, int, int]] = []
    folder = unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32, lambda *told: said.append(told))
    assert said[:2] == [("unpacking tiny.gguf", 0, 39), ("unpacking tiny.gguf", 1, 39)]
    assert said[-1] == (f"writing tiny.gguf, unpacked, to {folder.parent}", 0, 0)
    shutil.copy(tmp_path / "tiny.gguf", tmp_path / "copy.gguf")
    monkeypatch.setattr(gguf, "read_header", None)  # a second time would fail
    assert unpacked(tmp_path / "copy.gguf", tmp_path / "cache", FLOAT32) == folder


def test_a_file_that_changed_is_another_model(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    folder = unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32)
    write_gguf(tmp_path / "tiny.gguf", seed=1)
    assert unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32) != folder


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    os.truncate(file, max(8, int(share * file.stat().st_size)))
    with pytest.raises(UnknownModel, match="cut short or damaged"):
        unpacked(file, tmp_path / "cache", FLOAT32)
    assert not (tmp_path / "cache").exists()


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    file.write_bytes(file.read_bytes().replace(b"llama", b"mamba"))
    with pytest.raises(UnsupportedModel, match=r"'mamba'.*gpt2, llama, qwen2, qwen3"):
        unpacked(file, tmp_path / "cache", FLOAT32)


def test_a_part_of_a_split_file_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", fields={"split.count": 3})
    with pytest.raises(UnsupportedModel, match="llama-gguf-split --merge"):
        unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32)


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", leave_out="blk.1.ffn_up")
    with pytest.raises(UnsupportedModel, match="lacks weights"):
        unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32)


def test_weights_that_have_no_place_are_not_left_out(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", add={"blk.1.attn_q.bias": torch.ones(32)})
    with pytest.raises(UnsupportedModel, match="has a place for"):
        unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32)


def test_what_is_missing_to_read_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(gguf, "find_spec", lambda name: None if name == "gguf" else object())
    with pytest.raises(UnsupportedModel, match=r"package gguf: pip install 'errata\[gguf\]'"):
        unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32)


def leftovers(cache: Path) -> list[str]:
    return [each.name for each in (cache / "models").iterdir() if each.suffix != ".lock"]


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(gguf.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(UnknownModel, match=r"GB are needed and 0\.0 GB are free.*ERRATA_CACHE_DIR"):
        unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32)
    assert leftovers(tmp_path / "cache") == []


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(gguf.os, "fsync", fill)
    with pytest.raises(UnknownModel, match=r"No space left on device.*Free some space"):
        unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32)
    assert leftovers(tmp_path / "cache") == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(UnknownModel, match=r"cannot be unpacked into .*cache.*ERRATA_CACHE_DIR"):
        unpacked(tmp_path / "tiny.gguf", tmp_path / "cache", FLOAT32)


HELD = """
import sys
from pathlib import Path
from app.engine import gguf
def held(part, folder):
    print("written", flush=True)
    sys.stdin.readline()
Path.rename = held
gguf.unpacked(Path(sys.argv[1]), Path(sys.argv[2]), "float32")
"""


def test_a_killed_unpacking_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    file, cache = tmp_path / "tiny.gguf", tmp_path / "cache"
    packed = write_gguf(file)
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, file, cache],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (part,) = leftovers(cache)
    assert (cache / "models" / part / "model.safetensors").exists()
    folder = unpacked(file, cache, FLOAT32)
    assert leftovers(cache) == [folder.name]
    torch.testing.assert_close(logits(loaded(folder)), logits(packed), rtol=1e-5, atol=1e-5)


def test_two_at_once_unpack_once(tmp_path: Path) -> None:
    """The lock is on an opened file: two threads stand for two processes."""
    file, cache = tmp_path / "tiny.gguf", tmp_path / "cache"
    write_gguf(file)
    written: list[str] = []
    begun, may_go_on = Event(), Event()

    def told(what: str, _done: int, _of: int) -> None:
        if "another process" in what:
            may_go_on.set()
        if what.startswith("writing"):
            written.append(what)
            begun.set()
            may_go_on.wait(60)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(unpacked, file, cache, FLOAT32, told)
        assert begun.wait(60)
        second = pool.submit(unpacked, file, cache, FLOAT32, told)
        assert first.result() == second.result()
    assert len(written) == 1
    assert may_go_on.is_set()
    assert leftovers(cache) == [first.result().name]
