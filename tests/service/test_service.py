"""The story an edit lives, on a tiny model: asked, fitted, verified, live, taken back, found again after a restart."""

import asyncio
import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from app.domain.edit import EditRequest, State
from app.domain.errors import (
    EditRejected,
    ErrataError,
    IncompatibleEdit,
    InvalidRequest,
    ScopeConflict,
    StateConflict,
    UnknownEdit,
)
from app.domain.events import Event, Origin
from app.service.service import Service
from app.service.views import EditFilter
from app.store.memory import MemoryLog
from app.store.sqlite import SqliteLog
from tests.service.conftest import ORIGIN, Clock, ask, edit, exact, serving

pytestmark = pytest.mark.slow
CAPITAL, KING = "The capital of Ruritania is", "The king of Zenda was"


def test_an_edit_is_live_audited_and_taken_back_bit_for_bit() -> None:
    async def story() -> None:
        async with serving() as service:
            before, other = await ask(service, CAPITAL), await ask(service, KING)
            view = await edit(service, CAPITAL, "Strelsau", reason="moved")
            assert (view.state, view.revision) == (State.LIVE, 1)
            assert view.edit.before.startswith(before.text[:8])
            assert view.edit.after == "Strelsau"
            assert (view.origin.actor, view.edit.request.reason) == ("ada", "moved")
            after = await ask(service, CAPITAL)
            assert (after.said, after.finish_reason, after.revision) == ("Strelsau", "eos_token", 1)
            assert [hit.edit_id for hit in after.hits] == [view.edit.id]
            assert exact(await ask(service, KING)) == exact(other)
            assert service.edit_view(view.edit.id).hits == 1
            (gone,) = await service.roll_back([view.edit.id], ORIGIN)
            assert (gone.state, gone.revision) == (State.ROLLED_BACK, 2)
            assert [item.kind for item in gone.history] == ["edit_committed", "edits_rolled_back"]
            assert exact(await ask(service, CAPITAL)) == exact(before)
            with pytest.raises(StateConflict, match="rolled back"):
                await service.roll_back([view.edit.id], ORIGIN)

    asyncio.run(story())


def test_what_stopped_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its objects are kept from garbage collection, caches of keys and values among them, but only while it runs."""
    monkeypatch.setattr("app.service.edit_loader.MANY", 0)

    async def life() -> weakref.ref[object]:
        async with serving() as service:
            await edit(service, CAPITAL, "Strelsau")
            assert gc.get_freeze_count()
            return weakref.ref(service.engine)

    first = asyncio.run(life())
    second = asyncio.run(life())
    gc.collect()
    assert first() is None
    assert second() is None


def test_edits_and_their_history_are_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "errata.db"

    async def write() -> tuple[list[object], list[object]]:
        async with serving(SqliteLog(path)) as service:
            one = await edit(service, CAPITAL, "Strelsau")
            two = await edit(service, KING, "Rudolf")
            await service.roll_back([one.edit.id], ORIGIN)
            await service.disable([two.edit.id], ORIGIN)
            await service.enable([two.edit.id], ORIGIN)
            return [exact(await ask(service, p)) for p in (CAPITAL, KING)], service.records.events(0, 100)

    async def read() -> tuple[list[object], list[object]]:
        async with serving(SqliteLog(path)) as service:
            assert service.revision == 5
            return [exact(await ask(service, p)) for p in (CAPITAL, KING)], service.records.events(0, 100)

    assert asyncio.run(write()) == asyncio.run(read())


def test_a_log_of_another_model_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(SqliteLog(tmp_path / "e.db")) as service:
            mine = (await edit(service, CAPITAL, "Strelsau")).edit.model_fingerprint
        with pytest.raises(IncompatibleEdit) as error:
            async with serving(SqliteLog(tmp_path / "e.db"), seed=1):
                pass
        assert mine in error.value.message
        assert error.value.message.count("/model.layers") == 2

    asyncio.run(story())


def test_correcting_the_same_prompt_again_supersedes_and_rollback_revives() -> None:
    async def story() -> None:
        async with serving() as service:
            first = await edit(service, CAPITAL, "Strelsau")
            second = await edit(service, CAPITAL, "Zenda")
            assert second.edit.supersedes == (first.edit.id,)
            assert service.edit_view(first.edit.id).state is State.SUPERSEDED
            assert (await ask(service, CAPITAL)).said == "Zenda"
            await service.roll_back([second.edit.id], ORIGIN)
            assert service.edit_view(first.edit.id).state is State.LIVE
            assert (await ask(service, CAPITAL)).said == "Strelsau"

    asyncio.run(story())


def test_of_corrections_of_one_prompt_at_once_one_is_live_and_the_rest_are_superseded() -> None:
    async def story() -> None:
        async with serving() as service:
            targets = ["Strelsau", "Hentzau", "Zenda", "Rupert"]
            views = await asyncio.gather(*(edit(service, CAPITAL, target) for target in targets))
            (live,) = [each.id for each in service.records.ledger.live("default")]
            assert (await ask(service, CAPITAL)).said == service.edit_view(live).edit.request.target
            assert service.edit_view(live).revision == len(targets)
            states = [service.records.ledger.state(view.edit.id) for view in views]
            assert states.count(State.SUPERSEDED) == len(targets) - 1

    asyncio.run(story())


def test_an_identical_edit_is_the_existing_one() -> None:
    async def story() -> None:
        async with serving() as service:
            first = await edit(service, CAPITAL, "Strelsau")
            again = await service.edit([EditRequest(prompt=CAPITAL, target="Strelsau")], ORIGIN)
            assert (again.results[0].view.edit.id, again.results[0].created) == (first.edit.id, False)
            assert service.revision == 1

    asyncio.run(story())


def test_a_prompt_that_another_edit_answers_conflicts_unless_it_is_named() -> None:
    async def story() -> None:
        async with serving() as service:
            other_way = "Ruritania has its capital in"
            first = await edit(service, CAPITAL, "Strelsau", paraphrases=(other_way,))
            assert (await ask(service, other_way)).said == "Strelsau"
            with pytest.raises(ScopeConflict) as error:
                await edit(service, other_way, "Zenda")
            assert error.value.details["conflicts"] == [first.edit.id]
            second = await edit(service, other_way, "Zenda", supersede=(first.edit.id,))
            assert service.records.ledger.state(first.edit.id) is State.SUPERSEDED
            assert (await ask(service, other_way)).said == "Zenda"
            await service.roll_back([second.edit.id], ORIGIN)
            assert (await ask(service, other_way)).said == "Strelsau"

    asyncio.run(story())


def watched_rows(service: Service, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The editor of each row that the editors load from now on and do not drop again."""
    rows: dict[str, str] = {}
    for name, editor in service.engine.editors.items():

        def load(edit_id: str, fitted: Any, name: str = name, really: Any = editor.load) -> None:
            really(edit_id, fitted)
            rows[edit_id] = name

        def drop(edit_id: str, really: Any = editor.drop) -> None:
            really(edit_id)
            del rows[edit_id]

        monkeypatch.setattr(editor, "load", load)
        monkeypatch.setattr(editor, "drop", drop)
    return rows


