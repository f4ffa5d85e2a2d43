"""Conversion between text and token ids, exactly as served: a prompt is tokenised in one way for everyone."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from app.domain.errors import InvalidRequest
from app.engine.controls import Controls

_PARTIAL = "\N{REPLACEMENT CHARACTER}"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""Form of a single byte in tokenizers with byte fallback."""
_BYTE_OF = {char: byte for byte, char in bytes_to_unicode().items()}  # type: ignore[no-untyped-call]
"""Character -> byte in byte-level tokenizers."""
CHARACTERS_PER_TOKEN = 8
"""More characters per token than most texts have. A prompt that is longer than a sequence of such tokens is checked by
its beginning first."""


class TextCodec:
    """A tokenizer in both directions. Prompts get its own leading special tokens, such as a BOS."""

    def __init__(self, tokenizer: Any, eos_id: int | None, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._eos_id = eos_id
        self._max_tokens = max_tokens
        self._special = frozenset(tokenizer.all_special_ids)
        self._pieces: dict[int, tuple[str, bytes]] = {}
        self._word: Sequence[int] = tokenizer("a", add_special_tokens=False).input_ids
        self.encode = lru_cache(maxsize=16)(self._encode)
        """Token ids of a prompt. Raises InvalidRequest for a prompt without tokens or with more than a sequence
        holds."""

    @property
    def chats(self) -> bool:
        """True if there is a chat template for rendering conversations."""
        return getattr(self._tokenizer, "chat_template", None) is not None

    @cached_property
    def controls(self) -> Controls:
        return Controls(self._tokenizer, self._turn)

    def render(self, messages: Sequence[Mapping[str, Any]], *, continues: bool = False) -> str:
        """Renders a conversation with the model's chat template, its contents as literal text. A content in parts is
        joined as the template joins them, or by line breaks if it does not support parts. With `continues` the last
        message is left open and no new turn begins. Raises InvalidRequest."""
        contents = [{**each, "content": self._content(each["content"])} for each in messages]
        return self._rendered(contents, continues=continues)

    def _content(self, content: str | Sequence[Mapping[str, str]]) -> Any:
        if isinstance(content, str):
            return self.controls.as_text(content)
        texts = self.controls.as_texts([part["text"] for part in content])
        return [{"type": "text", "text": text} for text in texts] if self._takes_parts else "\n".join(texts)

    @cached_property
    def _takes_parts(self) -> bool:
        """True if the chat template reads a list of content parts, rather than printing the list."""
        first, second = "XFIRSTX", "XSECONDX"
        try:
            parts = [{"type": "text", "text": text} for text in (first, second)]
            prompt = self._rendered([{"role": "user", "content": parts}])
        except InvalidRequest:
            return False
        return first in prompt and second in prompt and "'text'" not in prompt and '"text"' not in prompt

    def _rendered(self, messages: Sequence[Mapping[str, Any]], *, continues: bool = False) -> str:
        if not self.chats:
            raise InvalidRequest("This model has no chat template: send `prompt`, as you send it to /generate.")
        try:
            how = {"add_generation_prompt": not continues, "continue_final_message": continues}
            return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, **how))
        except Exception as error:  # a template is a third party's program and may raise anything
            raise InvalidRequest(f"The model's chat template refuses these messages: {error}") from error

    def question(self, prompt: str) -> tuple[int, int]:
        """Start and end, in characters, of a prompt's question: the last user turn of a rendered conversation, or all
        of a bare prompt. History and system prompts are not part of the question."""
        header, footer = self._turn
        if header and header in prompt:
            start = prompt.rindex(header) + len(header)
            end = prompt.find(footer, start)
            if start < end:
                return start, end
        return 0, len(prompt)

    def is_chat(self, prompt: str) -> bool:
        """True if the prompt is a conversation rendered by the chat template."""
        return self.question(prompt) != (0, len(prompt))

    def begun(self, prompt: str) -> str:
        """The part of the model's answer that a rendered conversation already contains after its last user turn."""
        _, end = self.question(prompt)
        return self.controls.plain(prompt[end + len(self._turn[1]) :]) if self.is_chat(prompt) else ""

    def turns(self, prompt: str) -> tuple[str, ...]:
        """Turns of a rendered conversation without its system prompt: user and model alternate, and the last user turn
        ends it. A bare prompt is its only turn."""
        start, end = self.question(prompt)
        header, footer = self._turn
        if (start, end) == (0, len(prompt)):
            return (self.controls.plain(prompt),)
        turns: list[str] = []
        for piece in prompt[: start - len(header)].split(header)[1:]:
            user, _, model = piece.partition(footer)
            turns += [self._plain(user), self._plain(model)]
        return (*turns, self.controls.plain(prompt[start:end]))

    def _plain(self, text: str) -> str:
        """The text without marks and without the special tokens that end a turn."""
        for each in self._tokenizer.all_special_tokens:
            text = text.replace(each, "")
        return self.controls.plain(text).strip()

    def without_last(self, ids: Sequence[int], count: int) -> str:
        """The question of a prompt without its last `count` tokens."""
        prompt = self.decode(ids[:-count])
        start, end = self.question(prompt)
        return prompt[start:end]

    @cached_property
    def _turn(self) -> tuple[str, str]:
        """The texts that the chat template writes before and after the last user turn; empty strings without a
        template."""
        question, answer = "XQUESTIONX", "XANSWERX"
        try:
            first = self._rendered([{"role": "user", "content": question}])
            later = self._rendered(
                [{"role": r, "content": c} for r, c in (("user", "?"), ("assistant", answer), ("user", question))]
            )
            (before, footer), header = first.split(question), later.split(answer)[1].split(question)[0]
        except (InvalidRequest, ValueError, IndexError):  # no template, or one that alters its input
            return "", ""
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(reversed(before), reversed(header), strict=False))
        return "".join(a for a, _ in pairs)[::-1], footer

    def _whole(self, text: str) -> list[int]:
        """Token ids with the tokenizer's leading special tokens, unless a chat template has already added them."""
        first, *others = self.controls.pieces(text)
        ids: list[int] = list(self._first(first).input_ids)
        for piece in others:
            ids += self._tokenizer(piece, add_special_tokens=False).input_ids
        return ids

    def _first(self, text: str, **how: Any) -> Any:
        bos = self._tokenizer.bos_token
        return self._tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)), **how)

    def _encode(self, prompt: str) -> tuple[int, ...]:
        self._check_beginning(prompt)
        ids = tuple(self._whole(prompt))
        if not ids:
            raise InvalidRequest("The prompt is empty: send at least one character that the tokenizer knows.")
        if len(ids) >= self._max_tokens:
            raise InvalidRequest(
                f"The prompt has {len(ids)} tokens; a sequence here holds {self._max_tokens} with its answer. "
                "Shorten the prompt, or raise ERRATA_MAX_SEQUENCE_TOKENS as far as the model "
                "allows. See /help/troubleshooting#the-prompt-is-too-long.",
                prompt_tokens=len(ids),
                limit=self._max_tokens,
            )
        return ids

    def _check_beginning(self, prompt: str) -> None:
        """Refuses a prompt that is too long after reading only as much of it as that takes: tokenising a million
        characters takes seconds. Raises InvalidRequest."""
        size = CHARACTERS_PER_TOKEN * self._max_tokens
        # a cut may split the longest token into many
        enough = self._max_tokens + self._longest if size < len(prompt) else 0
        while size < len(prompt):
            if len(self._whole(prompt[:size])) > enough:
                raise InvalidRequest(
                    f"The prompt has more than {self._max_tokens} tokens, which is what a sequence here holds with its "
                    "answer. Shorten the prompt, or raise ERRATA_MAX_SEQUENCE_TOKENS as far as the model "
                    "allows. See /help/troubleshooting#the-prompt-is-too-long.",
                    prompt_tokens=self._max_tokens + 1,
                    limit=self._max_tokens,
                )
            size *= 2

    @cached_property
    def _longest(self) -> int:
        """Upper bound of the characters of a token."""
        return max(map(len, self._tokenizer.get_vocab()))

    def ends(self, prompt: str) -> tuple[int, ...]:
        """Offset in the prompt, in characters, at which each of its tokens ends; 0 for leading special tokens."""
        if self._tokenizer.is_fast:
            first, *others = self.controls.pieces(prompt)
            ends = [end for _, end in self._first(first, return_offsets_mapping=True).offset_mapping]
            before = len(first) + 1  # the mark
            for piece in others:
                tokens = self._tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
                ends += [before + end for _, end in tokens.offset_mapping]
                before += len(piece) + 1
            return tuple(ends)
        ids = self.encode(prompt)
        return tuple(len(self.decode(ids[: at + 1])) for at in range(len(ids)))

    def encode_target(self, prompt: str, target: str) -> tuple[int, ...]:
        """The target's token ids after the prompt, ending with end-of-text. Raises InvalidRequest if the target has
        none."""
        joint = prompt + target if prompt[-1:].isspace() else f"{prompt} {target}"
        before, whole = self._whole(prompt), self._whole(joint)
        if whole[: len(before)] == before:
            ids = whole[len(before) :]
        else:  # the tokenizer merges across the border, but an answer never changes the tokens of its prompt
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
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def piece(self, token_id: int) -> tuple[str, bytes]:
        """(text, bytes) of a token within a text: with its blank, or a special token's name. If the bytes form no whole
        character, the text is a replacement character."""
        if token_id not in self._pieces:
            self._pieces[token_id] = self._piece(token_id)
        return self._pieces[token_id]

    def _piece(self, token_id: int) -> tuple[str, bytes]:
        text = self._after_a_word([token_id], special=True)
        if _PARTIAL not in text:
            return text, text.encode()
        token = str(self._tokenizer.convert_ids_to_tokens(token_id))
        if byte := _BYTE.fullmatch(token):
            return text, bytes.fromhex(byte[1])
        if all(char in _BYTE_OF for char in token):
            return text, bytes(_BYTE_OF[char] for char in token)
        return text, text.encode()

    def continuation(self, ids: Sequence[int]) -> str:
        """Text of ids that follow a word: decoders drop the leading blank of the first word."""
        return self._after_a_word(ids, special=False)

    def _after_a_word(self, ids: Sequence[int], *, special: bool) -> str:
        how = {"skip_special_tokens": not special, "clean_up_tokenization_spaces": False}
        text: str = self._tokenizer.decode([*self._word, *ids], **how)
        return text[len(self._tokenizer.decode(self._word, **how)) :]

    def is_special(self, token_id: int) -> bool:
        return token_id in self._special
