"""Turns token ids into the text that may be shown: the exact continuation, in whole characters, without a stop text."""

from collections.abc import Callable, Sequence

_PARTIAL = "\N{REPLACEMENT CHARACTER}"  # what a decoder yields for the first bytes of an incomplete character
CONTEXT_TOKENS = 6
"""Number of prompt tokens that are decoded before the first token: decoders drop the leading blank of the first
word."""


class Detokenizer:
    """One answer's text, built token by token. `text` is everything shown so far.

    `begins` is the offset in the answer, in characters, at which the newest token's own text begins; `own` is that
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
        """`drops_blank`: the prompt already ends with the answer's leading white space, which is dropped."""
        self._decode, self._drops_blank = decode, drops_blank
        self._stop = tuple(stop)
        self._ids: list[int] = list(prompt[-CONTEXT_TOKENS:])
        self._prefix = 0  # ids before it only give the tokenizer context
        self._shown = len(self._ids)  # ids before it are already in `_pending` or `text`
        self._pending = ""
        self._decoded = 0  # in characters, including those that a stop text cut off
        self.begins, self.own = 0, ""
        self.text = ""
        self.stopped = False

    def add(self, token_id: int) -> str:
        """The text that becomes showable with this token, possibly empty; always empty after a stop text."""
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
        """Releases what is still held back when the answer ends."""
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
            held = 0 if final else self._stop_prefix_length()
            shown = self._pending[: len(self._pending) - held]
            self._pending = self._pending[len(shown) :]
        self.text += shown
        return shown

    def _stop_prefix_length(self) -> int:
        """Length of the longest suffix of the pending text that a stop text begins with, in characters."""
        return max(
            (
                size
                for stop in self._stop
                for size in range(1, min(len(stop), len(self._pending) + 1))
                if self._pending.endswith(stop[:size])
            ),
            default=0,
        )
