"""The parsing of a prompt: the texts that are compared with keys, and the names in them.

The question may be all of the last turn, or its last sentence after a greeting or a pasted text; one that points back
("How old is she?") is read with the turns before it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import normalize

from app.domain.words import Span, fold, placed_words, plain_words, surface, words_of
from app.scope.closed_words import ClosedWords, LanguageGrammar

_BREAK = re.compile(r"(?<=[.?!。？！؟])[\"”»)\]]*\s+|\n+")
_QUOTED = re.compile(r"[\"“«](?P<said>[^\"”»]{2,80})[\"”»]|„(?P<low>[^„“”\"]{2,80})[“”\"]|»(?P<inward>[^«»]{2,80})«")
_LARGE = re.compile(r"\b[A-Z0-9]{2,}s?\b")
MOST_TEXTS = 3
LONG_WORDS = 60
"""The most words of a plain question. A longer turn is a text with a question in it, and is read by its sentences."""
SHORT_WORDS = 6
"""The most words of a short turn. A longer one that names nobody is still read alone, and one of twice as many words
says by itself what it asks."""
TITLE_WORDS = 6
"""The most words of a quoted title; a longer quotation is something that was said."""


@dataclass(frozen=True, slots=True)
class ParsedQuestion:
    """A prompt's question. `texts` are its readings, the fullest first. `said` is all the text that may name someone:
    the question with the turns that it refers back to."""

    texts: tuple[str, ...]
    said: str

    @property
    def words(self) -> list[str]:
        return words_of(self.said)


def read(turns: Sequence[str], closed: ClosedWords) -> ParsedQuestion:
    """Parse a conversation's turns, which alternate between user and model and end with the user's; or a bare
    prompt."""
    turns = [normalize("NFC", turn) for turn in turns]  # an accent of its own would cut a word in two
    question = turns[-1].strip()
    alone = _read_alone(question)
    if len(turns) < 3 or not leans_on_history(question, closed):
        return ParsedQuestion(alone, question)
    first = len(turns) - 3
    while first > 1 and points_back(turns[first], closed):
        first -= 2  # what it points back to says more
    history = [turns[first].strip()]
    if first < len(turns) - 3 and not _goes_on(turns[-3], closed):  # "And Sweden?" says no more than this one
        history.append(turns[-3].strip())
    whole = f"{' '.join(history)} {_first_sentence(turns[-2])} {question}"
    words = plain_words(question)
    content = [word for word in words if word not in closed.grammar(words).small]
    texts = (whole,) if points_back(question, closed) and len(content) < 2 else (whole, *alone)
    return ParsedQuestion(tuple(dict.fromkeys(texts))[:MOST_TEXTS], whole)


def _read_alone(question: str) -> tuple[str, ...]:
    sentences = sentences_of(question)
    texts: list[str] = [question] if len(plain_words(question)) <= LONG_WORDS or len(sentences) < 2 else []
    if len(sentences) > 1:
        texts.append(asking_sentence(question))
        texts.append(f"{sentences[-2]} {sentences[-1]}")
    return tuple(dict.fromkeys(text for text in texts if text))[:MOST_TEXTS] or ("",)


def asking_sentence(text: str) -> str:
    """The last sentence that ends with a question mark; the last one if none does."""
    sentences = sentences_of(text)
    asking = [each for each in sentences if each.rstrip('"”»)] ').endswith(("?", "？", "؟"))]
    return next(iter((asking or sentences)[-1:]), "")


def points_back(question: str, closed: ClosedWords) -> bool:
    """True if a turn cannot be read alone: it continues what was said, is short and has a pronoun, or has only small
    words and one other."""
    words = plain_words(question)
    if len(words) > 2 * SHORT_WORDS:
        return False
    said = closed.grammar(words)  # `die` is a small word in German alone, `son` a pronoun in French
    content = [word for word in words if word not in said.small]
    if _goes_on(question, closed) or any(word in said.pronouns for word in words):
        return True
    return len(words) <= SHORT_WORDS and len(content) < 2


def _goes_on(question: str, closed: ClosedWords) -> bool:
    """True if a turn continues the one before: "And Sweden?"."""
    words = plain_words(question)
    return bool(words) and words[0] in closed.grammar(words).joining


def leans_on_history(question: str, closed: ClosedWords) -> bool:
    """True if earlier turns may be part of the question: it refers back, or is short and names nobody."""
    if points_back(question, closed):
        return True
    return len(plain_words(question)) <= SHORT_WORDS and not names_in(question, closed)


def sentences_of(text: str) -> list[str]:
    return [each.strip() for each in _BREAK.split(text) if each and each.strip()]


def _first_sentence(text: str) -> str:
    return next(iter(sentences_of(text)), "")


def names_in(text: str, closed: ClosedWords) -> tuple[Span, ...]:
    """The names in a text: quotations, and runs of capitalised words and numbers. A sentence's first word is part of a
    name if another follows, and is a name if an auxiliary verb follows. Where nouns have capitals, only what stands
    where a noun hardly does is a name."""
    return _names(text, closed)[0]


def _names(text: str, closed: ClosedWords) -> tuple[tuple[Span, ...], LanguageGrammar | None]:
    """The names in a text, and the grammar of its language if its nouns have capitals."""
    plain = _QUOTED.sub(" ", text)
    grammar = closed.capital_nouns(plain_words(plain))
    if text.isupper():
        return (), grammar
    spans: list[Span] = _quoted(text)
    for sentence in sentences_of(plain):
        spans.extend(_capitalised(sentence, closed) if grammar is None else _beside_nouns(sentence, grammar))
    return tuple(dict.fromkeys(spans)), grammar


def _quoted(text: str) -> list[Span]:
    spans = (tuple(words_of(match[match.lastgroup or 0])) for match in _QUOTED.finditer(text))
    return [span for span in spans if 0 < len(span) <= TITLE_WORDS]


def _capitalised(sentence: str, closed: ClosedWords) -> list[Span]:
    """Runs of capitalised words, joined by at most two small words in lower case ("University of the Arts")."""
    placed = placed_words(sentence)
    capital = [_is_capital(sentence[begin:end]) for _, begin, end in placed]
    small = [fold(sentence[begin:end]) in closed.small for _, begin, end in placed]
    if capital and capital[0] and (small[0] or not _begins_name(capital, placed, sentence, closed)):
        capital[0] = False
    runs: list[list[int]] = []
    for at, is_capital in enumerate(capital):
        if not is_capital:
            continue
        last = runs[-1][-1] if runs else None
        joined = last is not None and at - last <= 3 and all(small[last + 1 : at])
        if joined and last is not None and not re.search(r"[,;:?!()]", sentence[placed[last][2] : placed[at][1]]):
            runs[-1].append(at)
        else:
            runs.append([at])
    spans: list[Span] = []
    for run in runs:
        if all(small[at] for at in run):
            continue
        spans.append(tuple(word for word, _, _ in placed[run[0] : run[-1] + 1]))
        last = next((at for at in reversed(range(1, len(run))) if run[at] - run[at - 1] > 1), 0)
        if last:  # "CEO of Acme": it is Acme that must be said
            spans.append(tuple(word for word, _, _ in placed[run[last] : run[-1] + 1]))
    return spans


def _begins_name(
    capital: Sequence[bool], placed: Sequence[tuple[str, int, int]], sentence: str, closed: ClosedWords
) -> bool:
    """True if a sentence's first word is a name, or part of one, as the next words show."""
    if len(placed) < 2:
        return False
    (_, _, end), (_, begin, stop) = placed[:2]
    between = sentence[end:begin].strip()
    return between in ("'s", "’s") or (not between and (capital[1] or fold(sentence[begin:stop]) in closed.auxiliaries))


