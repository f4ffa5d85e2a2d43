"""What a log may hold that no server wrote: each is refused at the start, and by a server that follows it."""

import asyncio
import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from app.domain.edit import Edit
from app.domain.errors import IncompatibleEdit
from app.domain.events import EditCommitted
from app.editors.packing import pack, unpack
from app.store.memory import MemoryLog
from tests.service.conftest import ORIGIN, ask, edit, serving

CAPITAL = "The capital of Ruritania is"


class Exploit:
    """Unpickled, it would run."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was executed",)


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, Any]]) -> Callable[[Edit], Edit]:
    return lambda edit: replace(edit, tensors=pack(change(unpack(edit.tensors))))


def learned(**fields: Any) -> Callable[[Edit], Edit]:
    """None leaves a field out."""

    def changed(edit: Edit) -> Edit:
        both = {**edit.learned, **fields}
        return replace(edit, learned={name: value for name, value in both.items() if value is not None})

    return changed


def raw(data: bytes) -> Callable[[Edit], Edit]:
    return lambda edit: replace(edit, tensors=data)


LYING_HEADER = json.dumps({"key": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
HOSTILE: dict[str, tuple[Callable[[Edit], Edit], str]] = {
    "a pickle": (raw(pickle.dumps(Exploit())), "cannot be read"),
    "no tensors": (raw(b""), "cannot be read"),
    "a header longer than all": (raw(struct.pack("<Q", 2**40) + b"{}"), "cannot be read"),
    "a header that lies": (raw(struct.pack("<Q", len(LYING_HEADER)) + LYING_HEADER), "cannot be read"),
    "NaN": (tensors(lambda t: {**t, "keys": t["keys"] * float("nan")}), "finite"),
    "infinity": (tensors(lambda t: {**t, "value": t["value"] * float("inf")}), "finite"),
    "integers": (tensors(lambda t: {**t, "keys": t["keys"].long()}), "int64"),
    "doubles": (tensors(lambda t: {**t, "keys": t["keys"].double()}), "float64"),
    "bytes as floats": (tensors(lambda t: {**t, "keys": t["keys"].to(torch.float8_e4m3fn)}), "float8"),
    "a tensor less": (tensors(lambda t: {"value": t["value"]}), "shapes"),
    "a tensor more": (tensors(lambda t: {**t, "more": t["keys"].clone()}), "shapes"),
    "another width": (tensors(lambda t: {**t, "keys": t["keys"][:, :5].clone()}), "shapes"),
    "another length": (tensors(lambda t: {**t, "value": t["value"][:1].clone()}), "shapes"),
    "no target": (learned(target_ids=None), "target_ids"),
    "a target of words": (learned(target_ids=["a"]), r"target_ids\.0"),
    "a radius of words": (learned(reach="wide"), "reach"),
    "a radius below nothing": (learned(reach=-1.0), "reach"),
    "a bound above all": (learned(bound=2.0), "bound"),
    "a subject that is a number": (learned(who=7), "who"),
    "an editor of tomorrow": (lambda e: replace(e, editor="tomorrow"), "'tomorrow', which this version"),
    "another model": (lambda e: replace(e, model_fingerprint="other/site"), "other/site"),
}


@pytest.fixture(scope="module")
def good() -> Edit:
    async def made() -> Edit:
        async with serving() as service:
            found: Edit = (await edit(service, CAPITAL, "Strelsau")).edit
            return found

    return asyncio.run(made())


@pytest.mark.parametrize(("change", "why"), HOSTILE.values(), ids=HOSTILE)
def test_an_entry_that_no_server_wrote_is_refused_at_the_start(
    good: Edit, change: Callable[[Edit], Edit], why: str
) -> None:
    log = MemoryLog()
    log.append(EditCommitted(revision=1, at_s=0.0, origin=ORIGIN, edit=change(good)))

    async def start() -> None:
        async with serving(log):
            pytest.fail("it was loaded")

    with pytest.raises(IncompatibleEdit, match=why):
        asyncio.run(start())


def test_a_server_that_follows_does_not_apply_it_and_says_why(good: Edit) -> None:
    async def story() -> None:
        log = MemoryLog()
        async with serving(log) as service:
            before = await ask(service, CAPITAL)
            hostile = HOSTILE["NaN"][0](good)
            log.append(EditCommitted(revision=1, at_s=0.0, origin=ORIGIN, edit=hostile))
            async with asyncio.timeout(20):
                while service.status().ready:
                    await asyncio.sleep(0.01)
            status = service.status()
            assert (status.revision, status.live_edits) == (0, 0)
            assert "finite" in (status.why_not or "")
            assert before.text

    asyncio.run(story())
