"""Conversations, whose last turn alone does not say what is asked. An edit must answer where the history means the
same, and only there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.evaluation.case_selection import Half
from app.evaluation.kinds import ScopeCaseSelection, chosen, half_in, messages_in, read, text_in
from app.evaluation.trials import EditSpec, Messages, Trial, questions_about


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    messages: Messages
    target: str
    right: tuple[Messages, ...]
    """Conversations that must be answered with the target."""
    wrong: tuple[Messages, ...]
    """Conversations that ask something else, whatever their last turn."""
    half: Half


def conversation_of(row: Mapping[str, Any]) -> Conversation:
    messages = messages_in(row["messages"], "messages")
    return Conversation(
        messages=messages,
        target=text_in(row, "target"),
        right=_histories(row, "right"),
        wrong=_histories(row, "wrong"),
        half=half_in(row, "\n".join(each["content"] for each in messages)),
    )


def _histories(row: Mapping[str, Any], name: str) -> tuple[Messages, ...]:
    if not isinstance(row[name], list):
        raise TypeError(f"`{name}` must be a list of conversations, not {row[name]!r}")
    return tuple(messages_in(each, name) for each in row[name])


def trials_of(files: Sequence[Path], selection: ScopeCaseSelection) -> list[Trial]:
    """A single trial, in which each edit has a namespace of its own. Raises InvalidRequest."""
    rows = read(files, "conversations", selection.where, conversation_of)
    conversations = chosen(rows, selection, lambda each: each.half)
    edits = [
        EditSpec(namespace=f"conversation-{at}", messages=each.messages, target=each.target)
        for at, each in enumerate(conversations)
    ]
    questions = [
        question
        for at, (each, wanted) in enumerate(zip(conversations, edits, strict=True))
        for question in questions_about(at, wanted, each.right, each.wrong)
    ]
    return [Trial(name="alone", edits=edits, questions=questions)]
