"""Parameters that all generating routes share: which edits to see, and decoding options beyond OpenAI's."""

from typing import Annotated, Any, Literal

from pydantic import Field

from app.api.schemas.base import EditIds, documented
from app.api.schemas.defaults import RequestDefaults

SAME = (
    *("top_k", "top_p", "seed", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"),
    *("ignore_eos", "edits", "revision", "min_revision", "namespace"),
)
"""The parameters that the domain knows by the same names."""


class EditVisibility(RequestDefaults):
    top_k: Annotated[int | None, documented(minimum=-1)] = Field(
        default=None, description="Sample from this many of the likeliest tokens; 0 and -1: from all."
    )
    top_p: Annotated[float | None, documented(minimum=0, maximum=1)] = Field(
        default=None, description="Sample from the likeliest tokens that make up this share; 0: from the likeliest one."
    )
    seed: Annotated[int | None, documented(minimum=-(2**63), maximum=2**63 - 1)] = Field(
        default=None,
        description="Makes a sampled answer repeatable. If left out, one is drawn and returned with the answer.",
    )
    min_p: Annotated[float | None, documented(minimum=0, maximum=1)] = None
    repetition_penalty: Annotated[float | None, documented(exclusiveMinimum=0)] = None
    frequency_penalty: Annotated[float | None, documented(minimum=-2, maximum=2)] = None
    presence_penalty: Annotated[float | None, documented(minimum=-2, maximum=2)] = None
    timeout: Annotated[float | None, documented(exclusiveMinimum=0)] = Field(
        default=None,
        description="Seconds from the arrival of a request within which its answer must be whole; else 504.",
    )
    ignore_eos: bool = Field(default=False, description="Go on past end-of-text, to measure speed.")
    edits: Literal["live", "off"] = Field(default="live", description="`off`: what the model says without any edit.")
    exclude: EditIds = Field(default=[], description="Edits that must not answer this request.")
    revision: Annotated[int | None, documented(minimum=0)] = Field(
        default=None, description="See the edits as they were at this revision (time travel)."
    )
    min_revision: Annotated[int | None, documented(minimum=0)] = Field(
        default=None, description="Wait until this revision is applied here (read your writes)."
    )
    namespace: Annotated[str, Field(max_length=64)] = Field(
        default="default", description="The namespace whose edits are seen."
    )

    def shared(self) -> dict[str, Any]:
        """These parameters in the domain's names."""
        same = {name: getattr(self, name) for name in SAME}
        return same | {"timeout_s": self.timeout, "exclude": tuple(self.exclude)}
