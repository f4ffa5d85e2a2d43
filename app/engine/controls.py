"""Control tokens, such as those that delimit a turn: only a chat template may set them, never a message's content.

A conversation is rendered to a single text, in which `<|im_end|>` denotes the control token wherever it occurs. To keep
client text literal, a mark is inserted into every control token's name inside a message's content. The tokeniser side
cuts the text at the marks and drops them, so that the name comes out as ordinary characters. A prompt that a client
renders itself may contain control tokens.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MARK = "\ufdd0"
"""Code point that Unicode reserves for internal use by programs: no valid text contains it."""


def plain(text: str) -> str:
    """The text as its author wrote it, without marks."""
    return text.replace(MARK, "")


def quoted(text: str) -> str:
    """The text in quotes, for messages; `repr` alone would show the mark."""
    return repr(plain(text))


def shown(value: Any) -> Any:
    """A value as it is shown to people: marks are removed from all its texts, at any depth."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {shown(name): shown(each) for name, each in value.items()}
    return [shown(each) for each in value] if isinstance(value, list | tuple) else value


class Controls:
    """The names of a tokenizer's control tokens. `written` holds what the chat template writes around a turn; a token
    named there counts even if the tokenizer does not flag it as special."""

    def __init__(self, tokenizer: Any, written: Sequence[str] = ()) -> None:
        special = {str(each) for each in tokenizer.all_special_tokens}
        added = tokenizer.added_tokens_decoder.values()
        special |= {each.content for each in added if each.special}
        special |= {each.content for each in added if each.content.strip() and any(each.content in w for w in written)}
        self._tokens = _any_of(special)
        self._delimiters = _any_of(each for each in written if each.strip())

    def named_in(self, text: str) -> str | None:
        """The first control token that the text would set, or None."""
        match = None if self._tokens is None else self._tokens.search(text)
        return None if match is None else match[0]

    def as_text(self, content: str) -> str:
        """The content with a mark inside each control token's name and inside each possible turn delimiter."""
        return self.as_texts([content])[0]

    def as_texts(self, parts: Sequence[str]) -> list[str]:
        """Like `as_text`, for the parts of one content: a template may join them, so a name may span two parts."""
        parts = [part.replace(MARK, "") for part in parts]
        marked = whole = "".join(parts)
        for names in (self._tokens, self._delimiters):
            while names is not None and names.search(marked):  # repeat: one name may contain another
                marked = names.sub(lambda match: f"{match[0][0]}{MARK}{match[0][1:]}", marked)
        return list(parts) if marked == whole else _split(marked, [len(part) for part in parts])

    @staticmethod
    def pieces(prompt: str) -> list[str]:
        """The pieces of a prompt to tokenise separately, so that no marked name becomes its token."""
        return prompt.split(MARK)

    @staticmethod
    def plain(text: str) -> str:
        """The text as its author wrote it, without marks."""
        return plain(text)


def _split(marked: str, lengths: Sequence[int]) -> list[str]:
    """Splits a marked text into parts of the given lengths in characters, marks not counted; a mark stays with the
    character before it."""
    parts, at = [], 0
    for length in lengths:
        end = at
        while length or marked[end : end + 1] == MARK:
            length -= marked[end] != MARK
            end += 1
        parts.append(marked[at:end])
        at = end
    return parts


def _any_of(names: Iterable[str]) -> re.Pattern[str] | None:
    """Pattern that matches any of the names of at least two characters: a mark must fit inside."""
    longest = sorted({each for each in names if len(each) > 1}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest))) if longest else None
