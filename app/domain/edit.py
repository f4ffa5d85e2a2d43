"""An edit: what was asked for, and what was committed. Plain values; tensors travel as opaque bytes (safetensors)."""

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


FIT_MARK = "@"


def fit_id_of(edit_id: str, revision: int) -> str:
    """Names what an edit acts by since it was fitted again at a revision."""
    return f"{edit_id}{FIT_MARK}{revision}"


def edit_id_of(fit_id: str) -> str:
    """The edit that a fit is of: most are an edit's only one, and have its id."""
    return fit_id.partition(FIT_MARK)[0]


class State(StrEnum):
    """Where an edit stands at the ledger's head. `live` is the only state in which it may answer."""

    STAGED = "staged"
    LIVE = "live"
    DISABLED = "disabled"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRequest:
    """A correction that is asked for: this prompt, and whatever asks the same, shall be answered with `target`."""

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

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InvalidRequest("`prompt` is empty: give the prompt whose answer is to change.")
        if not self.target.strip():
            raise InvalidRequest("`target` is empty: give the answer that the prompt shall have.")
        if not NAMESPACE.fullmatch(self.namespace):
            raise InvalidRequest(f"`namespace` {self.namespace!r} is not a name: use {NAMESPACE_RULE}.")
        if self.expires_in_s is not None and not 0 < self.expires_in_s < math.inf:
            raise InvalidRequest("`expires_in` must be a positive number of seconds; leave it out for no expiry.")
        for name in ("aliases", "paraphrases", "counter_examples", "probes"):
            if any(not text.strip() for text in getattr(self, name)):
                raise InvalidRequest(f"`{name}` holds an empty text: remove it.")
        if self.subject is not None and not self.subject.strip():
            raise InvalidRequest("`subject` is empty: leave it out, or name who or what the prompt is about.")

    def digest(self) -> str:
        """A hash of everything that was asked, to tell a repeated request from another one under the same key."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A fitted edit, as it stands in the log for ever. Nothing in it depends on any other edit."""

    id: str
    request: EditRequest
    editor: str
    created_at_s: float
    """Unix time of the request's acceptance."""
    expires_at_s: float | None
    supersedes: tuple[str, ...]
    model_fingerprint: str
    """Model, tokenizer and site that the tensors were fitted on."""
    before: str
    after: str
    report: Mapping[str, Any]
    """What was measured before the commit (JSON values)."""
    learned: Mapping[str, Any]
    """The editor's scalars, frozen (JSON values), such as GRACE's own radius."""
    tensors: bytes
    """The editor's tensors, safetensors format."""

    @property
    def adaptor(self) -> str:
        """The editor under its preset, as one word; the default preset goes without saying."""
        return self.editor if self.request.preset == "serving" else f"{self.editor}/{self.request.preset}"
