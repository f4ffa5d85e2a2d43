"""`errata serve` over a service without a model, as a process of its own: for tests that send it signals.

It takes the options of `errata serve`. FAKE_LOADS is where it never ends to load: `model` or `log`.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from types import ModuleType
from typing import Any

from app.cli import log_format, serve
from app.service.work_in_progress import STOPPING, WorkInProgress, refused
from tests.api.fake_service import FakeService

LONG_S = 600.0
TOKEN_S = 0.05


class StoppableService(FakeService):
    """Its answers and edits take ten minutes, unless they are cut short."""

    def __init__(self) -> None:
        super().__init__()
        self.slow_s, self.says = TOKEN_S, None
        self.canned["long"] = "word " * int(LONG_S / TOKEN_S)
        self.cut = False
        self.work_in_progress = WorkInProgress(self._end_answers)

    async def start(self, on_step: Callable[[str, int, int], None]) -> None:
        if os.environ.get("FAKE_LOADS") == "log":
            on_step("reading the log", 0, 0)
            await asyncio.to_thread(time.sleep, LONG_S)
        await super().start(on_step)

    async def stream(self, *asked: Any) -> AsyncIterator[Any]:
        with self.work_in_progress.counted("answer"):
            async with aclosing(super().stream(*asked)) as items:  # type: ignore[type-var]
                async for item in items:
                    if self.cut:
                        raise refused(STOPPING)
                    yield item

    async def edit(self, *asked: Any, **how: Any) -> Any:
        with self.work_in_progress.counted("edit"):
            if asked[0][0].target == "slowly":
                await asyncio.sleep(LONG_S)
            return await super().edit(*asked, **how)

    def cut_short(self) -> None:
        self.why_not = STOPPING
        self.work_in_progress.cut_short()

    def _end_answers(self) -> None:
        self.cut = True


def build(settings: Any, on_step: Callable[[str, int, int], None]) -> Any:
    log_format.configure(settings.log_level, settings.log_format)
    if os.environ.get("FAKE_LOADS") == "model":
        on_step("reading the weights", 0, 0)
        time.sleep(LONG_S)
    return StoppableService()


if __name__ == "__main__":
    without_torch: Any = ModuleType("app.bootstrap")
    without_torch.settle = lambda: None
    sys.modules["app.bootstrap"] = without_torch
    serve.build = build
    from app.__main__ import main

    sys.argv[1:1] = ["serve"]
    main()
