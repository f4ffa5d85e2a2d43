"""Edit requests and committed edits, as plain values. Tensors travel as opaque bytes in safetensors format."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from app.domain.errors import InvalidRequest

NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NAMESPACE_RULE = "1 to 64 letters, digits, '_', '.' or '-', beginning with a letter or digit"
SINCE = "since"
"""The key in a field's metadata for the schema of the log that the field came with. Older entries do not have the
field."""
FIT_MARK = "@"
"""The character between an edit's id and a revision in the id of a later fit."""
MAX_BATCH_EDITS = 1_000
"""The most edits that one request may make, or promote."""
MAX_PROBES = 1_000
"""The most probes of a namespace."""
MOST_WIDEN = 10.0
"""The most that one request may multiply or divide the odds of a scope by."""
MOST_WIDENED = 100.0
"""The most that the odds of a scope may be multiplied or divided by, over all changes."""


def fit_id_of(edit_id: str, revision: int) -> str:
    """Id of the fit that an edit was given at a revision."""
    return f"{edit_id}{FIT_MARK}{revision}"


def edit_id_of(fit_id: str) -> str:
    """Id of the edit that a fit belongs to. An edit's first fit carries the edit's own id."""
    return fit_id.partition(FIT_MARK)[0]


def check_widen(factor: float | None, most: float = MOST_WIDEN) -> None:
    """Raises InvalidRequest for a factor on a scope's odds that is out of range."""
    if factor is not None and not 1 / most <= factor <= most:
        raise InvalidRequest(
            f"`widen` must be from {1 / most:g} to {most:g}: it multiplies the odds at which a question counts as the "
            "same."
        )


class State(StrEnum):
    """State of an edit at the ledger's head. Only a `live` edit may answer."""

    STAGED = "staged"
    LIVE = "live"
    DISABLED = "disabled"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRequest:
    """A requested correction: this prompt, and every question that asks the same, is to be answered with `target`."""

    prompt: str
    target: str
    subject: str | None = None
    aliases: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()
    counter_examples: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    editor: str = "auto"
    preset: str = "serving"
    namespace: str = "default"
    seed: int = 0
    reason: str | None = None
    expires_in_s: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    supersede: tuple[str, ...] = ()
    force: bool = False
    promoted_from: str | None = field(default=None, metadata={SINCE: 6})
    """The edit, in another namespace, that it was made of."""
    widen: float | None = field(default=None, metadata={SINCE: 7})
    """The factor on the odds at which a question counts as the same; None leaves them as they are learned."""

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InvalidRequest("`prompt` is empty: give the prompt whose answer is to change.")
        if not self.target.strip():
            raise InvalidRequest("`target` is empty: give the answer that the prompt should have.")
        if not NAMESPACE.fullmatch(self.namespace):
            raise InvalidRequest(f"`namespace` {self.namespace!r} is not a name: use {NAMESPACE_RULE}.")
        if self.expires_in_s is not None and not 0 < self.expires_in_s < math.inf:
            raise InvalidRequest("`expires_in` must be a positive number of seconds; leave it out for no expiry.")
        for name in ("aliases", "paraphrases", "counter_examples", "probes"):
            if any(not text.strip() for text in getattr(self, name)):
                raise InvalidRequest(f"`{name}` holds an empty text: remove it.")
        check_widen(self.widen, MOST_WIDEN if self.promoted_from is None else MOST_WIDENED)
        if self.subject is not None and not self.subject.strip():
            raise InvalidRequest("`subject` is empty: leave it out, or name who or what the prompt is about.")

    def digest(self) -> str:
        """Hash of what is asked for; tells a repeated request from a different one under the same idempotency key."""
        content = asdict(self)
        for name in ("promoted_from", "widen"):
            if content[name] is None:  # as it was hashed before there was this field
                del content[name]
        if self.promoted_from is not None:  # the rest is that of the edit it is made of, which may be retuned meanwhile
            content = {name: getattr(self, name) for name in ("promoted_from", "namespace", "reason")}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A fitted edit as the log records it. Nothing in it depends on any other edit."""

    id: str
    request: EditRequest
    editor: str
    created_at_s: float
    """Unix time at which the request was accepted."""
    expires_at_s: float | None
    supersedes: tuple[str, ...]
    model_fingerprint: str
    """Fingerprint of the model, tokenizer and site that the tensors were fitted on."""
    before: str
    after: str
    report: Mapping[str, Any]
    """Measurements taken before the commit (JSON values)."""
    learned: Mapping[str, Any]
    """The editor's scalars (JSON values), such as GRACE's radius; immutable once committed."""
    tensors: bytes
    """The editor's tensors in safetensors format."""

    @property
    def editor_key(self) -> str:
        """Editor and preset as one word; the default preset is left out."""
        return self.editor if self.request.preset == "serving" else f"{self.editor}/{self.request.preset}"
