"""Between text and token ids, exactly as served: a prompt is tokenised in one way, whoever asks."""

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
"""How tokenizers with a fallback to bytes write one."""
_BYTE_OF = {char: byte for byte, char in bytes_to_unicode().items()}  # type: ignore[no-untyped-call]
"""How byte-level tokenizers write theirs."""
CHARACTERS_A_TOKEN = 8
"""More than most texts have. Of a prompt with more for each token that a sequence holds, a beginning is read first."""


class Text:
    """The tokenizer's two directions. Prompts get the tokenizer's own special tokens (a BOS, where it has one)."""

    def __init__(self, tokenizer: Any, eos_id: int | None, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._eos_id = eos_id
        self._max_tokens = max_tokens
        self._special = frozenset(tokenizer.all_special_ids)
        self._pieces: dict[int, tuple[str, bytes]] = {}
        self.encode = lru_cache(maxsize=16)(self._encode)
        """A prompt as token ids. Raises InvalidRequest for one without tokens, or with more than a sequence takes."""

    @property
    def chats(self) -> bool:
        """Whether there is a chat template to render conversations with."""
        return getattr(self._tokenizer, "chat_template", None) is not None

    @cached_property
    def controls(self) -> Controls:
        return Controls(self._tokenizer, self._turn)

    def render(self, messages: Sequence[Mapping[str, Any]], *, continues: bool = False) -> str:
        """A conversation as the prompt that the model's own chat template makes of it, its contents as text. A content
        in parts is joined as the template joins them, or by line breaks where it knows no parts. Where it `continues`,
        the last message is left open, and nothing begins a new one. Raises InvalidRequest.
        """
        contents = [{**each, "content": self._content(each["content"])} for each in messages]
        return self._rendered(contents, continues=continues)

    def _content(self, content: str | Sequence[Mapping[str, str]]) -> Any:
        if isinstance(content, str):
            return self.controls.as_text(content)
        texts = self.controls.as_texts([part["text"] for part in content])
        return [{"type": "text", "text": text} for text in texts] if self._takes_parts else "\n".join(texts)

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the chat template reads a content that is a list of parts, and does not merely print the list."""
        first, second = "XFIRSTX", "XSECONDX"
        try:
            parts = [{"type": "text", "text": text} for text in (first, second)]
            made = self._rendered([{"role": "user", "content": parts}])
        except InvalidRequest:
            return False
        return first in made and second in made and "'text'" not in made and '"text"' not in made

    def _rendered(self, messages: Sequence[Mapping[str, Any]], *, continues: bool = False) -> str:
        if not self.chats:
            raise InvalidRequest("This model has no chat template: send `prompt`, as you send it to /generate.")
        try:
            how = {"add_generation_prompt": not continues, "continue_final_message": continues}
            return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, **how))
        except Exception as error:  # a template is a program of the model's authors, and may raise what it likes
            raise InvalidRequest(f"The model's chat template refuses these messages: {error}") from error

    def question(self, prompt: str) -> tuple[int, int]:
        """From where to where in a prompt its question stands: of a rendered conversation the last user turn, of any
        other all of it. What stands in the history, or in a system prompt, is not what is asked about."""
        header, footer = self._turn
        if header and header in prompt:
            start = prompt.rindex(header) + len(header)
            end = prompt.find(footer, start)
            if start < end:
                return start, end
        return 0, len(prompt)

    def is_chat(self, prompt: str) -> bool:
        """Whether the prompt is a conversation as the chat template renders it."""
        return self.question(prompt) != (0, len(prompt))

    def begun(self, prompt: str) -> str:
        """What a rendered conversation has the model say already, after its last user turn."""
        _, end = self.question(prompt)
        return self.controls.plain(prompt[end + len(self._turn[1]) :]) if self.is_chat(prompt) else ""

    def turns(self, prompt: str) -> tuple[str, ...]:
        """A rendered conversation's turns without its system prompt, the user's and the model's by turns, the last user
        turn last; any other prompt alone."""
        start, end = self.question(prompt)
        header, footer = self._turn
        if (start, end) == (0, len(prompt)):
            return (self.controls.plain(prompt),)
        found: list[str] = []
        for piece in prompt[: start - len(header)].split(header)[1:]:
            asked, _, answered = piece.partition(footer)
            found += [self._plain(asked), self._plain(answered)]
        return (*found, self.controls.plain(prompt[start:end]))

    def _plain(self, text: str) -> str:
        """As it was written, without the special tokens that end a turn."""
        for each in self._tokenizer.all_special_tokens:
            text = text.replace(each, "")
        return self.controls.plain(text).strip()

    def without_last(self, ids: Sequence[int], count: int) -> str:
        """The question of a prompt without its last so many tokens."""
        prompt = self.decode(ids[:-count])
        start, end = self.question(prompt)
        return prompt[start:end]

    @cached_property
    def _turn(self) -> tuple[str, str]:
        """What the chat template writes before and after the last user turn; empty without a template."""
        asked, said = "XQUESTIONX", "XANSWERX"
        try:
            first = self._rendered([{"role": "user", "content": asked}])
            later = self._rendered(
                [{"role": r, "content": c} for r, c in (("user", "?"), ("assistant", said), ("user", asked))]
            )
            (before, footer), header = first.split(asked), later.split(said)[1].split(asked)[0]
        except (InvalidRequest, ValueError, IndexError):  # no template, or one that changes what it is given
            return "", ""
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(reversed(before), reversed(header), strict=False))
        return "".join(a for a, _ in pairs)[::-1], footer

    def _whole(self, text: str) -> list[int]:
        """With the special tokens in front that the tokenizer adds, unless a chat template has put them there."""
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
                "Shorten the prompt, or raise max_sequence_tokens as far as the model allows.",
                prompt_tokens=len(ids),
                limit=self._max_tokens,
            )
        return ids

    def _check_beginning(self, prompt: str) -> None:
        """Raises InvalidRequest for a text that is too long by its beginning, as far as that must be read to know: a
        million characters would take seconds, whatever comes of them."""
        size = CHARACTERS_A_TOKEN * self._max_tokens
        # a cut may fall into the longest token there is, and make many of it
        enough = self._max_tokens + self._longest if size < len(prompt) else 0
        while size < len(prompt):
            if len(self._whole(prompt[:size])) > enough:
                raise InvalidRequest(
                    f"The prompt has more than {self._max_tokens} tokens, which is what a sequence here holds with its "
                    "answer. Shorten the prompt, or raise max_sequence_tokens as far as the model allows.",
                    prompt_tokens=self._max_tokens + 1,
                    limit=self._max_tokens,
                )
            size *= 2

    @cached_property
    def _longest(self) -> int:
        """Characters of the longest token, at least."""
        return max(map(len, self._tokenizer.get_vocab()))

    def ends(self, prompt: str) -> tuple[int, ...]:
        """Where in the prompt each of its tokens ends, in characters; 0 for special tokens in front."""
        if self._tokenizer.is_fast:
            first, *others = self.controls.pieces(prompt)
            ends = [end for _, end in self._first(first, return_offsets_mapping=True).offset_mapping]
            before = len(first) + 1  # the mark
            for piece in others:
                made = self._tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
                ends += [before + end for _, end in made.offset_mapping]
                before += len(piece) + 1
            return tuple(ends)
        ids = self.encode(prompt)
        return tuple(len(self.decode(ids[: at + 1])) for at in range(len(ids)))

    def encode_target(self, prompt: str, target: str) -> tuple[int, ...]:
        """The target's ids as they follow the prompt, end-of-text last. Raises InvalidRequest if there are none."""
        joint = prompt + target if prompt[-1:].isspace() else f"{prompt} {target}"
        before, whole = self._whole(prompt), self._whole(joint)
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
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def piece(self, token_id: int) -> tuple[str, bytes]:
        """One token as it goes on with a text, its blank included, special ones by their name; and its bytes. Of bytes
        that are no character the text is a sign for that."""
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

    def going_on(self, ids: Sequence[int]) -> str:
        """What ids say that follow a word: decoders drop the blank of a word that comes first."""
        return self._after_a_word(ids, special=False)

    def _after_a_word(self, ids: Sequence[int], *, special: bool) -> str:
        word = self._tokenizer("a", add_special_tokens=False).input_ids
        how = {"skip_special_tokens": not special, "clean_up_tokenization_spaces": False}
        text: str = self._tokenizer.decode([*word, *ids], **how)
        return text[len(self._tokenizer.decode(word, **how)) :]

    def is_special(self, token_id: int) -> bool:
        return token_id in self._special