def _is_capital(word: str) -> bool:
    return word[0].isdigit() or word[0].isupper() or any(letter.isupper() for letter in word)


def _beside_nouns(sentence: str, grammar: LanguageGrammar) -> list[Span]:
    """The names in a sentence of a language whose nouns have capitals: capitalised words side by side, words spelled as
    no noun is, and single words after a small word other than a determiner ("von Ulm")."""
    placed = placed_words(sentence)
    written = [sentence[begin:end] for _, begin, end in placed]
    folded = [fold(word) for word in written]
    small = [word in grammar.recognised for word in folded]
    spans: list[Span] = []
    for first, after in _side_by_side(sentence, placed, small):
        if first:
            said = len(written[first:after]) > 1 or (small[first - 1] and not grammar.is_determiner(folded[first - 1]))
        else:  # a question's verb has a capital, too, where it comes first
            said = after < len(placed) and grammar.is_auxiliary(folded[after])
        if said or any(map(_is_spelled_apart, written[first:after])):
            spans.append(tuple(word for word, _, _ in placed[first:after]))
    return spans


def _side_by_side(
    sentence: str, placed: Sequence[tuple[str, int, int]], small: Sequence[bool]
) -> list[tuple[int, int]]:
    """The runs (first, after) of capitalised words with nothing but blanks between them."""
    runs: list[tuple[int, int]] = []
    for at, (_, begin, end) in enumerate(placed):
        if small[at] or not _is_capital(sentence[begin:end]):
            continue
        if runs and runs[-1][1] == at and not sentence[placed[at - 1][2] : begin].strip():
            runs[-1] = (runs[-1][0], at + 1)
        else:
            runs.append((at, at + 1))
    return runs


def _is_spelled_apart(word: str) -> bool:
    """True for a word with digits, or with a capital after its first letter."""
    return any(letter.isdigit() for letter in word) or any(letter.isupper() for letter in word[1:])


def called_by_name(text: str, closed: ClosedWords) -> tuple[Span, ...]:
    """The names in a text that are capitalised words, not abbreviations or numbers: persons, places and works. Where
    nouns have capitals, a single word may be a noun wherever it stands, unless it is quoted or spelled as none is."""
    large = {fold(word) for word in _LARGE.findall(text)}
    spans, grammar = _names(text, closed)
    names = [span for span in spans if not all(word in large or word[0].isdigit() for word in span)]
    if grammar is None:
        return tuple(names)
    quoted = _quoted(text)
    return tuple(
        span for span in names if len(span) > 1 or span in quoted or _is_spelled_apart(surface(text, span) or "")
    )
