"""Request body for promoting edits. Independent of the service."""

from typing import Annotated

from pydantic import Field

from app.api.schemas.base import EditId, Incoming, Namespace, Reason
from app.domain.edit import MAX_BATCH_EDITS


class PromoteBody(Incoming):
    """Edits of one namespace to make in another."""

    from_namespace: Namespace
    to_namespace: Namespace
    ids: Annotated[list[EditId], Field(min_length=1, max_length=MAX_BATCH_EDITS)] | None = Field(
        default=None, description="Ids of the edits; if left out, all live edits of `from_namespace`."
    )
    dry_run: bool = Field(default=False, description="Fit, verify and report each, but do not commit.")
    reason: Reason | None = Field(default=None, description="Replaces the reason of each edit.")
