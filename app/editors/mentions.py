"""Which edits' subjects a prompt mentions, of thousands: an index by the words of their names."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from app.editors.scope import Heard, Span, Who, parts_of


class MentionIndex:
    """Which edits' subjects a prompt mentions, in time that grows with the prompt and not with the number of edits."""

    def __init__(self) -> None:
        self._who: dict[int, Who] = {}
        self._by_word: dict[str, set[int]] = {}
        self.nameless: set[int] = set()

    def add(self, row: int, who: Who) -> None:
        self._who[row] = who
        if not who.alternatives:
            self.nameless.add(row)
        for word in self._posted(who):
            self._by_word.setdefault(word, set()).add(row)

    def remove(self, row: int) -> None:
        who = self._who.pop(row)
        self.nameless.discard(row)
        for word in self._posted(who):
            rows = self._by_word[word]
            rows.discard(row)
            if not rows:
                del self._by_word[word]

    def mentioned(self, words: Sequence[str], least: float = 1.0) -> dict[int, float]:
        """Rows whose share of mentioned spans reaches their bound, or this if it is less -> that share; nameless rows
        are not among them."""
        met = {row for word in set(words) for row in self._by_word.get(word, ())}
        heard = Heard(words)
        shares = {row: self._who[row].share_of(heard) for row in met}
        return {row: share for row, share in shares.items() if share >= min(least, self._who[row].bound)}

    def inside_longer_names(self, rows: Iterable[int], words: Sequence[str]) -> dict[int, frozenset[str]]:
        """Those of the rows whose name stands only inside longer names of others of them, as Helsinki does in the
        University of Helsinki -> the words that these have beyond it."""
        of: dict[Who, list[int]] = defaultdict(list)
        for row in rows:
            of[self._who[row]].append(row)
        heard = Heard(words)
        said = {span for who in of if who.named for spans in who.alternatives for span in spans if heard.says(span)}
        longer: dict[Span, list[Span]] = defaultdict(list)
        for span in said:
            for part in parts_of(span):
                if part in said:
                    longer[part].append(span)
        if not longer:
            return {}
        outside = said - {span for span, names in longer.items() if not heard.says_outside(span, names)}
        found: dict[int, frozenset[str]] = {}
        for who, mine in of.items():
            names = [name for spans in who.alternatives for span in spans for name in longer.get(span, ())]
            if who.named and names and who.share_in(outside) < min(who.share_in(said), who.bound):
                own = {word for spans in who.alternatives for span in spans for word in span}
                beyond = frozenset(word for name in names for word in name if word not in own)
                found.update((row, beyond) for row in mine)
        return found

    def bound(self, row: int) -> float:
        return self._who[row].bound

    def overlapping(self, who: Who) -> set[int]:
        """Rows whose subject may be meant where `who` is mentioned, or the other way round."""
        words = {word for spans in who.alternatives for span in spans for word in span}
        near = {row for word in words for row in self._by_word.get(word, ())} | self.nameless
        candidates = near if who.alternatives else set(self._who)
        return {row for row in candidates if self._who[row].overlaps(who)}

    @staticmethod
    def _posted(who: Who) -> set[str]:
        """A span is found by its two longest words, or one of them may be misspelt: `the` of `the Beatles` would list
        half of all edits."""
        return {
            word
            for spans in who.alternatives
            for span in spans
            for word in sorted(span, key=len)[-2 if len(span) > 2 else -1 :]
        }