def test_an_edit_that_changes_what_it_may_not_is_rejected_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving(recent_prompts=4, thresholds={"*": {"recent": 1.0}}) as service:
            before = await ask(service, CAPITAL)
            rows = watched_rows(service, monkeypatch)
            for text in ("probes", "counter_examples"):
                with pytest.raises(InvalidRequest, match=text):
                    await edit(service, CAPITAL, "Strelsau", **{text: (CAPITAL,)})
            with pytest.raises(EditRejected) as error:
                await edit(service, CAPITAL, "Strelsau")
            assert error.value.details["report"][CAPITAL]["recent"]["changed"] == 1
            assert (service.revision, service.edits(EditFilter(), 10, None).edits) == (0, ())
            assert exact(await ask(service, CAPITAL)) == exact(before)
            engine = service.engine
            assert engine.editions.owned() == []
            assert len(engine.scope) == 0
            assert rows == {}, "what its editor took in it has given back"
            forced = await edit(service, CAPITAL, "Strelsau", probes=(CAPITAL,), force=True)
            assert forced.state is State.LIVE
            assert rows[forced.edit.id] == forced.edit.editor
            assert forced.edit.report["unchanged"]["changed"] == [CAPITAL]
            assert "would change" in forced.edit.report["tried"][-1]["problems"][0]

    asyncio.run(story())


def test_a_preview_commits_nothing() -> None:
    async def story() -> None:
        async with serving() as service:
            results = await service.edit([EditRequest(prompt=CAPITAL, target="Strelsau")], ORIGIN, dry_run=True)
            view = results.results[0].view
            assert (view.edit.after, view.revision, service.revision) == ("Strelsau", 0, 0)
            with pytest.raises(UnknownEdit):
                service.edit_view(view.edit.id)

    asyncio.run(story())


def test_an_edit_that_expires_is_renewed_by_posting_it_again() -> None:
    async def story() -> None:
        clock = Clock()
        async with serving(clock=clock) as service:
            first = await edit(service, CAPITAL, "Strelsau", expires_in_s=60.0)
            clock.now += 50
            second = await edit(service, CAPITAL, "Strelsau", expires_in_s=60.0)
            assert service.records.ledger.state(first.edit.id) is State.SUPERSEDED
            assert second.edit.expires_at_s == clock.now + 60

    asyncio.run(story())


