"""Access to the engine beneath the service, for measurements, commands and checks; commits nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar

from app.domain.edit import EditRequest
from app.editors.base import FitProgress, Fitted
from app.engine.owner import EngineOwner
from app.engine.serving_engine import ServingEngine
from app.service.fit_requests import FitRequestBuilder

T = TypeVar("T")


class EngineAccess:
    _owner: EngineOwner
    request_builder: FitRequestBuilder

    async def prepare(self) -> AsyncIterator[tuple[str, FitProgress]]:
        """Have every editor compute its statistics of generic text; yields (editor, progress) as it goes."""
        for key, editor in self._owner.engine.editors.items():
            steps = editor.prepare()
            while (step := await asyncio.wrap_future(self._owner.call(partial(next, steps, None)))) is not None:
                yield key, step

    @property
    def engine(self) -> ServingEngine:
        """The engine itself, for measurements before a start: after it, only the engine's own thread may touch it."""
        return self._owner.engine

    def on_engine(self, function: Callable[[ServingEngine], T]) -> "Future[T]":
        """Run a measurement on the engine's thread, between two steps."""
        return self._owner.call(partial(function, self._owner.engine))

    def take_lora(self, request: EditRequest, folder: Path) -> "Future[Fitted]":
        """Read a LoRA in PEFT's format into what the request's edit would own, for `adopt`. Raises InvalidRequest."""
        return self._owner.call(partial(self.request_builder.take_lora, request, folder))

    def check_edit(self, request: EditRequest) -> None:
        """Check that an edit could be fitted at all, without fitting it. Blocks. Raises InvalidRequest."""
        self.request_builder.editors(request)
        self.request_builder.fit_request(request)
