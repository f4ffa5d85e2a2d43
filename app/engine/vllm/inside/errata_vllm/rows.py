"""Decides which row of an edit's value each position of a step receives. Pure Python: it knows neither torch nor vLLM.

The rule depends on absolute positions and on the tokens that are fed alone. It therefore holds for a prompt in chunks,
for a prompt whose beginning the prefix cache knows, and for a preempted request, whose prompt and answer are computed
again. It also holds for drafted tokens: those after one that vLLM does not accept are computed anew.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EDIT, BEGUN, SESSION = "errata_edit", "errata_begun", "errata_session"
"""The keys in a request's `extra_args`: the edit that acts, the number of its target's tokens that end the prompt, and
the session in which its rows were loaded, which nobody else knows."""
STATES = "errata_states"
"""The key in a request's `extra_args`: the name under which its prompt's states are kept until they are fetched."""
LOOKAHEAD = "errata_vllm.lookahead.Lookahead"
DRAFTERS = ("ngram", LOOKAHEAD)
"""The drafters of speculative decoding beside which edits are served: vLLM's own, by n-grams, and a class."""
CORES = "ERRATA_VLLM_CORES"
"""The variable that names the cores on which vLLM may run."""
ADAPTER_PATH = "errata://edit"
"""The path, which vLLM asks for, of a LoRA that is in no folder."""


@dataclass(frozen=True, slots=True)
class StepSpan:
    """The `count` positions of a request, from `first` on, that a step computes."""

    first: int
    count: int
    prompt_tokens: int
    generated: Sequence[int]
    """The token ids of the answer so far, and after them those drafted for this step."""


def acting_rows(span: StepSpan, target: Sequence[int], begun: int = 0) -> list[tuple[int, int]]:
    """Return (position counted from the span's first, row of the value) where the value acts.

    The position that predicts the target's token k receives row k, and only while the answer is the target's beginning:
    an answer that has left the target is not pulled back. Raises ValueError if the step computes a position whose
    token is not known yet, because then the rule cannot be applied.
    """
    acting: list[tuple[int, int]] = []
    last = span.prompt_tokens - 1
    for position in range(max(span.first, last), span.first + span.count):
        answered = position - last
        row = begun + answered
        if row >= len(target):
            break
        if answered > len(span.generated):
            raise ValueError(f"position {position} of a prompt of {span.prompt_tokens} tokens has no token yet")
        if list(span.generated[:answered]) != list(target[begun:row]):
            break
        acting.append((position - span.first, row))
    return acting


def tokens_ahead(generated: Sequence[int], target: Sequence[int], begun: int = 0) -> Sequence[int]:
    """Return the tokens of the target that come after the answer so far; none once it has left the target."""
    given = begun + len(generated)
    return target[given:] if tuple(generated) == tuple(target[begun:given]) else ()


def chosen_edit(extra_args: Mapping[str, Any] | None, session: str = "") -> tuple[str, int] | None:
    """Return the edit that a request asks for and how much of its target the prompt holds; None if it asks for none,
    or in another session than this one.

    Raises ValueError for values of a wrong type."""
    if not extra_args or EDIT not in extra_args or extra_args.get(SESSION, "") != session:
        return None
    edit_id, begun = extra_args[EDIT], extra_args.get(BEGUN, 0)
    if not isinstance(edit_id, str) or not isinstance(begun, int) or begun < 0:
        raise ValueError(f"{EDIT} must be a text and {BEGUN} a number from 0 on, not {edit_id!r} and {begun!r}")
    return edit_id, begun


def chosen_name(extra_args: Mapping[str, Any] | None) -> str | None:
    """Return the name under which a request wants its states kept; None if it does not ask for them."""
    name = None if not extra_args else extra_args.get(STATES)
    return name if isinstance(name, str) else None


def value_digest(target: Sequence[int], value: bytes) -> str:
    """Return a name of an edit's value that changes with any of its numbers."""
    return hashlib.sha256(repr(tuple(target)).encode() + value).hexdigest()[:32]


def cache_salt(digest: str, prompt_tokens: int, begun: int) -> str:
    """Return the salt that keeps keys and values computed under an edit apart in the prefix cache.

    Besides the value it names where the rows begin. A longer prompt that begins with this prompt and its answer is
    computed without the rows up to its own last token, so that the cached blocks of this one would be wrong for it.
    """
    return f"{digest}-{prompt_tokens}-{begun}"  # its HTTP API refuses a salt with a slash
