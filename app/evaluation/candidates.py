"""The candidates of an evaluation: edits as the service makes them, or the bare model. The semantic cache is in
`cache`."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from app.domain.edit import EditRequest
from app.domain.errors import ErrataError, ScopeConflict
from app.domain.events import Origin
from app.editors.registry import EDITORS
from app.evaluation.cases import Case
from app.evaluation.questioner import ForcedScore, Questioner
from app.service.views import EditResults

ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EditAttempt:
    """Result of an edit. A refused edit has a `problem` and counts as a failure."""

    edit_id: str | None = None
    problem: str | None = None
    editor: str | None = None
    seconds: float = 0.0
    """Seconds of the request, or its share of a batch's."""
    fit_s: float = 0.0
    stored_bytes: int = 0
    """Bytes of its log entry."""
    replaced: tuple[str, ...] = ()
    """Ids of edits that it superseded beyond those that its case names."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Candidate(Protocol):
    """A candidate takes edits and answers questions."""

    @property
    def held_bytes(self) -> int:
        """Bytes that its edits take on the model's device."""

    async def edit(self, cases: Sequence[Case], superseded: Sequence[Sequence[str]]) -> list[EditAttempt]:
        """Makes edits, several as one batch; `superseded` holds, by case, the ids of edits to replace."""

    async def restore(self, cases: Sequence[Case]) -> None:
        """Restores the edits made before an interruption."""

    async def answers(self, prompts: Sequence[str], **how: Any) -> list[str | None]:
        """Complete answers, greedy unless `how` says otherwise; None for a prompt that the model cannot take."""

    async def scores(self, pairs: Sequence[tuple[str, str]]) -> list[ForcedScore | None]:
        """Scores of (prompt, continuation) pairs under teacher forcing."""

    async def overhead(self, prompts: Sequence[str]) -> float | None:
        """Ratio of answer time with edits loaded to the bare model's, on prompts that no edit answers."""


class BareModel:
    """The bare model."""

    held_bytes = 0

    def __init__(self, questioner: Questioner) -> None:
        self._questioner = questioner

    async def edit(self, cases: Sequence[Case], superseded: Sequence[Sequence[str]]) -> list[EditAttempt]:
        return [EditAttempt() for _ in cases]

    async def restore(self, cases: Sequence[Case]) -> None:
        pass

    async def answers(self, prompts: Sequence[str], **how: Any) -> list[str | None]:
        return await (self._questioner.answers(prompts, edits="off", **how) if how else self._questioner.bare(prompts))

    async def scores(self, pairs: Sequence[tuple[str, str]]) -> list[ForcedScore | None]:
        return await self._questioner.scores(pairs, edits="off")

    async def overhead(self, prompts: Sequence[str]) -> float | None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContents:
    """The contents of a request besides prompt and target: the first `paraphrases` of a case, its subject and
    aliases."""

    paraphrases: int = 0
    subject: bool = False


class ServedEditor:
    """Edits by one editor, or by `auto`. Paper presets are forced: edits that do not hold are judged by their answers.

    A case that corrects an earlier edit also supersedes other conflicting edits, as a client would after being told of
    them; any other conflicting edit is refused.
    """

    def __init__(self, questioner: Questioner, editor: str, preset: str, contents: RequestContents) -> None:
        self._questioner, self._service = questioner, questioner.service
        self._editor, self._preset, self._carrying = editor, preset, contents

    @property
    def held_bytes(self) -> int:
        return sum(each["held_bytes"] for each in self._service.editors() if each["live_edits"])

    async def edit(self, cases: Sequence[Case], superseded: Sequence[Sequence[str]]) -> list[EditAttempt]:
        """Makes edits. A refused batch is retried edit by edit, so that one bad edit does not fail the others.

        Under the same idempotency key, an edit made before an interruption is found rather than made again.
        """
        began = time.perf_counter()
        corrects = len(cases) == 1 and cases[0].overwrites is not None
        also: list[str] = []  # what a correction supersedes beyond what it names
        while True:
            superseding = [(*old, *also) for old in superseded]
            requests = [self._request(case, old) for case, old in zip(cases, superseding, strict=True)]
            key = f"eval-{cases[0].id}-{len(cases)}-{len(superseding[0])}"
            try:
                origin = Origin(actor="errata eval", idempotency_key=key)
                results = await self._service.edit(requests, origin, batch=len(cases) > 1)
            except ErrataError as error:
                if len(cases) > 1:
                    alone = [await self.edit([c], [old]) for c, old in zip(cases, superseded, strict=True)]
                    return [attempt for (attempt,) in alone]
                in_the_way = error.details["conflicts"] if isinstance(error, ScopeConflict) else []
                if not corrects or set(in_the_way) <= set(superseding[0]):
                    took_s = time.perf_counter() - began
                    return [EditAttempt(problem=f"{type(error).__name__}: {error.message}", seconds=took_s)]
                also.extend(in_the_way)
            else:
                seconds = (time.perf_counter() - began) / len(cases)
                attempt = await asyncio.to_thread(self._results, results, seconds)
                others = (i for i in results.results[0].view.edit.supersedes if i not in superseded[0])
                return [replace(attempt[0], replaced=tuple(others))] if corrects else attempt

    def _results(self, results: EditResults, seconds: float) -> list[EditAttempt]:
        """Reads the log and therefore blocks."""
        count, log = len(results.results), self._service.records.log
        return [
            EditAttempt(
                edit_id=result.view.edit.id,
                editor=result.view.edit.editor_key,
                seconds=seconds if result.created else sum(result.seconds.values()) / count,
                fit_s=result.seconds.get("fit", 0.0) / count,
                stored_bytes=len(log.entry(result.view.history[0].revision)),
            )
            for result in results.results
        ]

    def _request(self, case: Case, superseded: Sequence[str]) -> EditRequest:
        return EditRequest(
            prompt=case.prompt,
            target=case.target,
            subject=case.subject if self._carrying.subject else None,
            aliases=case.aliases if self._carrying.subject else (),
            paraphrases=case.paraphrases[: self._carrying.paraphrases],
            editor=self._editor,
            preset=self._preset,
            supersede=tuple(superseded),
            force=self._preset != "serving",
        )

    async def restore(self, cases: Sequence[Case]) -> None:
        """Does nothing: the log holds the edits."""

    async def answers(self, prompts: Sequence[str], **how: Any) -> list[str | None]:
        return await self._questioner.answers(prompts, **how)

    async def scores(self, pairs: Sequence[tuple[str, str]]) -> list[ForcedScore | None]:
        return await self._questioner.scores(pairs)

    async def overhead(self, prompts: Sequence[str]) -> float | None:
        """Ratio of the medians of alternating rounds."""
        took: dict[str, list[float]] = {"off": [], "live": []}
        for _ in range(ROUNDS if prompts else 0):
            for edits, seconds in took.items():
                began = time.perf_counter()
                await self._questioner.answers(prompts, edits=edits)
                seconds.append(time.perf_counter() - began)
        return statistics.median(took["live"]) / statistics.median(took["off"]) if prompts else None


def known_candidates() -> list[str]:
    """Names of all candidates."""
    editors = [name if preset == "serving" else f"{name}/{preset}" for name in EDITORS for preset in EDITORS[name]]
    return ["auto", *editors, "cache", "bare"]
