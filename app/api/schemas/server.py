"""Response bodies about the server itself: its state, its editors, its snapshots, its errors. Independent of the
service."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.base import Outgoing
from app.service.views import JudgeView, Status
from app.store.snapshots import Manifest
from app.version import version


class Problem(BaseModel):
    """An error, as defined by RFC 9457. Some kinds have more fields, such as `errors`, `report` or `conflicts`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:errata:problem:unknown-edit"])
    title: str = Field(examples=["Unknown edit"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["No edit has the id 'ed_0': GET /edits lists the ids."])


class Health(Outgoing):
    status: str


class Greeting(Outgoing):
    """The answer at `/`."""

    name: str = "errata"
    version: str
    model: str
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    openai: str = "/v1"
    ready: str = "/readyz"


class Info(Outgoing):
    """The description of a server that TGI's clients ask for."""

    model_id: str
    model_sha: str | None = Field(description="Fingerprint of model, tokenizer and site.")
    model_dtype: str
    model_device_type: str
    model_pipeline_tag: str = "text-generation"
    max_best_of: int = 1
    max_stop_sequences: int = 16
    max_input_tokens: int
    max_total_tokens: int = Field(description="Prompt plus answer.")
    router: str = "errata"
    version: str

    @classmethod
    def of(cls, status: Status, max_tokens: int, version: str) -> "Info":
        return cls(
            model_id=status.model,
            model_sha=status.model_fingerprint,
            model_dtype=status.dtype,
            model_device_type=status.device.partition(":")[0],
            max_input_tokens=max_tokens - 1,
            max_total_tokens=max_tokens,
            version=version,
        )


class JudgeOut(Outgoing):
    """The judge (`ERRATA_JUDGE`), which decides questions that the scope is uncertain of, and its counts since the
    start."""

    judge: str = Field(description="`off`, `hosted`, or the name of a cross-encoder's folder.")
    state: Literal["off", "sitting", "serving", "failed", "broken"]
    why_not: str | None = Field(description="Why there is a judge, and it does not serve.")
    pass_mark: float = Field(description="Accuracy that its exam asks for, of both classes.")
    same: float | None = Field(description="Accuracy that it reached on pairs that ask the same.")
    other: float | None = Field(description="Accuracy that it reached on pairs that do not.")
    pairs: int = Field(description="Pairs of its exam that it has answered.")
    asked: int
    changed: int = Field(description="Decisions that would have been others without it.")
    failed: int = Field(description="Questions that it could not decide, so that the index's decision was kept.")


class WrongPair(Outgoing):
    """A pair of the exam that the judge got wrong. `same` says whether the two questions really ask the same."""

    known: str
    question: str
    same: bool


class ExamOut(JudgeOut):
    """The exam of the judge, with the pairs that it got wrong."""

    seconds: float | None = Field(description="Seconds that the exam took.")
    wrong: list[WrongPair]

    @classmethod
    def of(cls, view: JudgeView) -> "ExamOut":
        wrong = [WrongPair(known=known, question=question, same=same) for known, question, same in view.wrong]
        return cls.like(view, wrong=wrong)


class StatusOut(Outgoing):
    """The state of the server."""

    version: str
    ready: bool
    why_not: str | None
    model: str
    model_fingerprint: str = Field(description="Model, tokenizer and site that edits are made for.")
    site: str
    device: str
    dtype: str
    store: str
    durable: bool = Field(description="True if a committed edit survives a crash.")
    revision: int
    hash: str = Field(description="Hash of the log's entry at this revision; it covers the whole log up to it.")
    live_edits: int
    pending_proposals: int = Field(description="Proposals that wait for a second person.")
    switched_on: bool = Field(description="True if edits are switched on, but for `switched_off`.")
    switched_off: list[str] = Field(description="Namespaces whose own edits are switched off.")
    log_lag: int = Field(description="Events of the log that are known here but not applied yet.")
    log_silence_s: float = Field(description="Seconds since the log last answered; edits wait for it, answers do not.")
    reported_answers: int = Field(description="Answers that readers reported as wrong, and that are kept.")
    running: int
    waiting: int
    judge: JudgeOut
    extra: dict[str, Any]

    @classmethod
    def of(cls, status: Status) -> "StatusOut":
        return cls.like(status, judge=JudgeOut.like(status.judge), version=version())


class Editors(Outgoing):
    """The editors of this server, each with its name, preset and capabilities."""

    editors: list[dict[str, Any]]


class SnapshotOut(Outgoing):
    """A snapshot beside the log. `hash` is that of the log's entry at its revision."""

    id: str
    revision: int
    hash: str
    at: datetime
    edits: int
    bytes: int
    model_fingerprints: list[str] = Field(description="Fingerprints of the models of edits that may still answer.")

    @classmethod
    def of(cls, manifest: Manifest) -> "SnapshotOut":
        return cls.like(manifest, bytes=manifest.size_bytes)


class SnapshotsOut(Outgoing):
    snapshots: list[SnapshotOut]
