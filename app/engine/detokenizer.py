"""From token ids to the text that may be shown: whole characters only, no leading space, nothing of a stop text."""

from collections.abc import Callable, Sequence

_PARTIAL = "�"  # what a decoder gives for the first bytes of a character that is not whole yet


class Detokenizer:
    """One answer's text, grown token by token. `text` is all that has been shown."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str], start: str = "") -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._prefix = 0  # ids before it are only context for the tokenizer
        self._shown = 0  # ids before it are in `_pending` or `text` already
        self._pending = ""
        self._begun = False
        self._keep_space = bool(start) and start[-1:].isspace()
        self.text = ""
        self.stopped = False

    def add(self, token_id: int) -> str:
        """The text that this token lets be shown; may be empty. After a stop text nothing more comes."""
        self._ids.append(token_id)
        before = self._decode(self._ids[self._prefix : self._shown])
        now = self._decode(self._ids[self._prefix :])
        if len(now) > len(before) and not now.endswith(_PARTIAL):
            self._pending += now[len(before) :]
            self._prefix, self._shown = self._shown, len(self._ids)
        return self._release(final=False)

    def finish(self) -> str:
        """What was held back, at the end of the answer."""
        before = self._decode(self._ids[self._prefix : self._shown])
        self._pending += self._decode(self._ids[self._prefix :])[len(before) :]
        self._shown = len(self._ids)
        return self._release(final=True)

    def _release(self, *, final: bool) -> str:
        if self.stopped:
            self._pending = ""
            return ""
        if self._pending and not self._begun:
            self._begun = True
            if not self._keep_space:
                self._pending = self._pending.removeprefix(" ")
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
