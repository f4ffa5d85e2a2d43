"""Request and response bodies about scopes: retuning an edit, the probes of a namespace, recent prompts."""

from typing import Annotated

from pydantic import Field

from app.api.schemas.base import Incoming, Namespace, Outgoing, Prompt, Reason, Texts
from app.api.schemas.generate import HitOut
from app.domain.edit import MAX_PROBES, MOST_WIDEN
from app.domain.generation import Hit
from app.service.protected_questions import ProtectedAnswer
from app.service.retunes import Retune

MAX_TRAFFIC = 10_000


class RetuneBody(Incoming):
    """The change to an edit's scope. Texts are added to those that it has."""

    widen: float = Field(
        default=1.0,
        ge=1 / MOST_WIDEN,
        le=MOST_WIDEN,
        description="Multiplies the odds at which a question counts as the same: above 1 the edit reaches farther.",
    )
    paraphrases: Texts = Field(default=[], description="Further prompts that ask the same.")
    counter_examples: Texts = Field(default=[], description="Further prompts close by that are out of scope.")
    aliases: Texts = Field(default=[], description="Further names of its subject.")
    probes: Texts = Field(default=[], description="Further prompts whose answer must not change.")
    force: bool = Field(default=False, description="Change it even if it then fails its verification.")
    reason: Reason | None = None

    def to_domain(self) -> Retune:
        """The domain's value. Raises InvalidRequest."""
        return Retune(
            paraphrases=tuple(self.paraphrases),
            counter_examples=tuple(self.counter_examples),
            aliases=tuple(self.aliases),
            probes=tuple(self.probes),
            widen=self.widen,
            force=self.force,
        )


class ProbesBody(Incoming):
    """Prompts of a namespace whose answers no edit may change; they replace the previous ones."""

    prompts: Annotated[list[Prompt], Field(max_length=MAX_PROBES)]
    namespace: Namespace = "default"
    reason: Reason | None = None


class ProbesOut(Outgoing):
    namespace: str
    prompts: list[str]
    revision: int


class ProbesCheckBody(Incoming):
    """The probes to ask."""

    namespace: Namespace = "default"
    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PROBES)] | None = Field(
        default=None, description="Ask these in place of the probes that are set: to see them before they are."
    )


class ProbeAnswerOut(Outgoing):
    """A probe with its two answers."""

    prompt: str
    base: str = Field(description="The answer without edits.")
    now: str = Field(description="The answer with the namespace's live edits.")
    changed: bool = Field(description="True if the two differ.")
    edit: str | None = Field(description="The edit that gives the answer now.")

    @classmethod
    def of(cls, answer: ProtectedAnswer) -> "ProbeAnswerOut":
        return cls(prompt=answer.prompt, base=answer.base, now=answer.now, changed=answer.changed, edit=answer.edit_id)


class ProbesCheckOut(Outgoing):
    """The probes in their order, with the first 64 tokens of each answer; `changed` counts those that edits change."""

    namespace: str
    probes: list[ProbeAnswerOut]
    changed: int
    revision: int


class TrafficBody(Incoming):
    """Prompts that are asked in a namespace."""

    prompts: Annotated[list[Prompt], Field(max_length=MAX_TRAFFIC)]
    namespace: Namespace = "default"
    others: Annotated[
        bool, Field(description="No edit is to answer any of them: the bounds of edits are calibrated on them.")
    ] = False


class ScopeBody(Incoming):
    """Prompts for which the edit that would answer is looked up."""

    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=MAX_TRAFFIC)]
    namespace: Namespace = "default"


class ScopeOut(Outgoing):
    """A decision about one prompt: the edit that answers it, or else the edit that came nearest."""

    prompt: str
    edit: HitOut | None
    nearest: HitOut | None

    @classmethod
    def of(cls, prompt: str, answers: Hit | None, nearest: Hit | None) -> "ScopeOut":
        edit, near = (None if hit is None else HitOut.of(hit) for hit in (answers, nearest))
        return cls(prompt=prompt, edit=edit, nearest=None if edit else near)


class ScopesOut(Outgoing):
    """The decisions, in the order of the prompts."""

    decisions: list[ScopeOut]
    false_hits: float = Field(
        description="The share of unrelated questions that the namespace's edits may answer (`ERRATA_FALSE_HITS`)."
    )
    revision: int


class RecentOut(Outgoing):
    """The number of recent prompts that this server keeps for each namespace, and the most that it keeps."""

    kept: dict[str, int]
    at_most: int


class ForgottenOut(Outgoing):
    forgotten: int
