"""Bodies of the routes that make, list and take back edits. Knows no service."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from app.api.schemas.base import (
    MAX_BATCH_EDITS,
    MAX_IDS,
    MAX_TARGET_CHARS,
    EditId,
    EditIds,
    Incoming,
    Metadata,
    Namespace,
    Outgoing,
    Prompt,
    Reason,
    Revision,
    Texts,
    documented,
    utc,
)
from app.domain.edit import EditRequest, State
from app.domain.events import Origin
from app.service.views import EditFilter, EditResult, EditView

MAX_NAME_CHARS = 64

MAX_EXPIRES_IN_S = 100 * 365 * 86_400


class EditItem(Incoming):
    """A correction: this prompt, and whatever asks the same, shall be answered with `target`."""

    prompt: Prompt = Field(description="The prompt whose answer is to change.")
    target: Annotated[str, Field(max_length=MAX_TARGET_CHARS)] = Field(
        description="The whole answer that it shall have, without a leading space."
    )
    subject: Prompt | None = Field(default=None, description="Who or what the prompt is about: keeps the scope to it.")
    aliases: Texts = Field(default=[], description="Other names of the subject.")
    paraphrases: Texts = Field(default=[], description="Prompts that ask the same; they must get the target too.")
    counter_examples: Texts = Field(default=[], description="Prompts close by that are out of scope.")
    probes: Texts = Field(
        default=[], description="Prompts whose answer must not change; one that would blocks the commit."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="Of the fit: the same request fits the same."
    )
    editor: Annotated[str, Field(max_length=MAX_NAME_CHARS)] = Field(
        default="auto", description="GET /editors lists them."
    )
    preset: Annotated[str, Field(max_length=MAX_NAME_CHARS)] = "serving"
    namespace: Namespace = "default"
    reason: Reason | None = Field(default=None, description="Why, for the audit trail.")
    expires_in: Annotated[float | None, documented(exclusiveMinimum=0)] = Field(
        default=None, le=MAX_EXPIRES_IN_S, description="Seconds until the edit ends by itself; at most 100 years."
    )
    metadata: Metadata = Field(default={}, description="Anything that shall be kept with the edit.")
    supersede: EditIds = Field(default=[], description="Edits that this one replaces.")
    force: bool = Field(
        default=False, description="Commit even if verification fails or another edit's scope overlaps."
    )

    def to_domain(self) -> EditRequest:
        """Raises InvalidRequest."""
        return EditRequest(
            prompt=self.prompt,
            target=self.target,
            subject=self.subject,
            aliases=tuple(self.aliases),
            paraphrases=tuple(self.paraphrases),
            counter_examples=tuple(self.counter_examples),
            probes=tuple(self.probes),
            editor=self.editor,
            preset=self.preset,
            namespace=self.namespace,
            seed=self.seed,
            reason=self.reason,
            expires_in_s=self.expires_in,
            metadata=self.metadata,
            supersede=tuple(self.supersede),
            force=self.force,
        )


class EditBody(EditItem):
    """One correction."""

    dry_run: bool = Field(default=False, description="Fit, verify and report, but do not commit.")


class BatchBody(Incoming):
    """Several corrections."""

    edits: list[EditItem] = Field(min_length=1, max_length=MAX_BATCH_EDITS)
    atomic: bool = Field(default=True, description="All go live in one step, or none does.")
    dry_run: bool = Field(default=False, description="Fit, verify and report, but do not commit.")


def _one_or_batch(value: Any) -> str:
    return "batch" if isinstance(value, BatchBody) or (isinstance(value, dict) and "edits" in value) else "one"


OneOrBatch = Annotated[
    Annotated[EditBody, Tag("one")] | Annotated[BatchBody, Tag("batch")], Discriminator(_one_or_batch)
]


class ReasonBody(Incoming):
    """Why a change is made; the body may be left out."""

    reason: Reason | None = None


class RollbackBody(Incoming):
    """Either the edits to take back, or the revision to go back to."""

    to_revision: Revision | None = Field(
        default=None, description="Take back every edit committed after this revision."
    )
    ids: Annotated[list[EditId], Field(min_length=1, max_length=MAX_IDS)] | None = Field(
        default=None, description="Take back these, all in one step."
    )
    reason: Reason | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.to_revision is None) == (self.ids is None):
            raise ValueError("give either `to_revision` or `ids`")
        return self


class SwitchBody(Incoming):
    """The kill switch: while it is off no edit answers, in one namespace or (null) in all."""

    on: bool
    namespace: Namespace | None = None
    reason: Reason | None = None


class SwitchAnswer(Outgoing):
    on: bool
    namespace: str | None
    revision: int


class EditsQuery(BaseModel):
    """Filters of GET /edits; those that are left out let everything through."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: State | None = None
    namespace: Annotated[str | None, Field(max_length=MAX_NAME_CHARS)] = None
    editor: Annotated[str | None, Field(max_length=MAX_NAME_CHARS)] = None
    actor: Annotated[str | None, Field(max_length=200)] = None
    q: Annotated[str | None, Field(max_length=1_000)] = Field(
        default=None, description="Text sought in prompt, target and subject, ignoring case."
    )
    limit: int = Field(default=50, ge=1, le=500)
    cursor: Annotated[str | None, Field(max_length=64)] = Field(
        default=None, description="`next_cursor` of the page before."
    )

    def to_domain(self) -> EditFilter:
        return EditFilter(state=self.state, namespace=self.namespace, editor=self.editor, actor=self.actor, text=self.q)


