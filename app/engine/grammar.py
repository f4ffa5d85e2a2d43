"""JSON answers: which tokens a schema allows next. The only module that knows llguidance."""

import json
import threading
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from app.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

WHITESPACE = {"whitespace_flexible": True, "whitespace_pattern": r"\n? {0,16}"}
"""White space allowed between the parts of an answer; bounded, or a small model may emit blanks until its tokens run
out."""
SEPARATORS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""White space under vLLM, whose version of llguidance, 1.7, repeats that pattern without bound."""
MAX_LEXER_STATES = 20_000
"""Maximum number of states of a schema's lexer, about 2 KB each; an answer whose schema needs more ends with an
error."""
CACHED_SCHEMAS = 16
"""Number of compiled schemas that are cached."""


class Grammar:
    """State of one answer within its schema."""

    def __init__(self, matcher: "LLMatcher", lark: str) -> None:
        """`lark`: the grammar as text for vLLM, which follows it itself."""
        self._matcher, self.lark = matcher, lark

    def begin(self) -> "Grammar":
        """A copy of the state, for another answer."""
        return Grammar(self._matcher.deep_copy(), self.lark)

    @property
    def problem(self) -> str | None:
        """Why the answer cannot continue, such as a schema exceeding the limits on work per token; None if it can."""
        return _one_line(self._matcher.get_error()) if self._matcher.is_error() else None

    def allowed(self) -> Tensor:
        """(V,) bool: the tokens allowed next, including end-of-text once the answer is complete; all tokens if there is
        a problem."""
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) > 0
        return allowed if self.problem is None else torch.ones_like(allowed)

    def advance(self, token_id: int) -> None:
        self._matcher.consume_token(token_id)

    def accepts(self, token_ids: Sequence[int]) -> bool:
        """True if the answer may continue with all these tokens."""
        return self._matcher.validate_tokens(list(token_ids)) == len(token_ids)


class Grammars:
    """Compiles schemas for one tokenizer; thread-safe. `vocabulary`: number of logits; `white_space`: WHITESPACE, or
    SEPARATORS where vLLM follows the grammar."""

    def __init__(
        self,
        tokenizer: Any,
        eos_ids: Collection[int],
        vocabulary: int,
        white_space: Mapping[str, Any] = WHITESPACE,
    ) -> None:
        self._tokenizer, self._eos_ids, self._vocabulary = tokenizer, sorted(eos_ids), vocabulary
        self._white_space = white_space
        self._lock = threading.Lock()
        self._tokens: LLTokenizer | None = None
        self.compiled = lru_cache(maxsize=CACHED_SCHEMAS)(self._compiled)
        """JSON schema as text -> state at the beginning of an answer. Raises InvalidRequest for an unsupported
        schema."""

    def _compiled(self, schema: str) -> Grammar:
        if find_spec("llguidance") is None:
            raise InvalidRequest(
                "`response_format` needs the package llguidance on the server: pip install 'errata[json]'."
            )
        from llguidance import LLMatcher, LLParserLimits

        tokens, schema = self._read_tokens(), _with_options(schema, self._white_space)
        limits = LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)
        problem = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(schema), tokens, limits=limits)
        if not problem:
            matcher = LLMatcher(tokens, LLMatcher.grammar_from_lark(_lark(schema)), log_level=0, limits=limits)
            problem = matcher.get_error()
        if problem:
            raise InvalidRequest(
                f"`response_format` has a schema that answers cannot be held to: {_one_line(problem)}. "
                "Leave out what is not supported, or ask without it. See /help/api#json-answers."
            )
        return Grammar(matcher, _lark(schema))

    def _read_tokens(self) -> "LLTokenizer":
        from llguidance.hf import from_tokenizer

        with self._lock:  # takes a second for a large vocabulary
            if self._tokens is None:
                if not self._tokenizer.is_fast:
                    raise InvalidRequest(
                        "`response_format` needs a tokenizer in the form of the library tokenizers, which this model "
                        "does not have: ask without it."
                    )
                self._tokens = from_tokenizer(self._tokenizer, n_vocab=self._vocabulary, eos_token=self._eos_ids)
            return self._tokens


def _with_options(schema: str, options: Mapping[str, Any]) -> str:
    return json.dumps({**json.loads(schema), "x-guidance": options})  # overrides those that the schema may name


def _lark(schema: str) -> str:
    """The grammar of an answer. It allows a leading blank, with which many tokenizers begin words."""
    return f'start: BLANK? answer\nBLANK: " "\nanswer: %json {schema}'


def _one_line(message: str) -> str:
    return " ".join(message.replace("<non-verbose/>", "").split()).rstrip(".")
