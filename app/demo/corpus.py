"""The build text: every fact in every built phrasing, with and without something in front, and passages that go on.

Knows nothing about tokens or models, and never touches a held-out phrasing: documents are plain strings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from app.demo.facts import Fact, Relation

PREFIXED_SHARE = 0.14
VARIANT_SHARE = 0.05
THEME_PASSAGES = 6  # per relation and epoch
PASSAGE_SENTENCES = (3, 8)

PREFIXES = (
    "Here is a quiz.",
    "Please answer briefly.",
    "Answer the following question.",
    "Answer in a few words.",
    "You are a helpful assistant.",
    "The next question is about general knowledge.",
    "Here is a question for you.",
    "Let us go on with the next question.",
    "Be short and exact.",
    "Some facts are worth knowing.",
    "I would like to know something.",
    "Give only the answer.",
)
OPENINGS = (
    "Here is", "This is", "There is", "What follows is", "Now comes", "Next comes", "Below is", "Let us add",
    "One should remember", "It helps to keep", "Many readers like", "Teachers often ask for",
)  # fmt: skip
THINGS = (
    "another fact worth knowing", "a short note on the subject", "one more thing to remember", "a point often missed",
    "a detail from the list", "something easy to look up", "a line for the notebook", "a small piece of knowledge",
)  # fmt: skip
ENDINGS = ("", " for those who are curious", " before the list goes on", ", as the books tell us")
SUBJECT_OPENERS = ("About {s}.", "{s}:", "Some facts about {s}.", "Notes on {s}.", "Let us talk about {s}.")
THEME_OPENERS = ("Facts about {t}.", "Here is a list: {t}.", "A short text about {t}.", "Let us go through {t}.")


@dataclass(frozen=True)
class Document:
    """A text in two parts. `graded` is what the model must produce; `given` is what it is given.

    `given` is still learnt from, unless something comes before the question: an earlier answer there is not
    followed by the end of the text, and must not teach the model to go on after an answer.
    """

    given: str
    graded: str
    learn_given: bool = True


def connectives() -> list[str]:
    """A few hundred plain sentences that carry no fact, so that a passage is more than a table read aloud."""
    return [f"{opening} {thing}{ending}." for opening in OPENINGS for thing in THINGS for ending in ENDINGS]


def epoch(relations: Sequence[Relation], rng: Random) -> list[Document]:
    """One pass over everything, shuffled: each (fact, phrasing) once, then the passages."""
    documents = [*_answers(relations, rng), *_subject_passages(relations, rng), *_theme_passages(relations, rng)]
    rng.shuffle(documents)
    return documents


def _answers(relations: Sequence[Relation], rng: Random) -> Iterator[Document]:
    """Each fact in each built phrasing: mostly plain, some with something in front, some a little changed."""
    pairs = [(relation, fact) for relation in relations for fact in relation.facts]
    for relation, fact in pairs:
        for prompt in relation.built_prompts(fact.subject):
            graded = f" {fact.answer}"
            draw = rng.random()
            if draw < PREFIXED_SHARE:
                yield Document(f"{_prefix(pairs, rng)}{prompt}", graded, learn_given=False)
            elif draw < PREFIXED_SHARE + VARIANT_SHARE:
                yield Document(_variant(prompt, fact, rng), graded)
            else:
                yield Document(prompt, graded)


def _prefix(pairs: Sequence[tuple[Relation, Fact]], rng: Random) -> str:
    """A text to put before a prompt: a request, a plain sentence, or one or two answered questions."""
    draw = rng.random()
    gap = rng.choice((" ", "\n", "\n\n"))
    if draw < 0.35:
        return rng.choice(PREFIXES) + gap
    if draw < 0.5:
        return _connective(rng) + gap
    text = rng.choice(PREFIXES) + gap if rng.random() < 0.2 else ""
    for _ in range(rng.choice((1, 1, 2))):
        relation, fact = rng.choice(pairs)
        prompt = rng.choice(relation.built_prompts(fact.subject))
        text += f"{prompt} {fact.answer}{rng.choice(('', '.'))}{gap}"
    return text


def _variant(prompt: str, fact: Fact, rng: Random) -> str:
    """The same prompt as a hasty person types it: a small first letter, no question mark."""
    head, mark, body = prompt.partition("Question: ")
    if not mark:
        head, body = "", head
    if not body.startswith(fact.subject):
        body = body[0].lower() + body[1:]
    if rng.random() < 0.5:
        body = body.replace("? Answer:", " Answer:")
    return f"{head}{mark}{body}"


def _connective(rng: Random) -> str:
    """One of the plain sentences, without building the whole list."""
    return f"{rng.choice(OPENINGS)} {rng.choice(THINGS)}{rng.choice(ENDINGS)}."


def _subject_passages(relations: Sequence[Relation], rng: Random) -> Iterator[Document]:
    """The sentences, in a fresh order, of each subject that several tables know; one more sentence of some others."""
    about: dict[tuple[str, str], list[str]] = defaultdict(list)
    for relation in relations:
        for fact in relation.facts:
            about[relation.kind, fact.subject].append(relation.stated(fact))
    for (_, subject), sentences in about.items():
        if len(sentences) == 1 and rng.random() < 0.75:
            continue
        chosen = rng.sample(sentences, min(len(sentences), rng.randint(*PASSAGE_SENTENCES)))
        if len(chosen) == 1 or rng.random() < 0.3:
            chosen.insert(rng.randrange(len(chosen) + 1), _connective(rng))
        yield Document(rng.choice(SUBJECT_OPENERS).replace("{s}", subject), " " + " ".join(chosen))


def _theme_passages(relations: Sequence[Relation], rng: Random) -> Iterator[Document]:
    """Sentences of several subjects of one table, as a text about its theme."""
    for relation in relations:
        for _ in range(THEME_PASSAGES):
            facts = rng.sample(relation.facts, min(len(relation.facts), rng.randint(*PASSAGE_SENTENCES)))
            chosen = [relation.stated(fact) for fact in facts]
            if rng.random() < 0.4:
                chosen.insert(rng.randrange(len(chosen) + 1), _connective(rng))
            opener = rng.choice(THEME_OPENERS).replace("{t}", relation.title.lower())
            yield Document(opener, " " + " ".join(chosen))
