"""Control tokens, such as those that begin and end a turn: a chat template sets them, and nobody's message does.

A conversation is rendered to one text, in which `<|im_end|>` is the control token, wherever it stands. So that what a
client writes stays text, a mark is put inside each such name in the content of messages. Who tokenises cuts at the
marks and drops them: the name then comes out as its letters. In a prompt that a client renders itself its control
tokens are its own affair.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MARK = "\ufdd0"
"""A code point that Unicode keeps for a program's own use: no text holds it."""


def plain(text: str) -> str:
    """The text as its author wrote it."""
    return text.replace(MARK, "")


def quoted(text: str) -> str:
    """The text in quotes, as messages name it: `repr` alone would spell the mark."""
    return repr(plain(text))


def shown(value: Any) -> Any:
    """A value as it goes out to people: all its texts, at whatever depth, are plain."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {shown(name): shown(each) for name, each in value.items()}
    return [shown(each) for each in value] if isinstance(value, list | tuple) else value


class Controls:
    """The names of a tokenizer's control tokens. `written`: what its chat template writes around a turn, in which a
    name counts though the tokenizer does not call its token special."""

    def __init__(self, tokenizer: Any, written: Sequence[str] = ()) -> None:
        special = {str(each) for each in tokenizer.all_special_tokens}
        added = tokenizer.added_tokens_decoder.values()
        special |= {each.content for each in added if each.special}
        special |= {each.content for each in added if each.content.strip() and any(each.content in w for w in written)}
        self._tokens = _either(special)
        self._around = _either(each for each in written if each.strip())

    def named_in(self, text: str) -> str | None:
        """The first control token that a text would set."""
        found = None if self._tokens is None else self._tokens.search(text)
        return None if found is None else found[0]

    def as_text(self, content: str) -> str:
        """The content with a mark inside each name of a control token, and in what looks like the border of a turn."""
        return self.as_texts([content])[0]

    def as_texts(self, parts: Sequence[str]) -> list[str]:
        """Parts of one content: a template may join them, and a name begun in one may end in the next."""
        parts = [part.replace(MARK, "") for part in parts]
        marked = whole = "".join(parts)
        for names in (self._tokens, self._around):
            while names is not None and names.search(marked):  # again: a name may hold another
                marked = names.sub(lambda found: f"{found[0][0]}{MARK}{found[0][1:]}", marked)
        return list(parts) if marked == whole else _split(marked, [len(part) for part in parts])

    @staticmethod
    def pieces(prompt: str) -> list[str]:
        """What is tokenised one by one, so that no marked name is taken for its token."""
        return prompt.split(MARK)

    @staticmethod
    def plain(text: str) -> str:
        """As its author wrote it."""
        return plain(text)


def _split(marked: str, lengths: Sequence[int]) -> list[str]:
    """Into parts of so many characters, marks not counted; a mark stays with the character before it."""
    parts, at = [], 0
    for length in lengths:
        end = at
        while length or marked[end : end + 1] == MARK:
            length -= marked[end] != MARK
            end += 1
        parts.append(marked[at:end])
        at = end
    return parts


def _either(names: Iterable[str]) -> re.Pattern[str] | None:
    """One of the names, of two characters at least: there must be room for a mark inside."""
    longest = sorted({each for each in names if len(each) > 1}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest))) if longest else None
