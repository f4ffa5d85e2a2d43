"""What is stored of an edit's scope: texts and a bound, never vectors. Another encoder reads the same texts anew."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.domain.errors import IncompatibleEdit


class ScopeRecord(BaseModel):
    """An edit's scope as the log holds it. It is read from a log that others may write to."""

    model_config = ConfigDict(strict=True, frozen=True)

    keys: list[str] = Field(min_length=1)
    made: list[str] = []
    counter: list[str] = []
    misses: list[str] = []
    names: list[list[str]] = []
    """Folded words of each name that it goes by; none: it names nobody."""
    given: bool = False
    """Whether the names were given: then one of them must be said."""
    bound: float = Field(gt=0, lt=1)
    """How likely a question must be to ask the same."""
    widened: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Divides the odds of the bound."""
    rate: float = Field(default=0.0, ge=0, le=1)
    """Share of other questions that are expected to be answered by it."""
    rests_on: int = Field(default=0, ge=0)
    """Other questions that the bound was calibrated on."""
    encoder: str = ""
    """Fingerprint of the encoder that it was calibrated with."""


def read_record(edit_id: str, learned: Any) -> ScopeRecord:
    """Raises IncompatibleEdit for what cannot be read."""
    try:
        return ScopeRecord.model_validate(learned)
    except ValidationError as error:
        raise IncompatibleEdit(f"What the edit {edit_id} learned of its scope cannot be read: {error}") from error
