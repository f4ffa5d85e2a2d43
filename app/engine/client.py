"""The engine as other threads use it: values that do not change, and work that is posted to the engine's thread."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from app.domain.errors import ErrataError
from app.domain.generation import GenerationParameters
from app.editors.base import Capabilities, FitProgress, FitRequest, Fitted
from app.engine.editions import Edition, ScopeDecision, UncertaintyJudge
from app.engine.owner import EngineOwner
from app.engine.sequence import Emit, PreparedRequest
from app.engine.sequence import Sequence as Running
from app.engine.text import TextCodec
from app.scope.index import ScopeIndex


class EngineClient:
    """A narrow view of the engine, for callers on any thread. Rows are named by the ids of their fits."""

    def __init__(self, owner: EngineOwner) -> None:
        self._owner, self._engine = owner, owner.engine

    @property
    def text(self) -> TextCodec:
        return self._engine.text

    @property
    def scope(self) -> ScopeIndex:
        return self._engine.scope

    @property
    def model_name(self) -> str:
        return self._engine.hosted.name

    @property
    def max_tokens(self) -> int:
        """The most tokens of a sequence, prompt and answer together."""
        return self._engine.hosted.max_tokens

    @property
    def eos_ids(self) -> frozenset[int]:
        return self._engine.hosted.eos_ids

    @property
    def slots(self) -> int:
        """The number of requests that may run at once."""
        return self._engine.slots

    @property
    def alive(self) -> bool:
        return self._owner.alive

    @property
    def judge(self) -> UncertaintyJudge | None:
        return self._owner.examined_judge

    def capabilities(self, editor: str) -> Capabilities:
        return self._engine.editors[editor].capabilities

    def editors(self) -> Iterable[str]:
        return self._engine.editors

    def why_not_served(self, editor: str) -> str:
        """A sentence that says why an editor is not among these; it may be empty."""
        return self._engine.why_not_served(editor)

    # -- rows

    def holds(self, fit_id: str) -> bool:
        return fit_id in self._engine.editions

    def editor_of(self, fit_id: str) -> str:
        return self._engine.editions.editor_of(fit_id)

    async def load(self, rows: Sequence[tuple[str, str, Fitted]]) -> None:
        """Load rows, as (fit id, editor, fit), between two steps; those that are held already stay as they are."""

        def load() -> None:
            for fit_id, editor, fitted in rows:
                if fit_id not in self._engine.editions:
                    self._engine.load(fit_id, editor, fitted)

        await asyncio.wrap_future(self._owner.call(load))

    async def drop(self, fit_ids: Iterable[str]) -> None:
        """Release the rows, as far as they are held, between two steps."""
        names = tuple(fit_ids)

        def drop() -> None:
            for fit_id in names:
                if fit_id in self._engine.editions:
                    self._engine.drop(fit_id)

        await asyncio.wrap_future(self._owner.call(drop))

    async def clear(self, error: ErrataError) -> None:
        """End everything that runs with an error, and release all rows."""

        def clear() -> None:
            self._engine.end_all(error)
            for fit_id in self._engine.editions.owned():
                self._engine.drop(fit_id)

        await asyncio.wrap_future(self._owner.call(clear))

    async def mute(self, fit_id: str, frames: Sequence[str]) -> None:
        """Keep an edit from answering in these frames."""
        await asyncio.wrap_future(self._owner.call(partial(self._engine.editions.mute, fit_id, frames)))

    # -- fits

    async def fit(
        self,
        editor: str,
        requests: Sequence[FitRequest],
        edition: Edition,
        on_progress: Callable[[FitProgress], None] = lambda _: None,
    ) -> list[Fitted]:
        """Fit a batch between serving steps. `on_progress` is called on the engine's thread and must return at once."""
        return await asyncio.wrap_future(self._owner.fit(editor, requests, edition, on_progress))

    async def still_fits(self, editor: str, learned: Mapping[str, Any], edition: Edition) -> bool:
        """True if a fit made beside another edition is valid beside this one."""
        return await asyncio.wrap_future(self._owner.call(partial(self._engine.still_fits, editor, learned, edition)))

    def with_scope(self, editor: str, fitted: Fitted, request: FitRequest) -> Fitted:
        """The fit with its learned scope, if its editor has one. Blocks."""
        return self._engine.with_scope(editor, fitted, request)

    def rescope(self, fitted: Fitted, request: FitRequest) -> Fitted:
        """The fit with its scope learned again. Blocks."""
        return self._engine.rescope(fitted, request)

    def read_adapter(self, editor: str, request: FitRequest, folder: Path) -> Fitted:
        """A LoRA in PEFT's format as the fit of the request's edit. Blocks. Raises InvalidRequest."""
        read_adapter = self._engine.editors[editor].extras.read_adapter
        assert read_adapter is not None, f"{editor} reads no adapters"
        return read_adapter(request, folder)

    # -- requests

    def ask(self, prompt: str, edition: Edition) -> ScopeDecision:
        """The scope decision for a prompt. Blocks."""
        return self._engine.ask(prompt, edition)

    def prepare(self, prompt: str, edition: Edition, schema: str | None, *, nearest: bool = True) -> PreparedRequest:
        """The parts of a request that are prepared off the engine's thread. Blocks. Raises InvalidRequest."""
        return self._engine.prepare(prompt, edition, schema, nearest=nearest)

    def generate(
        self,
        requests: Sequence[tuple[str, GenerationParameters]],
        edition: Edition,
        revision: int,
        emits: Sequence[Emit],
        prepared: Sequence[PreparedRequest],
        began: float,
    ) -> "Future[list[Running]]":
        """Queue requests, all or none; see `EngineOwner.generate`."""
        return self._owner.generate(requests, edition, revision, emits, prepared, began)

    def emitting_to(self, loop: asyncio.AbstractEventLoop, arrived: "asyncio.Queue[Any]", at: int) -> Emit:
        return self._owner.emitting_to(loop, arrived, at)

    def cancel(self, sequences: Iterable[Running]) -> None:
        self._owner.cancel(sequences)
