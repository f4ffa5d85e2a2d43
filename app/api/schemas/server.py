"""Bodies about the server itself: how it stands, its editors, its log, its errors. Knows no service."""

from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.schemas.base import MAX_REVISION, Outgoing, utc
from app.api.schemas.edits import origin_fields
from app.domain.events import (
    BatchCommitted,
    EditCommitted,
    EditStaged,
    Event,
    KeyCreated,
    KeyRevoked,
    ProbesSet,
    SwitchSet,
)
from app.service.reading import EventQuery
from app.service.views import JudgeView, Status
from app.store.snapshots import Manifest
from app.version import version


class Problem(BaseModel):
    """An error, after RFC 9457. Some kinds have more fields, such as `errors`, `report` or `conflicts`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:errata:problem:unknown-edit"])
    title: str = Field(examples=["Unknown edit"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["No edit has the id 'ed_0': GET /edits lists the ids."])


class Health(Outgoing):
    status: str


class Greeting(Outgoing):
    """What answers at `/`."""

    name: str = "errata"
    version: str
    model: str
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    openai: str = "/v1"
    ready: str = "/readyz"


class Info(Outgoing):
    """What TGI's clients ask of a server."""

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
    """Who decides what the scope index is uncertain of (`ERRATA_JUDGE`), and what it has done since the start."""

    judge: str = Field(description="`off`, `hosted`, or the name of a cross-encoder's folder.")
    state: Literal["off", "sitting", "serving", "failed", "broken"]
    why_not: str | None = Field(description="Why there is a judge, and it does not serve.")
    pass_mark: float = Field(description="Accuracy that its exam asks for, of both classes.")
    same: float | None = Field(description="Accuracy that it reached on pairs that ask the same.")
    other: float | None = Field(description="Accuracy that it reached on pairs that do not.")
    pairs: int = Field(description="Pairs of its exam that it has answered.")
    asked: int
    changed: int = Field(description="Decisions that would have been others without it.")
    failed: int = Field(description="Questions that it had no answer to: the index's decision stood.")

    @classmethod
    def of(cls, view: JudgeView) -> "JudgeOut":
        return cls(**{name: getattr(view, name) for name in JudgeOut.model_fields})


class WrongPair(Outgoing):
    """`same`: whether the question asks the same as the known one, which the judge denied."""

    known: str
    question: str
    same: bool


class ExamOut(JudgeOut):
    """The exam of the judge, with the pairs that it got wrong."""

    seconds: float | None = Field(description="What the exam took.")
    wrong: list[WrongPair]

    @classmethod
    def of(cls, view: JudgeView) -> "ExamOut":
        wrong = [WrongPair(known=known, question=question, same=same) for known, question, same in view.wrong]
        return cls(**JudgeOut.of(view).model_dump(), seconds=view.seconds, wrong=wrong)


class StatusOut(Outgoing):
    """How the server stands."""

    version: str
    ready: bool
    why_not: str | None
    model: str
    model_fingerprint: str = Field(description="Model, tokenizer and site that edits are made for.")
    site: str
    device: str
    dtype: str
    store: str
    durable: bool = Field(description="Whether a committed edit survives a crash.")
    revision: int
    live_edits: int
    switched_on: bool
    log_lag: int = Field(description="Events of the log that are not applied here yet, as far as it has told.")
    log_silence_s: float = Field(description="Seconds since the log last answered; edits wait for it, answers do not.")
    running: int
    waiting: int
    judge: JudgeOut
    extra: dict[str, Any]

    @classmethod
    def of(cls, status: Status) -> "StatusOut":
        fields = {name: getattr(status, name) for name in cls.model_fields if name != "version"}
        fields |= {"version": version(), "judge": JudgeOut.of(status.judge), "extra": dict(status.extra)}
        return cls(**fields)


class Editors(Outgoing):
    """The editors that this server has, each with its name, preset and capabilities."""

    editors: list[dict[str, Any]]


class LogQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    after: int | None = Field(
        default=None,
        ge=0,
        le=MAX_REVISION,
        description="Show events above this revision; if left out, from the oldest that is kept on.",
    )
    limit: int = Field(default=100, ge=1, le=500)
    order: Literal["oldest", "newest"] = Field(default="oldest", description="Which events come first.")
    before: int | None = Field(
        default=None,
        ge=1,
        le=MAX_REVISION,
        description="Show events below this revision, newest first; if left out, from the newest back.",
    )
    actor: str | None = Field(
        default=None, max_length=200, description="Only changes of this actor, or of this key id."
    )
    edit: str | None = Field(default=None, max_length=64, description="Only changes of the edit with this id.")
    since: datetime | None = Field(default=None, description="Only changes from this time on.")

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        if self.before is not None and self.order != "newest":
            raise ValueError("`before` goes with `order=newest`, `after` with `order=oldest`")
        if self.after is not None and self.order != "oldest":
            raise ValueError("`after` goes with `order=oldest`, `before` with `order=newest`")
        return self

    def to_domain(self) -> EventQuery:
        return EventQuery(
            newest_first=self.order == "newest",
            after=self.after,
            before=self.before,
            limit=self.limit,
            actor=self.actor,
            edit_id=self.edit,
            since_s=None if self.since is None else _unix(self.since),
        )


def _unix(at: datetime) -> float:
    """A time without a zone is UTC, as all times in answers are."""
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


class SnapshotOut(Outgoing):
    """A snapshot beside the log. `hash` is that of the log's entry at its revision."""

    id: str
    revision: int
    hash: str
    at: datetime
    edits: int
    bytes: int
    model_fingerprints: list[str] = Field(description="Of the edits that may still answer.")

    @classmethod
    def of(cls, manifest: Manifest) -> "SnapshotOut":
        return cls(
            id=manifest.id,
            revision=manifest.revision,
            hash=manifest.hash,
            at=utc(manifest.at_s),
            edits=manifest.edits,
            bytes=manifest.size_bytes,
            model_fingerprints=list(manifest.model_fingerprints),
        )


class SnapshotsOut(Outgoing):
    snapshots: list[SnapshotOut]


class LoggedEdit(Outgoing):
    """The edit that an event commits, without its tensors; GET /edits/{id} has the rest."""

    id: str
    editor: str
    namespace: str
    prompt: str
    target: str
    supersedes: list[str]


class EventOut(Outgoing):
    """One event of the log. The fields from `edit` on are there where the kind of event has them."""

    revision: int
    hash: str = Field(description="Of the log's entry: it stands for this event and for all before it.")
    kind: str
    at: datetime
    actor: str
    key_id: str | None
    role: str | None
    reason: str | None
    request_id: str | None
    client: str | None
    edit: LoggedEdit | None = None
    edit_ids: list[str] | None = None
    batch_id: str | None = None
    namespace: str | None = None
    on: bool | None = None
    prompts: list[str] | None = None
    key: str | None = None

    @classmethod
    def of(cls, event: Event, entry_hash: str) -> "EventOut":
        fields: dict[str, Any] = {
            "revision": event.revision,
            "hash": entry_hash,
            "kind": event.kind,
            "at": utc(event.at_s),
            **origin_fields(event.origin),
        }
        if isinstance(event, EditCommitted | EditStaged):
            edit = event.edit
            fields["edit"] = LoggedEdit(
                id=edit.id,
                editor=edit.editor,
                namespace=edit.request.namespace,
                prompt=edit.request.prompt,
                target=edit.request.target,
                supersedes=list(edit.supersedes),
            )
        elif isinstance(event, KeyCreated | KeyRevoked):
            fields["key"] = event.key_id
        elif isinstance(event, ProbesSet):
            fields |= {"namespace": event.namespace, "prompts": list(event.prompts)}
        elif isinstance(event, SwitchSet):
            fields |= {"namespace": event.namespace, "on": event.on}
        else:
            fields["edit_ids"] = list(getattr(event, "edit_ids", ()))
        if isinstance(event, EditStaged | BatchCommitted):
            fields["batch_id"] = event.batch_id
        return cls(**fields)


class LogPage(Outgoing):
    """Events in the order that was asked for."""

    events: list[EventOut]
    next_after: int | None = Field(description="The `after` of the next page; null at the head.")
    next_before: int | None = Field(description="The `before` of the next page; null at the oldest event.")
    read_to: int = Field(description="The last revision that was looked at: filters may have left it out.")
