"""Parameters and results of a generation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from app.domain.edit import NAMESPACE, NAMESPACE_RULE
from app.domain.errors import DeadlineExceeded, InvalidRequest

FinishReason = Literal["length", "eos_token", "stop_sequence"]
MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationParameters:
    """Decoding parameters, and which edits are visible. Decoding is greedy unless `do_sample` or a temperature is
    given."""

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
    """Revision whose edits are visible (time travel within the history window)."""
    min_revision: int | None = None
    """Revision that must be applied here before the request starts (read your writes)."""
    explain: bool = False
    """Report the nearest edit when none answers."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, value added to its logit) before sampling."""
    top_logprobs: int | None = None
    """Number of likeliest alternatives to report per token, along with the token's own log probability; None: report
    neither."""
    token_logprobs: bool = True
    """False: nobody reads `Token.logprob`, so that an engine for which it is extra work may leave it out."""
    timeout_s: float | None = None
    """Seconds from arrival after which the request fails with DeadlineExceeded."""
    ignore_eos: bool = False
    """Generate past end-of-text up to `max_new_tokens`; used by speed measurements."""
    forced: tuple[int, ...] = ()
    """Token ids to emit in order, whatever the model would choose (teacher forcing)."""

    counted: bool = True
    """True if a user of the namespace asked; otherwise hits and recent prompts do not count the request."""

    json_schema: str | None = None
    """JSON Schema, as text, that constrains the answer."""

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
            self.top_logprobs is None or 0 <= self.top_logprobs <= MAX_TOP_LOGPROBS,
            f"At most {MAX_TOP_LOGPROBS} of the likeliest tokens are returned.",
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

    def due(self, began: float) -> float | None:
        """The time at which the timeout of a request that came at `began` runs out, on the same clock."""
        return None if self.timeout_s is None else began + self.timeout_s

    def too_late(self, generated_tokens: int) -> DeadlineExceeded:
        """The error of a request whose timeout ran out after this many tokens."""
        return DeadlineExceeded(
            f"The answer was not whole within {self.timeout_s:g} s: ask for fewer tokens, or give more time.",
            generated_tokens=generated_tokens,
        )


@dataclass(frozen=True, slots=True)
class Signal:
    """A measurement of the scope decision and the bound that it was compared with."""

    value: float
    bound: float


@dataclass(frozen=True, slots=True)
class Hit:
    """An edit in whose scope the prompt is, and why."""

    edit_id: str
    editor: str
    signals: Mapping[str, Signal] = field(default_factory=dict)
    why: str = ""
    """The reason in words: the nearest key, how sure the decision is, and what speaks against it."""


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. `text` is what can be shown after it: the bytes of an incomplete character are held back,
    and so is a possible beginning of a stop text."""

    id: int
    text: str
    logprob: float
    """NaN if it was left out, as no `token_logprobs` were asked for."""
    special: bool
    likeliest: bool = True
    """True if greedy decoding without penalties would have chosen it, which is not known without `logprob`."""
    ranked: tuple["RankedToken", ...] = ()
    """The token itself, then the alternatives, likeliest first; empty without `top_logprobs`."""
    begins: int = 0
    """Offset in the answer, in characters, at which the token's own text begins."""
    own: str = ""
    """The characters that it completes, including those held back or cut off by a stop text."""
    ends: bool = False
    """True if it is the end-of-text token that ended the answer."""


@dataclass(frozen=True, slots=True)
class RankedToken:
    """A candidate token at one position, as text, with its log probability."""

    id: int
    text: str
    logprob: float
    raw: bytes = b""
    """Its bytes; they need not form whole characters."""
    special: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A finished answer. `text` continues the prompt exactly, up to end-of-text or a stop text."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    tokens: tuple[Token, ...]
    seed: int | None
    revision: int
    hits: tuple[Hit, ...]
    """The edit that answered: its target was said in full, or as far as the token limit or a stop text allowed."""
    not_given: tuple[Hit, ...] = ()
    """The edit in whose scope the prompt is, if its target was not said."""
    nearest: Hit | None = None
    """The nearest edit, if no edit is in scope and `explain` asks for it."""
    uncertain: bool = False
    """True if the scope decision fell into the uncertain band."""

    @property
    def said(self) -> str:
        """The text without white space at its ends; this form is compared with targets and shown to people."""
        return self.text.strip()

    @property
    def reached(self) -> tuple[Hit, ...]:
        """The edit in whose scope the prompt is, whether or not its target was said."""
        return (*self.hits, *self.not_given)
