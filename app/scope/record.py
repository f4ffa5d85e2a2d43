"""The stored form of an edit's scope: texts and a bound, never vectors, so that another encoder can read the texts."""

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
    """The folded words of each of the edit's names. An edit without names asks for none."""
    given: bool = False
    """True if the names were given; then a question must say one of them."""
    bound: float = Field(gt=0, lt=1)
    """The probability, of asking the same, that a question must reach."""
    widened: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """The factor that divides the odds of the bound."""
    rate: float = Field(default=0.0, ge=0, le=1)
    """The expected share of other questions that the edit answers."""
    rests_on: int = Field(default=0, ge=0)
    """The number of other questions on which the bound was calibrated."""
    encoder: str = ""
    """The fingerprint of the encoder with which the bound was calibrated."""


def read_record(edit_id: str, learned: Any) -> ScopeRecord:
    """Parse a stored record. Raises IncompatibleEdit if it is invalid."""
    try:
        return ScopeRecord.model_validate(learned)
    except ValidationError as error:
        raise IncompatibleEdit(
            f"The scope of the edit {edit_id} cannot be read ({error}): restore the log from a copy."
        ) from error
