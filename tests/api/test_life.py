"""An app starts its service first, and then whatever waits for it."""

import asyncio
import gc
from collections.abc import Callable

from app.api.app import create_app
from app.bootstrap import settle
from tests.api.fake_service import FakeService


def test_started_is_told_when_the_service_stands() -> None:
    told: list[bool] = []

    class Watched(FakeService):
        standing = False

        async def start(self, on_step: Callable[[str, int, int], None]) -> None:
            on_step("reading the log", 0, 0)
            self.standing = True

        async def stop(self) -> None:
            self.standing = False

    service = Watched()
    doing: list[str] = []
    app = create_app(
        service,  # type: ignore[arg-type]
        starting=lambda what, _done, _of: doing.append(what),
        started=lambda: told.append(service.standing),
    )

    async def live() -> None:
        async with app.router.lifespan_context(app):
            assert told == [True]

    asyncio.run(live())
    assert not service.standing
    assert doing == ["reading the log"]


def test_what_has_settled_is_out_of_the_collectors_sight() -> None:
    edits = [{"edit": at} for at in range(1000)]
    try:
        settle()
        assert gc.get_freeze_count() > len(edits)
        assert len(gc.get_objects()) < gc.get_freeze_count()
    finally:
        gc.unfreeze()