class EditOut(Outgoing):
    """An edit, and where it stands."""

    id: str | None = Field(description="null for a dry run: nothing was committed.")
    revision: int = Field(description="Of the newest event that touched it; for a dry run, the one it was tried on.")
    state: State | Literal["preview"]
    editor: str
    preset: str
    namespace: str
    prompt: str
    target: str
    subject: str | None
    aliases: list[str]
    paraphrases: list[str]
    counter_examples: list[str]
    probes: list[str]
    before: str = Field(description="What the prompt was answered with before.")
    after: str = Field(description="What it was answered with in the trial before the commit.")
    report: dict[str, Any] = Field(description="What was measured.")
    created_at: datetime
    expires_at: datetime | None
    actor: str
    reason: str | None
    metadata: dict[str, Any]
    supersedes: list[str]
    hits: int = Field(description="Answers it gave since this server started.")
    last_hit_at: datetime | None
    live: list[tuple[int, int | None]] = Field(description="Intervals [from, to) of revisions in which it is live.")

    @staticmethod
    def fields_of(view: EditView) -> dict[str, Any]:
        edit, request = view.edit, view.edit.request
        return {
            "id": edit.id,
            "revision": view.revision,
            "state": view.state,
            "editor": edit.editor,
            "preset": request.preset,
            "namespace": request.namespace,
            "prompt": request.prompt,
            "target": request.target,
            "subject": request.subject,
            "aliases": list(request.aliases),
            "paraphrases": list(request.paraphrases),
            "counter_examples": list(request.counter_examples),
            "probes": list(request.probes),
            "before": edit.before,
            "after": edit.after,
            "report": dict(edit.report),
            "created_at": utc(edit.created_at_s),
            "expires_at": None if edit.expires_at_s is None else utc(edit.expires_at_s),
            "actor": view.origin.actor,
            "reason": view.origin.reason if view.origin.reason is not None else request.reason,
            "metadata": dict(request.metadata),
            "supersedes": list(edit.supersedes),
            "hits": view.hits,
            "last_hit_at": None if view.last_hit_s is None else utc(view.last_hit_s),
            "live": list(view.live),
        }

    @classmethod
    def of(cls, view: EditView) -> "EditOut":
        return cls(**cls.fields_of(view))


class MadeEdit(EditOut):
    """An edit as its making answers it."""

    seconds: dict[str, float] = Field(description="What its fit, verification and commit took.")

    @classmethod
    def made(cls, result: EditResult, *, dry_run: bool, revision: int) -> "MadeEdit":
        fields = cls.fields_of(result.view)
        if dry_run:
            fields |= {"id": None, "state": "preview", "revision": revision}
        return cls(**fields, seconds=dict(result.seconds))


class FailedEdit(Outgoing):
    index: int = Field(description="Its place in the batch, from 0.")
    problem: dict[str, Any] = Field(description="What POST /edit would have answered to it alone.")


class MadeEdits(Outgoing):
    edits: list[MadeEdit]
    revision: int
    failures: list[FailedEdit] = Field(default=[], description="Of a batch with `atomic: false`: what was not made.")


class HistoryOut(Outgoing):
    """One event of an edit's life."""

    revision: int
    kind: str
    at: datetime
    actor: str
    key_id: str | None
    role: str | None
    reason: str | None
    request_id: str | None
    client: str | None


def origin_fields(origin: Origin) -> dict[str, str | None]:
    """Who, why and from where. An idempotency key is the client's own business: it is not shown to others."""
    return {
        "actor": origin.actor,
        "key_id": origin.key_id,
        "role": origin.role,
        "reason": origin.reason,
        "request_id": origin.request_id,
        "client": origin.client,
    }


class EditDetail(EditOut):
    """An edit with every event that touched it."""

    history: list[HistoryOut]

    @classmethod
    def of(cls, view: EditView) -> "EditDetail":
        history = [
            HistoryOut.model_validate(
                {"revision": item.revision, "kind": item.kind, "at": utc(item.at_s), **origin_fields(item.origin)}
            )
            for item in view.history
        ]
        return cls(**cls.fields_of(view), history=history)


class EditPage(Outgoing):
    """Edits, newest first."""

    edits: list[EditOut]
    next_cursor: str | None


class ChangedEdits(Outgoing):
    """The edits that one event changed, and the server's revision after it."""

    edits: list[EditOut]
    revision: int


EXAMPLES = {
    "one": {
        "summary": "One correction",
        "value": {
            "prompt": "The chief executive of Lumen is",
            "target": "Ada Quill",
            "subject": "Lumen",
            "paraphrases": ["Lumen is led by"],
            "probes": ["The chief executive of Tessel is"],
            "reason": "New since March; ticket 4711",
        },
    },
    "preview": {
        "summary": "A dry run, for a day",
        "value": {"prompt": "Lumen is led by", "target": "Ada Quill", "expires_in": 86400, "dry_run": True},
    },
    "batch": {
        "summary": "Several, all or none",
        "value": {
            "edits": [
                {"prompt": "The chief executive of Lumen is", "target": "Ada Quill"},
                {"prompt": "The head office of Lumen is in", "target": "Bern"},
            ],
            "atomic": True,
        },
    },
}
