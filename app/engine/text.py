"""Between text and token ids, exactly as served: a prompt is tokenised in one way, whoever asks."""

from collections.abc import Sequence
from typing import Any

from app.domain.errors import InvalidRequest


class Text:
    """The tokenizer's two directions. Prompts get the tokenizer's own special tokens (a BOS, where it has one)."""

    def __init__(self, tokenizer: Any, eos_id: int | None, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._eos_id = eos_id
        self._max_tokens = max_tokens
        self._special = frozenset(tokenizer.all_special_ids)

    def encode(self, prompt: str) -> tuple[int, ...]:
        """Raises InvalidRequest for a prompt without tokens, or with more than a sequence may have."""
        ids = tuple(self._tokenizer(prompt).input_ids)
        if not ids:
            raise InvalidRequest("The prompt is empty: send at least one character that the tokenizer knows.")
        if len(ids) >= self._max_tokens:
            raise InvalidRequest(
                f"The prompt has {len(ids)} tokens; a sequence here holds {self._max_tokens} with its answer. "
                "Shorten the prompt, or raise max_sequence_tokens as far as the model allows.",
                prompt_tokens=len(ids),
                limit=self._max_tokens,
            )
        return ids

    def encode_target(self, prompt: str, target: str) -> tuple[int, ...]:
        """The target's ids as they follow the prompt, end-of-text last. Raises InvalidRequest if there are none."""
        joint = prompt + target if prompt[-1:].isspace() else f"{prompt} {target}"
        before = self._tokenizer(prompt).input_ids
        whole = self._tokenizer(joint).input_ids
        if whole[: len(before)] == before:
            ids = whole[len(before) :]
        else:  # the tokenizer merges across the border: a prompt is never re-tokenised by its answer, so nor here
            ids = self._tokenizer(joint[len(prompt) :], add_special_tokens=False).input_ids
        if not self.decode(ids).strip():
            raise InvalidRequest("`target` has no text that the tokenizer knows: give the answer in plain text.")
        if len(before) + len(ids) + 1 > self._max_tokens:
            raise InvalidRequest(
                f"Prompt and target together have {len(before) + len(ids)} tokens; "
                f"a sequence of this server holds {self._max_tokens}. Shorten one of them.",
                limit=self._max_tokens,
            )
        return (*ids, self._eos_id) if self._eos_id is not None else tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def is_special(self, token_id: int) -> bool:
        return token_id in self._special
