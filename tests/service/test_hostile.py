"""Log entries that no server wrote are refused at the start, and by a server that follows the log."""

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
from app.scope.record import ScopeRecord
from app.store.memory import MemoryLog
from tests.service.conftest import ORIGIN, ask, edit, serving

pytestmark = pytest.mark.slow
CAPITAL = "The capital of Ruritania is"


class Exploit:
    """This would run if it were unpickled."""

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


def scope(**fields: Any) -> Callable[[Edit], Edit]:
    """Changes to the stored fields of its scope; None leaves a field out."""

    def changed(edit: Edit) -> Edit:
        both = {**edit.learned["scope"], **fields}
        kept = {name: value for name, value in both.items() if value is not None}
        return replace(edit, learned={**edit.learned, "scope": kept})

    return changed


def raw(data: bytes) -> Callable[[Edit], Edit]:
    return lambda edit: replace(edit, tensors=data)


LYING_HEADER = json.dumps({"value": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
HOSTILE: dict[str, tuple[Callable[[Edit], Edit], str]] = {
    "a pickle": (raw(pickle.dumps(Exploit())), "cannot be read"),
    "no tensors": (raw(b""), "cannot be read"),
    "a header longer than all": (raw(struct.pack("<Q", 2**40) + b"{}"), "cannot be read"),
    "a header that lies": (raw(struct.pack("<Q", len(LYING_HEADER)) + LYING_HEADER), "cannot be read"),
    "NaN": (tensors(lambda t: {"value": t["value"] * float("nan")}), "finite"),
    "infinity": (tensors(lambda t: {"value": t["value"] * float("inf")}), "finite"),
    "integers": (tensors(lambda t: {"value": t["value"].long()}), "int64"),
    "doubles": (tensors(lambda t: {"value": t["value"].double()}), "float64"),
    "bytes as floats": (tensors(lambda t: {"value": t["value"].to(torch.float8_e4m3fn)}), "float8"),
    "a tensor less": (tensors(lambda t: {"other": t["value"]}), "shape"),
    "another width": (tensors(lambda t: {"value": t["value"][:, :5].clone()}), "shape"),
    "another length": (tensors(lambda t: {"value": t["value"][:1].clone()}), "shape"),
    "another rank": (tensors(lambda t: {"value": t["value"][None]}), "shape"),
    "no target": (learned(target_ids=None), "target_ids"),
    "a target of words": (lambda e: learned(target_ids=["a"] * len(e.learned["target_ids"]))(e), "target_ids"),
    "a target that is a number": (learned(target_ids=7), "target_ids"),
    "a scope that is a number": (learned(scope=7), r"scope of the edit \S+ cannot be read"),
    "a scope that is a list": (learned(scope=["keys"]), r"scope of the edit \S+ cannot be read"),
    "an empty scope": (learned(scope={}), "keys"),
    "a scope without keys": (scope(keys=None), "keys"),
    "no key": (scope(keys=[]), "keys"),
    "a key that is a number": (scope(keys=["x", 7]), r"keys\.1"),
    "keys that are a number": (scope(keys=7), "keys"),
    "a made key that is none": (scope(made=[["x"]]), r"made\.0"),
    "a counter-example that is a number": (scope(counter=[7]), r"counter\.0"),
    "a near miss that is a number": (scope(misses=[7]), r"misses\.0"),
    "names that are one text": (scope(names="Zenda"), "names"),
    "a name that is a number": (scope(names=[[7]]), r"names\.0\.0"),
    "a word for whether names were given": (scope(given="yes"), "given"),
    "no bound": (scope(bound=None), "bound"),
    "a bound of words": (scope(bound="wide"), "bound"),
    "a bound of nothing": (scope(bound=0.0), "bound"),
    "a bound above all": (scope(bound=2.0), "bound"),
    "widened below nothing": (scope(widened=-1.0), "widened"),
    "widened by a word": (scope(widened="far"), "widened"),
    "a rate above all": (scope(rate=2.0), "rate"),
    "fewer than no questions": (scope(rests_on=-1), "rests_on"),
    "an encoder that is a number": (scope(encoder=7), "encoder"),
    "an editor of tomorrow": (lambda e: replace(e, editor="tomorrow"), "'tomorrow', which this server"),
    "another model": (lambda e: replace(e, model_fingerprint="other/site"), "other/site"),
}


@pytest.fixture(scope="module")
def good() -> Edit:
    async def made() -> Edit:
        async with serving() as service:
            found: Edit = (await edit(service, CAPITAL, "Strelsau")).edit
            return found

    return asyncio.run(made())


def test_what_is_stored_of_a_scope_is_what_is_tried_here(good: Edit) -> None:
    assert set(unpack(good.tensors)) == {"value"}
    assert set(good.learned["scope"]) == set(ScopeRecord.model_fields)


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


def test_what_older_versions_stored_beside_the_value_is_left_alone(good: Edit) -> None:
    """Keys, by which scope was decided once."""
    log = MemoryLog()
    more = tensors(lambda t: {**t, "keys": torch.zeros(3, 4)})(good)
    log.append(EditCommitted(revision=1, at_s=0.0, origin=ORIGIN, edit=more))

    async def story() -> None:
        async with serving(log) as service:
            answer = await ask(service, CAPITAL)
            assert (answer.said, [hit.edit_id for hit in answer.hits]) == ("Strelsau", [good.id])

    asyncio.run(story())


def test_a_server_that_follows_does_not_apply_it_and_says_why(good: Edit) -> None:
    async def story() -> None:
        log = MemoryLog()
        async with serving(log) as service:
            hostile = HOSTILE["NaN"][0](good)
            log.append(EditCommitted(revision=1, at_s=0.0, origin=ORIGIN, edit=hostile))
            async with asyncio.timeout(60):
                while service.status().ready:
                    await asyncio.sleep(0.01)
            status = service.status()
            assert (status.revision, status.live_edits) == (0, 0)
            assert "finite" in (status.why_not or "")

    asyncio.run(story())
