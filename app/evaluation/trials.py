"""Common data of the kinds of cases that concern scope: edits, and questions that they must or must not answer.

`support`, `pairs` and `conversations` make trials from rows; `trial_runs` runs them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.domain.edit import EditRequest
from app.domain.errors import InvalidRequest

Messages = Sequence[Mapping[str, str]]
Role = Literal["edited", "same", "other"]
"""Role of a question: the edited one itself, the same asked differently, or something else."""


def turn(text: str) -> Messages:
    """A conversation of one user turn."""
    return ({"role": "user", "content": text},)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSpec:
    """An edit to be made. Paraphrases and counter-examples replace the last message."""

    namespace: str
    messages: Messages
    target: str
    paraphrases: tuple[str, ...] = ()
    counter_examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialQuestion:
    """A question of a trial. `edit` is the index, among the trial's edits, of the edit that it is about; None: no edit
    in particular. Figures are taken per `group` and over all."""

    role: Role
    messages: Messages
    namespace: str
    edit: int | None
    group: str = ""


def questions_about(
    edit: int, wanted: EditSpec, same: Sequence[Messages], other: Sequence[Messages], group: str = ""
) -> Iterator[TrialQuestion]:
    """The edited question, the same asked differently, and other questions, all in the edit's namespace."""

    def question(role: Role, messages: Messages) -> TrialQuestion:
        return TrialQuestion(role=role, messages=messages, namespace=wanted.namespace, edit=edit, group=group)

    yield question("edited", wanted.messages)
    yield from (question("same", messages) for messages in same)
    yield from (question("other", messages) for messages in other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Edits that are made in one way, and the questions asked once all of them are live."""

    name: str
    edits: Sequence[EditSpec]
    questions: Sequence[TrialQuestion]
    traffic: Mapping[str, Sequence[Messages]] = field(default_factory=dict)
    """Namespace -> conversations that were asked before the edits are made."""
    others: bool = False
    """True if the operator declares that no edit answers any of the traffic."""


class PromptRenderer:
    """Renders questions as the model is served: as chats with a chat template, else as bare text. The template
    surrounds the last turn."""

    def __init__(self, render: Callable[[Messages], str], template: str = "{}") -> None:
        self._render, self._template = render, template
        try:
            render(turn("?"))
            self.chats = True
        except InvalidRequest:
            self.chats = False

    def prompt(self, messages: Messages) -> str:
        """The rendered prompt. Raises InvalidRequest for a conversation if the model has no chat template."""
        *before, last = messages
        content = self._template.replace("{}", last["content"])
        if self.chats:
            return self._render([*before, {**last, "content": content}])
        if before:
            raise InvalidRequest(
                "These cases are conversations, and the model has no chat template to render them with: name a chat "
                "model with --model."
            )
        return content

    def request(self, wanted: EditSpec, editor: str) -> EditRequest:
        """The request for an edit. `editor` is NAME or NAME/PRESET. Edits of paper presets are forced, since they are
        not verified."""
        name, _, preset = editor.partition("/")
        *before, last = wanted.messages

        def framed(text: str) -> str:
            return self.prompt([*before, {**last, "content": text}])

        return EditRequest(
            prompt=self.prompt(wanted.messages),
            target=wanted.target,
            paraphrases=tuple(map(framed, wanted.paraphrases)),
            counter_examples=tuple(map(framed, wanted.counter_examples)),
            namespace=wanted.namespace,
            editor=name,
            preset=preset or "serving",
            force=bool(preset),
        )
