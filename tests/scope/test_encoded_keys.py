"""The encoded texts of edits: read back as they were computed, from memory or from disk."""

import logging
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from app.domain.scope import ScopeRequest
from app.scope import encoded_keys as module
from app.scope.blob_cache import DROPPED_AT_ONCE, BlobCache
from app.scope.encoded_keys import EncodedKeys
from app.scope.encoder import EncodedText, Encoder, Pieces
from tests.rig import an_encoder
from tests.scope.stand_in import AngleEncoder, StandIns

TEXTS = ("Who founded Lumen?", "Was ist das für 1 Brücke?", "?", "")


class WatchedEncoder(Encoder):
    """The real encoder, which notes what it computes."""

    def __init__(self) -> None:
        self.width, self.fingerprint, self.encoded = an_encoder().width, an_encoder().fingerprint, list[str]()

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        self.encoded.extend(texts)
        return an_encoder().encode(texts)

    def pieces(self, texts: Sequence[str]) -> list[Pieces]:
        return an_encoder().pieces(texts)


def alike(one: EncodedText, other: EncodedText) -> bool:
    tensors = all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("vector", "middle", "upper"))
    return tensors and (one.text, one.ids, one.begins) == (other.text, other.ids, other.begins)


@pytest.mark.parametrize("kept", [True, False], ids=["on disk", "nowhere"])
def test_a_later_start_reads_what_was_computed(tmp_path: Path, kept: bool) -> None:
    folder, first, later = (tmp_path if kept else None), WatchedEncoder(), WatchedEncoder()
    keys = EncodedKeys(first, folder, "v")
    assert [each.text for each in keys.encode((*TEXTS, TEXTS[0]))] == [*TEXTS, TEXTS[0]]
    keys.encode(TEXTS)
    assert first.encoded == list(TEXTS), "each once"
    again = EncodedKeys(later, folder, "v").encode(TEXTS)
    assert later.encoded == ([] if kept else list(TEXTS))
    assert all(alike(one, other) for one, other in zip(again, an_encoder().encode(TEXTS), strict=True))
    EncodedKeys(later, folder, "another scorer").encode(TEXTS[:1])
    assert later.encoded[-1] == TEXTS[0], "other layers give other states"


def test_what_is_not_in_memory_is_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 2)
    for folder, encoded in ((tmp_path, ["a", "b", "c"]), (None, ["a", "b", "c", "a"])):
        encoder = AngleEncoder({"a": 1, "b": 2, "c": 3})
        keys = EncodedKeys(encoder, folder)
        keys.encode(["a", "b"])
        keys.encode(["c", "b"])
        keys.encode(["b", "a"])
        assert encoder.encoded == encoded


@pytest.mark.parametrize(
    "blob", [b"", b"not states", save({"vector": torch.zeros(3)}), save({"vector": torch.zeros(9)})]
)
def test_bytes_that_are_no_states_are_replaced(tmp_path: Path, blob: bytes) -> None:
    EncodedKeys(AngleEncoder({}), tmp_path).encode(["a"])
    (file,) = tmp_path.iterdir()
    BlobCache(file).store({"a": blob})
    encoder = AngleEncoder({"a": 5})
    for _ in range(2):
        EncodedKeys(encoder, tmp_path).encode(["a"])
    assert encoder.encoded == ["a"]


def test_a_damaged_file_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = BlobCache(tmp_path / "blobs.sqlite")
    cache.store({"a": b"1"})
    (tmp_path / "blobs.sqlite").write_bytes(b"no database" * 100)
    with caplog.at_level(logging.WARNING):
        assert cache.load(["a"]) == {}
        cache.store({"a": b"2"})
        assert cache.load(["a"]) == {"a": b"2"}
    (warning,) = caplog.records
    assert "are computed again" in warning.message


def test_where_nothing_can_be_written_one_warning_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache = BlobCache(tmp_path / "file" / "blobs.sqlite")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            cache.store({"a": b"1"})
            assert cache.load(["a"]) == {}
    assert len(caplog.records) == 1


def test_a_file_that_another_has_locked_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = BlobCache(tmp_path / "blobs.sqlite", wait_s=0)
    cache.store({"a": b"1"})
    with closing(sqlite3.connect(tmp_path / "blobs.sqlite")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with caplog.at_level(logging.WARNING):
            assert cache.load(["a"]) == {}
            cache.store({"a": b"2"})
    assert len(caplog.records) == 1
    assert cache.load(["a"]) == {"a": b"1"}


def test_what_was_kept_is_read_where_nothing_may_be_written(tmp_path: Path) -> None:
    """Root may write everywhere: what counts is that reading leaves no file behind, as WAL does."""
    cache = BlobCache(tmp_path / "blobs.sqlite")
    cache.store({"a": b"1"})
    assert cache.load(["a"]) == {"a": b"1"}
    assert [each.name for each in tmp_path.iterdir()] == ["blobs.sqlite"]
    with closing(sqlite3.connect(tmp_path / "blobs.sqlite")) as opened:
        assert opened.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_threads_may_share_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 60.0)
    keys = [EncodedKeys(AngleEncoder({}), tmp_path) for _ in range(2)]  # as two servers do

    def encode(at: int) -> list[str]:
        return [each.text for each in keys[at % 2].encode([str(at), str(at + 1)])]

    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(8) as pool:
        assert list(pool.map(encode, range(40))) == [[str(at), str(at + 1)] for at in range(40)]
    assert not caplog.records
    (file,) = tmp_path.iterdir()
    assert len(BlobCache(file).load([str(at) for at in range(41)])) == 41


def test_beyond_its_limit_the_oldest_are_dropped(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "blobs.sqlite", most_bytes=2_000_000)
    texts = [str(at) for at in range(3 * DROPPED_AT_ONCE)]
    for first in range(0, len(texts), 32):
        cache.store({text: bytes(4_000) for text in texts[first : first + 32]})
    left = sorted(cache.load(texts), key=int)
    assert left == texts[-len(left) :]
    assert DROPPED_AT_ONCE <= len(left) < 2_000_000 / 4_000
    assert (tmp_path / "blobs.sqlite").stat().st_size < 2_500_000


def test_the_texts_of_edits_are_kept_and_questions_are_not(tmp_path: Path) -> None:
    edit, asked, shipped = "Who founded Lumen?", "Who began Lumen in 1987?", "Who founded Tessel?"
    in_its_year = "Who founded Lumen in 1987?"
    made = StandIns({edit: 0, asked: 10, in_its_year: 5, shipped: 30}, shipped=[shipped], folder=tmp_path)
    index = made.index()
    record = index.learn(ScopeRequest(keys=((edit,),)))
    index.load("a", record.model_dump())
    assert index.nearest(index.question((asked,)), index.compile("default", ["a"])) is not None
    (file,) = tmp_path.iterdir()
    assert in_its_year in made.encoder.encoded
    assert set(BlobCache(file).load([edit, asked, in_its_year, shipped])) == {edit}
