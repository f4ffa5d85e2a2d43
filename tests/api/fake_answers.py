"""The fake service's answers to questions, and the reports of its previews."""

from collections.abc import Sequence
from typing import Any

from app.domain.edit import Edit
from app.service.views import token_diff

DOUBTFUL = "does not hold"
"""A target that a preview finds not to hold."""


class FakeAnswering:
    """There is room for so many characters; a prompt's words are its tokens."""

    model_name, max_tokens, chats = "fake", 100, True

    def question(self, prompt: str) -> str:
        return prompt.removesuffix("\n<assistant>").partition("<user> ")[2] or prompt

    def render(self, messages: Any, *, continues: bool = False) -> str:
        said = "".join(f"<{each['role']}> {_joined(each['content'])}\n" for each in messages)
        return said.removesuffix("\n") if continues else f"{said}<assistant>"

    def room(self, prompt: str) -> int:
        return max(1, self.max_tokens - len(prompt))

    def prompt_tokens(self, prompts: Sequence[str]) -> int:
        return sum(len(prompt.split()) for prompt in prompts)


def told_of(edit: Edit) -> dict[str, Any]:
    """The report of a preview, as the service tells it."""
    bound = 1 / (1 + (edit.request.widen or 1.0))
    prompt, same = edit.request.prompt, {"value": 0.9, "bound": bound}
    question, turn, end = prompt.partition("\n")
    made, miss = (f"{question} {word}{turn}{end}" for word in ("please", "in 1990"))
    kinds = {"prompt": [prompt], "made": [made], "near_miss": [miss]}
    asked = [
        {"kind": kind, "prompt": each, "answer": edit.after, "reached": kind != "near_miss", "same": same, "why": ""}
        for kind, prompts in kinds.items()
        for each in prompts
    ]
    return {
        **edit.report,
        "bound": bound,
        "unchanged": {"asked": 0, "right": 0, "changed": []},
        "asked": asked,
        "would_commit": edit.request.target != DOUBTFUL,
        "problems": ["the prompt is answered otherwise"] if edit.request.target == DOUBTFUL else [],
        "conflicts": [],
        "diff": token_diff(edit.before, edit.after),
    }


def _joined(content: Any) -> str:
    """A chat template that knows no parts behaves like this."""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
