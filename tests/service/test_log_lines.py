"""A log line reports edits that are refused, that other servers made, and that answered."""

import asyncio
import logging
from typing import Any

import pytest

from app.domain.edit import EditRequest
from app.domain.errors import ErrataError, ScopeConflict
from app.domain.events import Origin
from app.service.log_lines import collected, edit_fields, note, refusals
from tests.service.conftest import ORIGIN, Clock, ask, edit, serving

CAPITAL = "The capital of Ruritania is"


def told(caplog: pytest.LogCaptureFixture, name: str = "app.service.log_lines") -> list[Any]:
    return [record for record in caplog.records if record.name == name]


def test_a_refusal_is_told_by_its_kind_and_never_by_its_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    request = EditRequest(prompt=CAPITAL, target="Strelsau", namespace="atlas")
    with pytest.raises(ScopeConflict), refusals("Edit", [request], Origin(actor="ada", request_id="r"), {}):
        raise ScopeConflict(f"Another answers {CAPITAL!r}.", conflicts=["ed_1"])
    (line,) = told(caplog)
    assert line.getMessage() == "Edit refused: ScopeConflict"
    assert (line.actor, line.request_id, line.namespace, line.conflicts) == ("ada", "r", "atlas", ["ed_1"])


def test_nothing_was_to_go_live_of_a_preview(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(ErrataError), refusals("Edit", [], Origin(), {}, unless=True):
        raise ScopeConflict("no")
    assert told(caplog) == []


def test_facts_are_those_of_one_request() -> None:
    async def story() -> None:
        async def child() -> None:
            note(edit="ed_1", namespace=None)

        with collected() as one:
            await asyncio.create_task(child())
        with collected() as other:
            pass
        note(edit="ed_2")  # for nobody
        assert (one, other) == ({"edit": "ed_1"}, {})

    asyncio.run(story())


def test_many_edits_are_counted() -> None:
    assert edit_fields([]) == {}
    assert edit_fields(["a"]) == {"edit": "a"}
    assert edit_fields([str(n) for n in range(100)]) == {"edits": [str(n) for n in range(20)], "count": 100}


def test_a_service_tells_what_it_published_refused_and_let_expire_and_which_edit_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        clock = Clock()
        async with serving(clock=clock) as service:
            made = await edit(service, CAPITAL, "Strelsau", expires_in_s=60.0)
            with collected() as facts:
                assert (await ask(service, CAPITAL)).said == "Strelsau"
            assert facts == {"edit": made.edit.id, "namespace": "default"}
            other = [EditRequest(prompt=CAPITAL, target="Hentzau")]
            with pytest.raises(ScopeConflict):
                await service.edit(other, Origin(actor="bob", reason="no"))
            result = await service.edit(other, Origin(actor="bob", reason="no"), batch=True, atomic=False)
            assert len(result.failures) == 1
            clock.now += 61
            await service.expire()

    asyncio.run(story())
    lines = [(record.getMessage(), record.actor) for record in told(caplog)]
    assert lines == [
        ("Edit published", ORIGIN.actor),
        ("Edit refused: ScopeConflict", "bob"),
        ("Edit refused: ScopeConflict", "bob"),
        ("Edit expired", "errata"),
    ]
    assert "Ruritania" not in caplog.text