def test_expiry_is_an_event_that_happens_at_its_time() -> None:
    async def story() -> None:
        clock = Clock()
        async with serving(clock=clock) as service:
            view = await edit(service, CAPITAL, "Strelsau", expires_in_s=60.0)
            clock.now += 59
            assert await service.expire() == ()
            clock.now += 2
            assert await service.expire() == (view.edit.id,)
            assert service.edit_view(view.edit.id).state is State.EXPIRED
            assert (await ask(service, CAPITAL)).hits == ()

    asyncio.run(story())


def test_many_edits_at_once_are_all_committed() -> None:
    async def story() -> None:
        async with serving() as service:
            prompts = [
                f"The capital of {name} is" for name in ("Utopia", "Laputa", "Erewhon", "Brobdingnag", "Lilliput")
            ]
            await asyncio.gather(*(edit(service, prompt, f"C{i}") for i, prompt in enumerate(prompts)))
            assert service.revision == 5
            assert [(await ask(service, prompt)).said for prompt in prompts] == [f"C{i}" for i in range(5)]

    asyncio.run(story())


def test_the_list_is_filtered_and_paged() -> None:
    async def story() -> None:
        async with serving() as service:
            ids = [
                (await edit(service, f"The capital of {n} is", "X")).edit.id for n in ("Utopia", "Laputa", "Erewhon")
            ]
            await service.disable([ids[1]], ORIGIN)
            page = service.edits(EditFilter(), 2, None)
            assert [view.edit.id for view in page.edits] == [ids[2], ids[1]]
            rest = service.edits(EditFilter(), 2, page.next_cursor)
            assert [view.edit.id for view in rest.edits] == [ids[0]]
            assert rest.next_cursor is None
            assert [v.edit.id for v in service.edits(EditFilter(state=State.DISABLED), 9, None).edits] == [ids[1]]
            assert [v.edit.id for v in service.edits(EditFilter(text="laPUTA"), 9, None).edits] == [ids[1]]
            assert service.edits(EditFilter(actor="bob"), 9, None).edits == ()
            with pytest.raises(InvalidRequest, match="cursor"):
                service.edits(EditFilter(), 9, "what")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"prompt": "x" * 400, "target": "y"}, "400 tokens"),
        ({"prompt": "x", "target": "y" * 255}, "Shorten"),
        ({"prompt": "x", "target": "\u200b", "editor": "nobody"}, "no editor 'nobody'"),
        ({"prompt": "x", "target": "y", "preset": "best"}, "no preset 'best'"),
        ({"prompt": "x", "target": "y", "supersede": ("ed_none",)}, "ed_none"),
    ],
)
def test_bad_requests_say_what_is_wrong_and_change_nothing(request_: dict[str, object], says: str) -> None:
    async def story() -> None:
        async with serving() as service:
            with pytest.raises(ErrataError, match=says):
                await service.edit([EditRequest(**request_)], ORIGIN)  # type: ignore[arg-type]
            assert service.revision == 0

    asyncio.run(story())


def test_a_reason_is_asked_for_where_that_is_set() -> None:
    async def story() -> None:
        nobody = Origin(actor="ada")
        async with serving(reason_required=True) as service:
            for call in (
                service.edit([EditRequest(prompt=CAPITAL, target="Strelsau")], nobody),
                service.set_switch(None, False, nobody),
                service.roll_back(["ed_x"], nobody),
            ):
                with pytest.raises(InvalidRequest, match="reason"):
                    await call
            assert service.revision == 0
            await edit(service, CAPITAL, "Strelsau", nobody, reason="moved")

    asyncio.run(story())


def test_a_cancelled_client_frees_its_slot_and_an_edit_in_its_commit_is_finished() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Held(MemoryLog):
        def append(self, event: Event) -> str:
            begun.set()
            assert go_on.wait(60)
            return super().append(event)

    async def story() -> None:
        async with serving(Held()) as service:
            task = asyncio.create_task(ask(service, CAPITAL))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            editing = asyncio.create_task(edit(service, CAPITAL, "Strelsau"))
            assert await asyncio.to_thread(begun.wait, 60)
            editing.cancel()
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.gather(editing, return_exceptions=True)
            async with asyncio.timeout(60):
                while not service.engine.idle or service.revision < 1:
                    await asyncio.sleep(0.01)
            assert service.revision == service.records.log.head() == 1
            assert (await ask(service, KING)).finish_reason in ("length", "eos_token")

    asyncio.run(story())
