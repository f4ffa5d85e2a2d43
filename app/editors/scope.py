"""Who a prompt is about, read from its words. Knows text only; *what* is asked is for the activations to say.

The state of a prompt's last token says which relation is asked, so that a neighbour ("the capital of Peru") lies nearer
to an edit's key than a paraphrase does. So scope has two halves: a prompt must mention who or what the edit is about,
and then its key must lie within the deferral radius.
"""

import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import normalize

Span = tuple[str, ...]
"""Words that must stand side by side, in this order."""

_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W_]+")  # scripts without spaces: a character is a word
_ACCENT = re.compile("[\u0300-\u036f]")
POSSESSIVE = re.compile(r"['’]s\b")
_QUOTED = re.compile(r"[\"“«]([^\"”»]{2,80})[\"”»]")
_SENTENCE_START = re.compile(r"[.?!:;\n\"“(]\s*$")
_ABBREVIATED = re.compile(r"[A-Z]|Dr|Mr|Mrs|Ms|St|Sr|Jr|No|vs")
"""A period after it ends no sentence."""
SOURCES = frozenset(("wikipedia", "encyclopedia", "according", "to", "passage", "article"))
"""Said beside whom something is about, unless there is nothing else."""
TITLE_WORDS = 6
"""Of a quotation: a longer one is something that was said."""
_YEAR = re.compile(r"1\d{3}|20\d{2}")
_NUMBER = re.compile(r"\d+(?:st|nd|rd|th)?")
_MONTHS_TEXT = "january february march april may june july august september october november december"
_MONTHS = frozenset(_MONTHS_TEXT.split())
_DATE = re.compile(rf"\d+|{'|'.join(sorted(_MONTHS))}")
_JOINER_TEXT = "of the de la le du da di do dos das del della delle dei des van von der den zu and & al el bin ibn y"
JOINER = frozenset(_JOINER_TEXT.split())
SMALL = JOINER | {"in", "at", "by", "from", "to", "on", "for"}
_COMMON_TEXT = """
a about after again all also am an and any answer are as at be been before being between both brief briefly but by can
complete could did do does doing due each every explain fact find following for from give given had has have he her here
hers him his how i identify if in into is it its just know known let list many may me mention more most much my name no
not now of off on one only or other our out over please provide q question quiz say she should sentence so some state
such tell than that the their them then there these they this those to too true under up us use was we were what when
where which while who whom whose why will with word would you your
"""


def words_of(text: str) -> list[str]:
    """Lower-case words, a plural or possessive s taken off, so that a name matches however it is inflected."""
    return list(_words_of(text))


@lru_cache(maxsize=64)  # of one prompt, for each subject that it mentions
def _words_of(text: str) -> tuple[str, ...]:
    return tuple(_stem(word) for word in _WORD.findall(POSSESSIVE.sub("", _plain(text))))


def _plain(text: str) -> str:
    """In lower case and without accents: they are left out as often as not."""
    text = text.casefold()
    return text if text.isascii() else normalize("NFC", _ACCENT.sub("", normalize("NFD", text)))


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


COMMON = frozenset(form for word in _COMMON_TEXT.split() for form in (word, _stem(word)))


