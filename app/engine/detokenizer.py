"""From token ids to the text that may be shown: the continuation to the letter, in whole characters, without a stop
text."""

from collections.abc import Callable, Sequence

_PARTIAL = "\N{REPLACEMENT CHARACTER}"  # what a decoder gives for the first bytes of a character that is not whole yet
CONTEXT_TOKENS = 6
"""Of the prompt, decoded before the first token: decoders drop the blank of a word that comes first."""


class Detokenizer:
    """One answer's text, grown token by token. `text` is all that has been shown.

    `begins` is the place in the answer, in characters, at which the newest token's own text stands, and `own` is that
    text, whether or not it may be shown yet.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str],
        prompt: Sequence[int] = (),
        *,
        drops_blank: bool = False,
    ) -> None:
        """`drops_blank`: the white space that the answer begins with stands in the prompt already."""
        self._decode, self._drops_blank = decode, drops_blank
        self._stop = tuple(stop)
        self._ids: list[int] = list(prompt[-CONTEXT_TOKENS:])
        self._prefix = 0  # ids before it are only context for the tokenizer
        self._shown = len(self._ids)  # ids before it are in `_pending` or `text` already
        self._pending = ""
        self._decoded = 0  # characters, those that a stop text cut off included
        self.begins, self.own = 0, ""
        self.text = ""
        self.stopped = False

    def add(self, token_id: int) -> str:
        """The text that this token lets be shown; may be empty. After a stop text nothing more comes."""
        self.begins, self.own = self._decoded, ""
        self._ids.append(token_id)
        before = self._decode(self._ids[self._prefix : self._shown])
        now = self._decode(self._ids[self._prefix :])
        if len(now) > len(before) and not now.endswith(_PARTIAL):
            self._take(now[len(before) :])
            self._prefix = self._shown
            self._shown = len(self._ids)
        return self._release(final=False)

    def finish(self) -> str:
        """What was held back, at the end of the answer."""
        before = self._decode(self._ids[self._prefix : self._shown])
        self._take(self._decode(self._ids[self._prefix :])[len(before) :])
        self._shown = len(self._ids)
        return self._release(final=True)

    def _take(self, text: str) -> None:
        if self._drops_blank:
            text = text.lstrip()
            self._drops_blank = not text
        self._pending += text
        self._decoded += len(text)
        self.own += text

    def _release(self, *, final: bool) -> str:
        if self.stopped:
            self._pending = ""
            return ""
        cut = min((at for stop in self._stop if (at := self._pending.find(stop)) >= 0), default=-1)
        if cut >= 0:
            self.stopped = True
            shown, self._pending = self._pending[:cut], ""
        else:
            held = 0 if final else self._may_begin_a_stop()
            shown = self._pending[: len(self._pending) - held]
            self._pending = self._pending[len(shown) :]
        self.text += shown
        return shown

    def _may_begin_a_stop(self) -> int:
        """How many characters at the end could be the beginning of a stop text."""
        return max(
            (
                size
                for stop in self._stop
                for size in range(1, min(len(stop), len(self._pending) + 1))
                if self._pending.endswith(stop[:size])
            ),
            default=0,
        )
