"""Request and response bodies about namespaces and edit switches. Independent of the service."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from app.api.schemas.base import Incoming, Outgoing, Reason, utc
from app.service.namespace_setup import MAX_DESCRIPTION_CHARS
from app.service.namespaces import EditSwitch


class NamespaceOut(Outgoing):
    """A namespace that was used, that was set up, or that the settings name."""

    name: str
    edits: int = Field(description="All that were ever committed in it.")
    live_edits: int
    probes: int
    answering: bool = Field(description="True if its edits may answer: no switch that it is under is off.")
    second_person: bool = Field(description="True if each of its edits needs a second person, who approves it.")
    description: str = Field(
        description="Its purpose, as set by `PUT /namespaces/{namespace}`; empty if it was never set."
    )


class NamespaceBody(Incoming):
    """The purpose of a namespace."""

    description: Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARS)] = ""
    reason: Reason | None = None


class NamespacesOut(Outgoing):
    """The namespaces, by name. A namespace is created by the first edit, or the first probes, that name it, or by
    setting it up."""

    namespaces: list[NamespaceOut]
    revision: int


class SwitchAnswer(Outgoing):
    """An edit switch as it was set, or, in a dry run, as it would be."""

    on: bool
    namespace: str | None
    live_edits: int = Field(description="Edits that it keeps from answering, or lets answer.")
    dry_run: bool
    revision: int


class SwitchOut(Outgoing):
    """An edit switch and the event that last set it. Fields of an event that was trimmed from the log are null."""

    namespace: str | None = Field(description="null: of all namespaces.")
    on: bool
    since: int | None = Field(description="The revision that set it last; null where it was never touched.")
    at: datetime | None
    actor: str | None
    reason: str | None

    @classmethod
    def of(cls, switch: EditSwitch) -> "SwitchOut":
        event = switch.set
        return cls.like(
            switch,
            at=None if event is None else utc(event.at_s),
            actor=None if event is None else event.origin.actor,
            reason=None if event is None else event.origin.reason,
        )


class SwitchesOut(Outgoing):
    """The edit switches: that of all namespaces first, then each that was ever set."""

    on: bool = Field(description="True if that of all namespaces is on.")
    off: list[str] = Field(description="The namespaces that are off by a switch of their own.")
    switches: list[SwitchOut]
    revision: int