class Heard:
    """A prompt's words, looked through once for the names of many."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.text = f" {' '.join(words)} "
        self._places: dict[str, list[int]] = {}
        self._by_letter: dict[str, list[str]] = {}
        for at, word in enumerate(words):
            self._places.setdefault(word, []).append(at)

    def says(self, span: Span) -> bool:
        return f" {' '.join(span)} " in self.text or self.misspelt(span) is not None

    def says_outside(self, span: Span, longer: Iterable[Span]) -> bool:
        """Whether it stands somewhere that is not inside one of these."""
        text = self.text
        for name in sorted(longer, key=len, reverse=True):
            for _ in range(2):  # of two side by side the blank between them belongs to the first
                text = text.replace(f" {' '.join(name)} ", " | ")
        return f" {' '.join(span)} " in text

    def _has_like(self, word: str) -> bool:
        """Whether some word is this one, a letter off."""
        if not self._by_letter:
            for other in self._places:
                self._by_letter.setdefault(other[0], []).append(other)
        return any(_a_letter_off(word, each) or _same_number(word, each) for each in self._by_letter.get(word[0], ()))

    def misspelt(self, span: Span) -> int | None:
        """Where a name of three words or more, or of two around a small one, stands with one of them a letter off, or
        with other small words between them. Shorter names must be written as they are: a letter tells Iran from Iraq.
        """
        telling = [at for at, word in enumerate(span) if word not in SMALL]
        if len(span) < 3 or len(telling) < 2:
            return None
        # one of any two words stands as it is: the two that the prompt has least often say where to look
        rarest = sorted(telling, key=lambda at: len(self._places.get(span[at], ())))[:2]
        most = 1 if len(telling) > 2 else 0
        if span[rarest[0]] not in self._places and not (most and self._has_like(span[rarest[0]])):
            return None
        starts = {place - at for at in rarest for place in self._places.get(span[at], ())}
        inside = (start for start in sorted(starts) if 0 <= start <= len(self.words) - len(span))
        return next((start for start in inside if _off(span, self.words[start : start + len(span)]) <= most), None)


@dataclass(frozen=True, slots=True)
class Who:
    """Alternatives (the subject, its aliases), each a set of spans; `bound` is the share of spans a prompt must hold.

    No alternatives: the edit is about nothing that can be named, and its key alone decides.
    """

    alternatives: tuple[tuple[Span, ...], ...]
    bound: float = 1.0
    named: bool = True
    """Whether they are names; else they are words that say what the question is about, in part or in all."""

    def share(self, words: Sequence[str]) -> float:
        """The largest share of an alternative's spans that stand in these words; 1.0 without alternatives."""
        return self.share_of(Heard(words))

    def share_of(self, heard: Heard) -> float:
        if not self.alternatives:
            return 1.0
        return max(sum(heard.says(span) for span in spans) / len(spans) for spans in self.alternatives)

    def share_in(self, said: Set[Span]) -> float:
        """The same, of spans that are known to be said."""
        return max((sum(span in said for span in spans) / len(spans) for spans in self.alternatives), default=1.0)

    def overlaps(self, other: "Who") -> bool:
        """Whether a prompt that mentions one may mention the other as its own subject: do their spans meet?"""
        if not self.alternatives or not other.alternatives:
            return True
        mine, theirs = (who._telling() for who in (self, other))
        met = sum(any(_inside(a, b) or _inside(b, a) for b in theirs) for a in mine)
        # of words that are no names one is often shared by chance
        least = 1 if self.named or other.named else min(len(mine), len(theirs)) / 2
        return met >= least

    def _telling(self) -> set[Span]:
        """Its spans but for dates, unless it has no others: many are about something in 2012."""
        spans = {span for spans in self.alternatives for span in spans}
        return {span for span in spans if not all(_DATE.fullmatch(word) for word in span)} or spans


def _off(span: Span, words: Sequence[str]) -> int:
    """How many of a name's words are a letter off; more than all of them, if one is another word."""
    off = 0
    for mine, theirs in zip(span, words, strict=True):
        if mine == theirs or (mine in SMALL and theirs in SMALL) or _same_number(mine, theirs):
            continue
        off += 1 if mine not in SMALL and _a_letter_off(mine, theirs) else len(span)
    return off


def _same_number(a: str, b: str) -> bool:
    """3rd and 3."""
    return bool(_NUMBER.fullmatch(a) and _NUMBER.fullmatch(b)) and a.rstrip("stndrh") == b.rstrip("stndrh")


def _a_letter_off(a: str, b: str) -> bool:
    """One letter changed, left out or put in, of a word of five or more; never the first, never a digit."""
    if min(len(a), len(b)) < 5 or a[0] != b[0] or abs(len(a) - len(b)) > 1:
        return False
    short, long = sorted((a, b), key=len)
    at = next((i for i, (x, y) in enumerate(zip(short, long, strict=False)) if x != y), len(short))
    rest = short[at + 1 :] if len(short) == len(long) else short[at:]
    return rest == long[at + 1 :] and long[at].isalpha()


def _inside(a: Span, b: Span) -> bool:
    return f" {' '.join(a)} " in f" {' '.join(b)} "


def parts_of(span: Span) -> list[Span]:
    """The shorter spans inside it."""
    lengths = range(1, len(span))
    return [span[start : start + n] for n in lengths for start in range(len(span) - n + 1)]


def find_who(prompt: str, subject: str | None, aliases: Iterable[str], template_words: frozenset[str]) -> Who:
    """The subject as given; else quoted text and names; else the words that no generic phrasing has.

    `template_words` are the words of generic phrasings ("capital", "wrote"): they say what is asked, not about whom.
    """
    given = [tuple(words_of(name)) for name in ((subject, *aliases) if subject is not None else ())]
    if any(given):
        return Who(tuple((span,) for span in given if span))
    also = tuple((span,) for span in (tuple(words_of(alias)) for alias in aliases) if span)
    quoted = _quoted(prompt)
    names = [span for span in quoted if len(span) <= TITLE_WORDS] or _names(prompt, template_words) or quoted
    content = [word for word in dict.fromkeys(words_of(prompt)) if word not in COMMON]
    rare = [word for word in content if word not in template_words and word not in SOURCES]
    if rare and all(SOURCES.issuperset(span) for span in names):
        names = []
    # "Roman numerals" is how one asks, not who is meant, unless there is nothing else
    told = [span for span in names if not SOURCES.issuperset(span)] or names
    spans = [span for span in told if not template_words.issuperset(span)] or told
    if spans:
        return Who(tuple(dict.fromkeys((tuple(dict.fromkeys(spans)), *also))))
    chosen = rare or content
    if not chosen:
        return Who(())
    # one or two words, or a run of them, small ones aside, are a name in lower case; of others, a paraphrase may well
    # leave some out
    said = tuple(word for word in words_of(prompt) if word not in JOINER)
    run = len(chosen) <= 2 or _inside(tuple(chosen), said)
    return Who((tuple((word,) for word in chosen), *also), bound=1.0 if run else 0.6, named=False)


