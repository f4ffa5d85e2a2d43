"""`auto`: the first editor whose edit holds when it is verified, with all that was tried in the report."""

import asyncio
from typing import Any

import pytest

from app.domain.edit import EditRequest
from app.domain.errors import EditRejected, InvalidRequest
from app.editors.registry import AUTO
from app.service.service import Service
from app.service.verification import Verdict, Verifier
from tests.service.conftest import ORIGIN, ask, edit, serving

pytestmark = pytest.mark.slow
CAPITAL, KING = "The capital of Ruritania is", "The king of Zenda was"


def failing(monkeypatch: pytest.MonkeyPatch, service: Service, *editors: str) -> list[str]:
    """Edits of these editors never hold. -> the editors whose edits were verified, as it goes on."""
    seen: list[str] = []
    really = Verifier.verify

    async def verify(self: Verifier, request: EditRequest, edit_id: str, *more: Any, **how: Any) -> Verdict:
        editor = service.engine.editions.editor_of(edit_id)
        seen.append(editor)
        verdict = await really(self, request, edit_id, *more, **how)
        problems = (f"not by {editor}",) if editor in editors else verdict.problems
        return Verdict(verdict.after, verdict.report, problems, before=verdict.before)

    monkeypatch.setattr(Verifier, "verify", verify)
    return seen


def rows(service: Service) -> int:
    return len(service.engine.editions.owned())


def tried(report: Any) -> list[tuple[str, list[str]]]:
    return [(each["editor"], each["problems"]) for each in report["tried"]]


def test_the_first_that_holds_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving() as service:
            seen = failing(monkeypatch, service)
            view = await edit(service, CAPITAL, "Strelsau")
            assert (view.edit.editor, seen) == ("grace", ["grace"])
            assert tried(view.edit.report) == [("grace", [])]

    asyncio.run(story())


def test_what_does_not_hold_is_tried_by_the_next_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving() as service:
            seen = failing(monkeypatch, service, "grace")
            view = await edit(service, CAPITAL, "Strelsau")
            assert (view.edit.editor, seen) == ("patcher", ["grace", "patcher"])
            assert tried(view.edit.report) == [("grace", ["not by grace"]), ("patcher", [])]
            assert all(each["seconds"] > 0 for each in view.edit.report["tried"])
            editors = {(each["name"], each["preset"]): each for each in service.editors()}
            live = {name: each["live_edits"] for name, each in editors.items() if each["live_edits"]}
            assert live == {("patcher", "serving"): 1}
            assert editors["patcher", "serving"]["held_bytes"] > 0
            answer = await ask(service, CAPITAL)
            assert (answer.said, answer.hits[0].editor) == ("Strelsau", "patcher")
            assert rows(service) == 1

    asyncio.run(story())


def test_of_a_batch_only_what_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving() as service:
            seen = failing(monkeypatch, service, "grace")
            requests = [
                EditRequest(prompt=CAPITAL, target="Strelsau"),
                EditRequest(prompt=KING, target="Rudolf", editor="patcher"),
            ]
            results = await service.edit(requests, ORIGIN, batch=True)
            assert [result.view.edit.editor for result in results.results] == ["patcher", "patcher"]
            assert sorted(seen) == ["grace", "patcher", "patcher", "patcher"]
            assert [(await ask(service, prompt)).said for prompt in (CAPITAL, KING)] == ["Strelsau", "Rudolf"]
            assert rows(service) == 2

    asyncio.run(story())


def test_where_none_holds_the_refusal_tells_all_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving() as service:
            failing(monkeypatch, service, *AUTO)
            with pytest.raises(EditRejected, match=f"not by {AUTO[-1]}") as error:
                await edit(service, CAPITAL, "Strelsau")
            (report,) = error.value.details["report"].values()
            assert [each["editor"] for each in report["tried"]] == list(AUTO)
            assert (service.revision, rows(service)) == (0, 0)

    asyncio.run(story())


def test_an_editor_that_is_named_is_the_only_one_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving() as service:
            seen = failing(monkeypatch, service, "patcher")
            with pytest.raises(EditRejected):
                await edit(service, CAPITAL, "Strelsau", editor="patcher")
            assert seen == ["patcher"]

    asyncio.run(story())


def test_only_editors_that_can_hold_the_target_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving() as service:
            seen = failing(monkeypatch, service, "grace")
            long = " ".join(["Strelsau"] * 10)  # 89 bytes are 89 tokens here
            with pytest.raises(EditRejected):
                await edit(service, CAPITAL, long)
            assert seen == ["grace"]
            with pytest.raises(InvalidRequest, match="the editor patcher holds 64"):
                await edit(service, CAPITAL, long, editor="patcher")
            with pytest.raises(InvalidRequest, match="no preset 'best'"):
                await edit(service, CAPITAL, "Strelsau", preset="best")

    asyncio.run(story())
