"""What the kinds of cases that are about scope have in common: edits, and questions that they must or must not answer.

Holds the data only: `support`, `pairs` and `conversations` make trials of rows, `trying` runs them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.domain.edit import EditRequest
from app.domain.errors import InvalidRequest

Messages = Sequence[Mapping[str, str]]
Role = Literal["edited", "same", "other"]
"""A question is the edited one itself, asks the same in another way, or asks something else."""


def turn(text: str) -> Messages:
    """A chat of one user turn."""
    return ({"role": "user", "content": text},)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An edit to be made. Paraphrases and counter-examples stand in place of the last message."""

    namespace: str
    messages: Messages
    target: str
    paraphrases: tuple[str, ...] = ()
    counter_examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`edit` is the place, among the trial's edits, of the one that the question is about; None: no edit in particular.
    Figures are taken of each `group` and of all."""

    role: Role
    messages: Messages
    namespace: str
    edit: int | None
    group: str = ""


def questions_about(
    edit: int, wanted: Wanted, same: Sequence[Messages], other: Sequence[Messages], group: str = ""
) -> Iterator[Question]:
    """The edited question, what asks the same, and what asks something else, all in the namespace of the edit."""

    def question(role: Role, messages: Messages) -> Question:
        return Question(role=role, messages=messages, namespace=wanted.namespace, edit=edit, group=group)

    yield question("edited", wanted.messages)
    yield from (question("same", messages) for messages in same)
    yield from (question("other", messages) for messages in other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Edits that are made in one way, and what is asked when all of them are live."""

    name: str
    edits: Sequence[Wanted]
    questions: Sequence[Question]
    traffic: Mapping[str, Sequence[Messages]] = field(default_factory=dict)
    """By namespace: questions that were asked before the edits are made."""
    others: bool = False
    """Whether the namespaces know that no edit is to answer any of these."""


class Putting:
    """Puts questions as the model is served: as chats where it has a chat template, else as bare text. The template
    stands around the last turn."""

    def __init__(self, render: Callable[[Messages], str], template: str = "{}") -> None:
        self._render, self._template = render, template
        try:
            render(turn("?"))
            self.chats = True
        except InvalidRequest:
            self.chats = False

    def prompt(self, messages: Messages) -> str:
        """Raises InvalidRequest for a conversation where the model has no chat template."""
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

    def request(self, wanted: Wanted, editor: str) -> EditRequest:
        """`editor` is a name, or NAME/PRESET. Edits of paper presets are forced, for they are not verified."""
        name, _, preset = editor.partition("/")
        *before, last = wanted.messages

        def as_asked(text: str) -> str:
            return self.prompt([*before, {**last, "content": text}])

        return EditRequest(
            prompt=self.prompt(wanted.messages),
            target=wanted.target,
            paraphrases=tuple(map(as_asked, wanted.paraphrases)),
            counter_examples=tuple(map(as_asked, wanted.counter_examples)),
            namespace=wanted.namespace,
            editor=name,
            preset=preset or "serving",
            force=bool(preset),
        )