def who_of(texts: Sequence[str], subject: str | None, aliases: Iterable[str], template_words: frozenset[str]) -> Who:
    """As found in the prompt, the first text; a paraphrase that names it otherwise is a name of it too."""
    who = find_who(texts[0], subject, aliases, template_words)
    for text in texts[1:]:
        if who.share(words_of(text)) < who.bound:
            other = find_who(text, None, (), template_words)
            named = who.named and other.named
            who = Who((*who.alternatives, *other.alternatives), min(who.bound, other.bound), named)
    return who


def placed_words(text: str) -> list[tuple[str, re.Match[str]]]:
    """Its words as `words_of` has them, and where each stands."""
    left_out = {place for match in POSSESSIVE.finditer(text) for place in range(*match.span())}
    return [(_stem(_plain(match[0])), match) for match in _WORD.finditer(text) if match.start() not in left_out]


def locate(text: str, who: Who) -> int | None:
    """Where in the text the last mention of a name ends, in characters; None without any."""
    found = [(_stem(_plain(match[0])), match.end()) for match in _WORD.finditer(text)]
    words = [word for word, _ in found]
    ends = [
        found[at + len(span) - 1][1]
        for spans in who.alternatives
        for span in spans
        for at in range(len(words) - len(span) + 1)
        if tuple(words[at : at + len(span)]) == span
    ]
    return max(ends, default=None)


def surface(text: str, who: Who) -> str | None:
    """How the text itself writes the first name, if it is one run of words in it."""
    if not who.alternatives or len(who.alternatives[0]) != 1:
        return None
    (span,) = who.alternatives[0]
    found = [(_stem(_plain(match[0])), match) for match in _WORD.finditer(POSSESSIVE.sub("", text))]
    for at in range(len(found) - len(span) + 1):
        if tuple(word for word, _ in found[at : at + len(span)]) == span:
            return POSSESSIVE.sub("", text)[found[at][1].start() : found[at + len(span) - 1][1].end()]
    return None


def names_in(text: str) -> list[Span]:
    """Everyone and everything that a text calls by name."""
    return [*_quoted(text), *_names(text, frozenset())]


def _mixed(word: str) -> bool:
    """eBay and macOS, but not kWh."""
    return len(word) > 3 and any(letter.isupper() for letter in word)


def _dates_apart(span: Span) -> list[Span]:
    """A date is put in many orders, and a year before or after what it is the year of: each is a span of its own."""
    if not _MONTHS.isdisjoint(span):
        return [(word,) for word in span if word not in SMALL]
    years = [word for word in (span[0], span[-1]) if _YEAR.fullmatch(word)]
    if not years or len(span) == 1:
        return [span]
    start, end = bool(_YEAR.fullmatch(span[0])), len(span) - bool(_YEAR.fullmatch(span[-1]))
    rest = span[int(start) : end]
    return [*([rest] if rest else []), *((year,) for year in dict.fromkeys(years))]


def _quoted(prompt: str) -> list[Span]:
    prompt = prompt.replace('""', '"')  # as spreadsheets write it
    if len(prompt) > 1 and prompt[0] == prompt[-1] == '"':
        prompt = prompt[1:-1]
    return [span for match in _QUOTED.finditer(prompt) if (span := tuple(words_of(match[1])))]


def _names(prompt: str, template_words: frozenset[str]) -> list[Span]:
    """Runs of capitalised words and numbers, small joining words inside them included; a sentence's first word only
    if it is neither a common word nor one of generic phrasings."""
    usual = COMMON | template_words
    spans: list[Span] = []
    run: list[str] = []
    pending: list[str] = []

    def close() -> None:
        if any(words_of(part) for part in run):
            spans.extend(_dates_apart(tuple(word for part in run for word in words_of(part))))
        run.clear()
        pending.clear()

    end = 0
    for match in re.finditer(r"[\w&]+(?:['’.-]\w+)*", prompt):
        word, gap = match[0], prompt[end : match.start()]
        # read from what stands between two words: to look at all before them takes a second of a long text
        starts = bool(_SENTENCE_START.search(gap)) or not (end or gap.strip())
        end = match.end()
        if gap.strip() and run and not (gap.strip() == "." and _ABBREVIATED.fullmatch(run[-1])):
            close()
        capital = word[0].isdigit() or word[0].isupper() or _mixed(word)
        if capital and not (starts and _stem(word.casefold()) in usual):
            run.extend((*pending, word))
            pending.clear()
        elif run and word.casefold() in JOINER:
            pending.append(word)
        else:
            close()
    close()
    return [span for span in spans if span and not all(word in COMMON for word in span)]
