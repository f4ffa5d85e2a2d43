"""What may be asked of a generation, and what one answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from app.domain.edit import NAMESPACE, NAMESPACE_RULE
from app.domain.errors import InvalidRequest

FinishReason = Literal["length", "eos_token", "stop_sequence"]
MOST_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationParameters:
    """How to decode, and which edits to see. Greedy unless `do_sample` or a temperature is given."""

    max_new_tokens: int = 100
    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] = ()
    return_full_text: bool = False
    namespace: str = "default"
    edits: Literal["live", "off"] = "live"
    exclude: tuple[str, ...] = ()
    revision: int | None = None
    """See the edits as they were at this revision (time travel, inside the history window)."""
    min_revision: int | None = None
    """Wait until this revision is applied here (read your writes)."""
    explain: bool = False
    """Where no edit answers, tell which was nearest to it."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, what is added to its logit), before any choice."""
    top_logprobs: int | None = None
    """Tell of each token how likely it was, and of so many that were likeliest in its place; None: tell neither."""
    timeout_s: float | None = None
    """The request ends with DeadlineExceeded if it has not ended by then; counted from its arrival."""
    ignore_eos: bool = False
    """Go on past end-of-text until `max_new_tokens`, for measurements of speed."""
    forced: tuple[int, ...] = ()
    """Token ids that are taken one after the other, whatever the model would choose (teacher forcing)."""

    counted: bool = True
    """Whether the question is one of the namespace's users: hits and recent prompts leave out what is not."""

    json_schema: str | None = None
    """The answer is JSON that this JSON Schema, as text, allows."""

    def __post_init__(self) -> None:
        def check(ok: bool, message: str) -> None:
            if not ok:
                raise InvalidRequest(message)

        check(self.max_new_tokens >= 1, "`max_new_tokens` must be at least 1.")
        check(
            self.temperature is None or self.temperature > 0, "`temperature` must be above 0; leave it out for greedy."
        )
        check(self.top_k is None or self.top_k >= -1, "`top_k` must be at least 1; 0, -1 or none are for all tokens.")
        check(self.top_p is None or 0 <= self.top_p <= 1, "`top_p` must be from 0 to 1.")
        check(self.min_p is None or 0 <= self.min_p <= 1, "`min_p` must be between 0 and 1.")
        check(self.repetition_penalty is None or self.repetition_penalty > 0, "`repetition_penalty` must be above 0.")
        for name in ("frequency_penalty", "presence_penalty"):
            value = getattr(self, name)
            check(value is None or -2 <= value <= 2, f"`{name}` must be between -2 and 2.")
        check(self.seed is None or -(2**63) <= self.seed < 2**63, "`seed` must be an integer of 64 signed bits.")
        check(len(self.stop) <= 16 and all(self.stop), "`stop` takes at most 16 texts, none of them empty.")
        check(bool(NAMESPACE.fullmatch(self.namespace)), f"`namespace` is not a name: use {NAMESPACE_RULE}.")
        check(len(self.logit_bias) <= 300, "`logit_bias` takes at most 300 tokens.")
        check(all(-100 <= bias <= 100 for _, bias in self.logit_bias), "`logit_bias` goes from -100 to 100.")
        check(
            self.top_logprobs is None or 0 <= self.top_logprobs <= MOST_TOP_LOGPROBS,
            f"At most {MOST_TOP_LOGPROBS} of the likeliest tokens are told.",
        )
        check(
            self.json_schema is None or not self.ignore_eos,
            "`ignore_eos` goes on past the end of an answer, which `response_format` does not allow: leave one out.",
        )
        check(self.timeout_s is None or self.timeout_s > 0, "`timeout` must be above 0 seconds.")
        check(self.revision is None or self.revision >= 0, "`revision` must not be negative.")
        check(self.min_revision is None or self.min_revision >= 0, "`min_revision` must not be negative.")

    @property
    def samples(self) -> bool:
        return self.do_sample or self.temperature is not None


@dataclass(frozen=True, slots=True)
class Signal:
    """One measurement of the scope decision and the bound it was held against."""

    value: float
    bound: float


@dataclass(frozen=True, slots=True)
class Hit:
    """The edit that answered, and why it was in scope."""

    edit_id: str
    editor: str
    signals: Mapping[str, Signal] = field(default_factory=dict)
    why: str = ""
    """The same in words: the key that was nearest, how sure it is, what speaks against it."""


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. `text` is what it lets be shown: bytes of a character are held back until it is whole, and
    what may begin a stop text until it is clear that it does not."""

    id: int
    text: str
    logprob: float
    special: bool
    likeliest: bool = True
    """Whether the model would have chosen it greedily, without penalties."""
    ranked: tuple["Ranked", ...] = ()
    """Where it was asked for: the token itself, then the likeliest in its place, the likeliest first."""
    begins: int = 0
    """The character of the answer at which its own text begins."""
    own: str = ""
    """The characters that it makes whole, also where they are held back or cut off by a stop text."""
    ends: bool = False
    """Whether it is the end-of-text that ended the answer."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A token that could stand in a place, as text of its own, and how likely the model held it there."""

    id: int
    text: str
    logprob: float
    raw: bytes = b""
    """Its bytes, where they are no whole characters too."""
    special: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A finished answer. `text` goes on with the prompt to the letter, up to end-of-text or a stop text."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    tokens: tuple[Token, ...]
    seed: int | None
    revision: int
    hits: tuple[Hit, ...]
    """The edit that answered: its target was said, whole, or as far as tokens or a stop text let it."""
    not_given: tuple[Hit, ...] = ()
    """The edit in whose scope the prompt is, where its target was not said."""
    nearest: Hit | None = None
    """Where no edit answers and it was asked for: the edit that was nearest to it."""
    uncertain: bool = False
    """Whether the scope index was uncertain whether an edit answers."""

    @property
    def said(self) -> str:
        """The text without white space at its ends, as it is compared with a target, and as people are told it."""
        return self.text.strip()

    @property
    def reached(self) -> tuple[Hit, ...]:
        """The edit in whose scope the prompt is, whatever was said."""
        return (*self.hits, *self.not_given)
