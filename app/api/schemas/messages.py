"""The messages of a conversation, in OpenAI's form, both in questions and in corrections."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from app.api.schemas.base import MAX_INPUT_CHARS, Incoming

Text = Annotated[str, Field(max_length=MAX_INPUT_CHARS)]


class TextPart(Incoming):
    type: Literal["text"]
    text: Text


class Message(Incoming):
    """One turn. Images and sound are not accepted."""

    model_config = ConfigDict(extra="ignore")  # clients send back what they received: refusal, annotations, audio

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1)] | None = Field(default=None, validate_default=True)
    name: str | None = None

    @field_validator("content")
    @classmethod
    def _said(cls, content: Any, info: ValidationInfo) -> Any:
        """Only an assistant's message may lack a content, when it called tools or refused."""
        role = info.data.get("role", "assistant")
        if content is None and role != "assistant":
            raise ValueError(f"is missing: a message of the role {role!r} needs a text")
        return content

    @property
    def turn(self) -> dict[str, Any]:
        """The turn in the form of chat templates; `developer` is OpenAI's newer word for `system`."""
        content = [part.model_dump() for part in self.content] if isinstance(self.content, list) else self.content or ""
        return {"role": "system" if self.role == "developer" else self.role, "content": content}

    @property
    def length(self) -> int:
        """The length of the message, in characters."""
        parts = self.content if isinstance(self.content, list) else ()
        return sum(len(part.text) for part in parts) if parts else len(self.turn["content"])


def turns_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [each.turn for each in messages]
