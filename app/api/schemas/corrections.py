"""Request bodies for making, listing and rolling back edits. Independent of the service."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from app.api.schemas.base import (
    MAX_IDS,
    MAX_PROMPT_CHARS,
    MAX_TARGET_CHARS,
    MAX_TEXTS,
    EditId,
    EditIds,
    Incoming,
    Metadata,
    Namespace,
    Prompt,
    Reason,
    Revision,
    Texts,
    documented,
)
from app.api.schemas.messages import Message, turns_of
from app.domain.edit import MAX_BATCH_EDITS, MOST_WIDEN, EditRequest, State
from app.service.views import EditFilter

MAX_NAME_CHARS = 64

MAX_EXPIRES_IN_S = 100 * 365 * 86_400


Render = Callable[[Sequence[Mapping[str, Any]]], str]
"""A function that renders a conversation into the prompt that is served."""


def _either(schema: dict[str, Any]) -> None:
    """Describe in OpenAPI what the validator below checks: exactly one of the two, and not null."""
    schema["oneOf"] = [{"required": ["prompt"]}, {"required": ["messages"]}]
    for name in ("prompt", "messages"):
        field = schema["properties"][name]
        (kind,) = (each for each in field.pop("anyOf") if each.get("type") != "null")
        del field["default"]
        field.update(kind)


class EditItem(Incoming):
    """A correction: this prompt, and every question that asks the same, are to be answered with `target`."""

    model_config = ConfigDict(json_schema_extra=_either)

    prompt: Prompt | None = Field(default=None, description="The prompt whose answer is to change.")
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_TEXTS)] | None = Field(
        default=None,
        description="In place of `prompt`: a conversation, rendered by the model's chat template. Paraphrases, counter-"
        "examples and probes then stand in place of its last message.",
    )
    target: Annotated[str, Field(max_length=MAX_TARGET_CHARS)] = Field(
        description="The whole answer that it should have. Blanks at its ends do not count: an answer goes on with one "
        "where its prompt does not end with one."
    )
    subject: Prompt | None = Field(
        default=None, description="The person or thing that the prompt is about, to which it limits the scope."
    )
    aliases: Texts = Field(default=[], description="Other names of the subject.")
    paraphrases: Texts = Field(default=[], description="Prompts that ask the same; they must get the target too.")
    counter_examples: Texts = Field(default=[], description="Prompts close by that are out of scope.")
    probes: Texts = Field(
        default=[], description="Prompts whose answer must not change; one that would blocks the commit."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="Seed of the fit: the same request gives the same fit."
    )
    editor: Annotated[str, Field(max_length=MAX_NAME_CHARS)] = Field(
        default="auto", description="GET /editors lists them."
    )
    preset: Annotated[str, Field(max_length=MAX_NAME_CHARS)] = "serving"
    namespace: Namespace = "default"
    reason: Reason | None = Field(default=None, description="Why, for the audit trail.")
    widen: float = Field(
        default=1.0,
        ge=1 / MOST_WIDEN,
        le=MOST_WIDEN,
        description="Multiplies the odds at which a question counts as the same: above 1 the edit reaches farther.",
    )
    expires_in: Annotated[float | None, documented(exclusiveMinimum=0)] = Field(
        default=None, le=MAX_EXPIRES_IN_S, description="Seconds until the edit ends by itself; at most 100 years."
    )
    metadata: Metadata = Field(default={}, description="Data of the client's own, which is kept with the edit.")
    supersede: EditIds = Field(default=[], description="Edits that this one replaces.")
    force: bool = Field(
        default=False, description="Commit even if verification fails or another edit's scope overlaps."
    )

    @model_validator(mode="after")
    def _prompt_or_messages(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either `prompt` or `messages`")
        if sum(each.length for each in self.messages or ()) > MAX_PROMPT_CHARS:
            raise ValueError(f"`messages` hold more than {MAX_PROMPT_CHARS} characters in all")
        return self

    def to_domain(self, render: Render) -> EditRequest:
        """The edit request. Raises InvalidRequest."""

        def framed(text: str) -> str:
            if self.messages is None:
                return text
            *before, last = turns_of(self.messages)
            return render([*before, {**last, "content": text}])

        return EditRequest(
            prompt=self.prompt if self.prompt is not None else render(turns_of(self.messages or [])),
            target=self.target.strip(),
            subject=self.subject,
            aliases=tuple(self.aliases),
            paraphrases=tuple(map(framed, self.paraphrases)),
            counter_examples=tuple(map(framed, self.counter_examples)),
            probes=tuple(map(framed, self.probes)),
            editor=self.editor,
            preset=self.preset,
            namespace=self.namespace,
            seed=self.seed,
            reason=self.reason,
            expires_in_s=self.expires_in,
            metadata=self.metadata,
            supersede=tuple(self.supersede),
            force=self.force,
            widen=None if self.widen == 1 else self.widen,
        )


class EditBody(EditItem):
    """One correction."""

    dry_run: bool = Field(default=False, description="Fit, verify and report, but do not commit.")


class WrongItem(EditItem):
    """The placeholder for an item of a batch that is no correction: what was sent, and its errors."""

    given: Any = None
    errors: tuple[Any, ...] = ()


class BatchBody(Incoming):
    """Several corrections."""

    edits: list[EditItem] = Field(min_length=1, max_length=MAX_BATCH_EDITS)
    atomic: bool = Field(
        default=True,
        description="All go live in one step, or none does. Else each is made that can be, and `failures` says what "
        "was wrong with the others.",
    )
    dry_run: bool = Field(default=False, description="Fit, verify and report, but do not commit.")

    @model_validator(mode="before")
    @classmethod
    def _each_for_itself(cls, given: Any) -> Any:
        if not (isinstance(given, dict) and given.get("atomic") is False and isinstance(given.get("edits"), list)):
            return given
        return {**given, "edits": [_item_of(each) for each in given["edits"]]}


def _item_of(given: Any) -> EditItem:
    try:
        return EditItem.model_validate(given)
    except ValidationError as error:
        return WrongItem.model_construct(prompt="", given=given, errors=tuple(error.errors()))


def _one_or_batch(value: Any) -> str:
    return "batch" if isinstance(value, BatchBody) or (isinstance(value, dict) and "edits" in value) else "one"


OneOrBatch = Annotated[
    Annotated[EditBody, Tag("one")] | Annotated[BatchBody, Tag("batch")], Discriminator(_one_or_batch)
]


class ReasonBody(Incoming):
    """The reason for a change; the body may be left out."""

    reason: Reason | None = None


class RollbackBody(Incoming):
    """Either the edits to roll back, or the revision to which a namespace is to return."""

    to_revision: Revision | None = Field(
        default=None, description="Take back every edit of the namespace that was committed after this revision."
    )
    namespace: Namespace = Field(default="default", description="With `to_revision`: the namespace that goes back.")
    all_namespaces: bool = Field(default=False, description="With `to_revision`: all of them go back.")
    ids: Annotated[list[EditId], Field(min_length=1, max_length=MAX_IDS)] | None = Field(
        default=None, description="Take back these, all in one step."
    )
    dry_run: bool = Field(default=False, description="Only report what would be taken back, and what would come back.")
    reason: Reason | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.to_revision is None) == (self.ids is None):
            raise ValueError("give either `to_revision` or `ids`")
        if self.ids is not None and {"namespace", "all_namespaces"} & self.model_fields_set:
            raise ValueError("`namespace` goes with `to_revision`: edits that are named by `ids` need none")
        if self.all_namespaces and "namespace" in self.model_fields_set:
            raise ValueError("give either `namespace` or `all_namespaces`")
        return self


class SwitchBody(Incoming):
    """The edit switch of one namespace or (null) of all."""

    on: bool = Field(description="True lets edits answer; false stops them all.")
    namespace: Namespace | None = None
    dry_run: bool = Field(default=False, description="Only report how many edits it concerns.")
    reason: Reason | None = None


class EditsQuery(BaseModel):
    """Filters of GET /edits. A filter that is left out matches every edit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: State | None = None
    namespace: Annotated[str | None, Field(max_length=MAX_NAME_CHARS)] = None
    editor: Annotated[str | None, Field(max_length=MAX_NAME_CHARS)] = None
    actor: Annotated[str | None, Field(max_length=200)] = None
    q: Annotated[str | None, Field(max_length=1_000)] = Field(
        default=None, description="Text sought in prompt, target and subject, ignoring case."
    )
    never_hit: bool = Field(default=False, description="Only edits that have not answered yet.")
    expires_within: Annotated[float | None, documented(exclusiveMinimum=0)] = Field(
        default=None,
        gt=0,
        le=MAX_EXPIRES_IN_S,
        description="Seconds: only edits in effect that end by themselves within this time.",
    )
    id_prefix: Annotated[str | None, Field(max_length=64)] = Field(
        default=None, description="Beginning of the id: finds the edits that a shortened id may mean."
    )
    limit: int = Field(default=50, ge=1, le=500)
    cursor: Annotated[str | None, Field(max_length=64)] = Field(
        default=None, description="`next_cursor` of the page before."
    )

    def to_domain(self) -> EditFilter:
        return EditFilter(
            state=self.state,
            namespace=self.namespace,
            editor=self.editor,
            actor=self.actor,
            text=self.q,
            never_hit=self.never_hit,
            expires_within_s=self.expires_within,
            id_prefix=self.id_prefix,
        )


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
