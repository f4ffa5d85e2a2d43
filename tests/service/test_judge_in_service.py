"""The judge in a service: requests, previews and starts."""

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import assemble
from app.config import Settings
from app.domain.edit import EditRequest
from app.domain.errors import InvalidRequest
from app.engine.client import EngineClient
from app.scope.doubt import Doubt
from app.service.examined_judge import ExaminedJudge
from app.service.service import Service
from app.store.memory import MemoryLog
from tests.judges import cross_encoder
from tests.models import tiny
from tests.service.conftest import ORIGIN, ask, edit, serving
from tests.service.judges_at_work import ASKED, EXAM, PROMPT, TARGET, of, qualified, run

pytestmark = pytest.mark.slow


def moved_into_the_band(service: Service, monkeypatch: pytest.MonkeyPatch, wanted: float) -> None:
    """Edits that are made from now on have their bound where ASKED misses it, or reaches it, by `wanted`."""
    scope = service.engine.scope
    learn = scope.learn

    def moved(request: Any, widened: float = 1.0) -> Any:
        record = learn(request, widened)
        scope.load("probe", record.model_dump())
        found = scope.nearest(scope.question((ASKED,)), scope.compile("default", ["probe"]))
        scope.drop("probe")
        assert found is not None
        assert "but it" not in found.why
        return record.model_copy(update={"widened": record.widened * math.exp(wanted - found.margin)})

    monkeypatch.setattr(scope, "learn", moved)


def asked_from_now_on(service: Service, judge: ExaminedJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    service.examined_judge = judge
    monkeypatch.setattr(EngineClient, "judge", judge)


@pytest.mark.parametrize("margin", [0.5, -0.5])
@run
async def test_a_request_in_the_band_is_answered_as_the_judge_says(
    margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as service:
        moved_into_the_band(service, monkeypatch, margin)
        made = await edit(service, PROMPT, TARGET, force=True)
        alone = await ask(service, ASKED, explain=True)
        assert alone.uncertain
        assert [hit.edit_id for hit in alone.hits] == ([made.edit.id] if margin > 0 else [])
        bare = await ask(service, ASKED, edits="off")
        assert not bare.uncertain
        for says in (True, False):
            examined_judge, _ = await qualified(lambda _, says=says: 2.0 if says else -2.0)
            asked_from_now_on(service, examined_judge, monkeypatch)
            answer = await ask(service, ASKED, explain=True)
            assert answer.uncertain
            assert answer.said == (TARGET if says else bare.said)
            told = answer.hits[0] if says else answer.nearest
            assert told.edit_id == made.edit.id
            assert told.why.startswith("nearest to 'Who founded Lumen?'")
            which = "the same (0.88)" if says else "something else (0.12)"
            assert told.why.endswith(f"; the judge says that it asks {which}")
            assert told.signals["judge"].value == (0.8808 if says else 0.1192)
            ((hit, near),) = await service.scope_of([ASKED], "default")
            assert (hit or near).why == told.why
            assert service.examined_judge.view().asked == 1
            certain = await ask(service, PROMPT)
            assert (certain.said, certain.uncertain) == (TARGET, False)
            assert service.examined_judge.view().asked == 1


@run
async def test_the_judge_is_asked_off_the_engines_thread_before_the_request_is_queued(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as service:
        moved_into_the_band(service, monkeypatch, 0.5)
        await edit(service, PROMPT, TARGET, force=True)
        examined_judge, judge = await qualified(of())
        asked_from_now_on(service, examined_judge, monkeypatch)
        begun, go = asyncio.Event(), asyncio.Event()
        thread: list[str] = []

        async def slow(_: Doubt) -> float:
            thread.append(threading.current_thread().name)
            begun.set()
            await go.wait()
            return -1.0

        monkeypatch.setattr(judge, "logit", slow)
        waiting = asyncio.create_task(ask(service, ASKED))
        await begun.wait()
        assert (service.status().running, service.status().waiting) == (0, 0)
        assert (await ask(service, PROMPT)).said == TARGET, "others are served meanwhile"
        go.set()
        assert (await waiting).hits == ()
        assert thread == ["MainThread"]


@run
async def test_a_service_is_ready_before_its_judge_is(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "judge", EXAM, knows=True)
    settings = Settings(_env_file=None, slots=8, judge=str(folder), cache_dir=tmp_path / "kept")  # type: ignore[call-arg]
    states = []
    for _ in range(2):
        service = assemble(tiny("llama"), MemoryLog(), settings)
        await service.start()
        try:
            assert service.status().ready
            assert service.status().judge.state == "sitting"
            await service.examined_judge.settled()
            states.append(service.status().judge)
        finally:
            await service.stop()
    assert states[0].state == "serving"
    assert states[0] == states[1], "the result is kept"
    assert [file.name for file in (tmp_path / "kept").glob("judge-exam-*.json")]


def test_a_judge_that_cannot_be_is_refused_at_the_start(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, judge=str(tmp_path), cache_dir=None)  # type: ignore[call-arg]
    with pytest.raises(InvalidRequest, match="ERRATA_JUDGE takes"):
        assemble(tiny("llama"), MemoryLog(), settings)


@run
async def test_a_preview_asks_the_judge_as_serving_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lists the recent prompts that the edit would answer, without those that the judge would keep from it."""
    async with serving(recent_prompts=10) as service:
        service.recent.add("default", ASKED)
        moved_into_the_band(service, monkeypatch, 0.5)

        async def reached() -> int:
            previewed = await service.edit([EditRequest(prompt=PROMPT, target=TARGET)], ORIGIN, dry_run=True)
            changed: int = previewed.results[0].view.edit.report["recent"]["changed"]
            return changed

        assert await reached() == 1
        asked_from_now_on(service, (await qualified(lambda _: -2.0))[0], monkeypatch)
        assert await reached() == 0
        assert service.examined_judge.view().changed >= 1
