"""Keys and values take memory as they are written, and give it back."""

import gc
import mmap
from pathlib import Path

import pytest
import torch

from app.engine.kv_cache import SlotCache
from app.engine.memory import trim_heap
from tests.rig import NOTHING, Rig, without_cache

MIB = 2**20


def resident() -> int:
    """Bytes of this process in memory, without what other tests left to be collected."""
    gc.collect()
    trim_heap()
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def states(cache: SlotCache) -> list[torch.Tensor]:
    return list(cache.layers_states(4, 64, torch.float32))


@pytest.mark.slow
def test_a_slot_costs_what_it_holds() -> None:
    before = resident()
    cache = SlotCache(layers=2, slots=64, max_tokens=16_384)
    layers = states(cache)
    assert sum(layer.nbytes for layer in layers) > 4_000 * MIB
    assert resident() - before < 20 * MIB
    cache.write([0, 2, 3], [8_192, 8_192, 100])
    for layer in layers:
        layer[0, :8_192] = layer[2, :8_192] = 1.0  # 16 MiB each
        layer[3, :100] = 2.0
    assert 60 * MIB < resident() - before < 84 * MIB
    cache.release({0: 100, 3: 100})  # a short sequence has followed the long one in slot 0, and nobody in slot 2
    assert resident() - before < 20 * MIB
    for layer in layers:
        assert bool((layer[0, :100] == 1.0).all()), "who runs keeps what it holds"
        assert bool((layer[3, :100] == 2.0).all()), "also beside a slot that gave all back"
        assert not layer[0, 200:].any()
        assert not layer[2].any()


def test_memory_is_given_back_between_steps_and_answers_stay() -> None:
    """Sequences end at different times: the last takes the place of one that ended, and its place is given back."""
    prompts = [f"The {name} of Zenda" for name in ("king", "queen", "prince", "tower")]
    rig = Rig(slots=4)
    outcomes = [rig.add(prompt, count=count) for prompt, count in zip(prompts, (3, 12, 5, 20), strict=True)]
    while not rig.engine.idle:
        rig.engine.step()
        rig.engine.release_memory()
    expected = [without_cache(rig.hosted, p, n) for p, n in zip(prompts, (3, 12, 5, 20), strict=True)]
    assert [outcome.tokens for outcome in outcomes] == expected


def test_no_more_run_than_there_is_room_for() -> None:
    rig = Rig(slots=4, room_tokens=60)
    prompts = ["abcdefghij", "klmnopqrst", "uvwxyzabcd"]
    outcomes = [rig.add(prompt, NOTHING, 20) for prompt in prompts]
    most = 0
    while not rig.engine.idle:
        rig.engine.step()
        most = max(most, len(rig.engine.scheduler.running))
    assert most == 2, "30 tokens each, of 60"
    assert [outcome.tokens for outcome in outcomes] == [without_cache(rig.hosted, prompt, 20) for prompt in prompts]


def test_address_space_that_the_system_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.domain.errors import UnsupportedModel

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(UnsupportedModel, match="ERRATA_SLOTS"):
        states(SlotCache(layers=1, slots=2, max_tokens=64))
