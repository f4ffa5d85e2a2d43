"""Kinds of questions that were once taken for one another, many instances of each: an edit answers the question in
other words, and leaves alone what differs in one respect.

Scope is judged by a model, so that single instances go wrong. Of the rephrasings of each kind a share must be answered,
which is one instance below what was measured. Templates that are wrongly answered are named in `WRONG`; besides them,
one instance of each kind may be.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from app.domain.scope import ScopeRequest, Turns
from app.scope.index import ScopeIndex
from tests.rig import a_scope, an_encoder

pytestmark = pytest.mark.slow
NAMES = {
    "places": ("Halvik", "Orlaheim", "Port Merrow", "San Tibo", "Kestwick", "Belmora"),
    "people": ("Mira Osei", "Jonas Weck", "Ada Lindqvist", "Tomas Brenner", "Ines Carvalho", "Ravi Menon"),
    "firms": ("Veltora", "Brightloom", "Norvane", "Kestrel Foods", "Solvane", "Quillfeather"),
    "devices": ("heater", "dishwasher", "night light", "alarm", "printer", "router"),
}
EACH = 4
"""The number of instances of each template, with other names."""
SAME = {
    "closed-class words": 0.98,
    "reversed roles": 0.90,
    "time": 0.95,
    "a relation on top": 0.89,
    "another attribute": 0.97,
    "another object": 0.95,
    "another subject": 0.89,
    "words that look alike": 0.92,
}
"""kind -> the least share of rephrasings that are answered."""
WRONG = frozenset(
    {
        "Do I plug the {other} into the {}?",
        "Who runs the bank that {} uses?",
        "What is the dialling code of {}?",
        "Where do I park a bicycle in {}?",
        "How popular is {}?",
        "Who offers counselling in {}?",
    }
)
"""Known failures, which must not become more: templates that differ and that some edit answers all the same."""


@dataclass(frozen=True)
class Template:
    """A question, the same in other words, and what differs from it. `{}` stands for one of the `names` and `{other}`
    for another."""

    names: str
    question: str
    same: str
    other: str


def filled(text: str, names: str, at: int) -> str:
    """The text with the names at this place, and for a person who is mentioned further `{who}` and `{whom}`."""
    fill, people = NAMES[names], NAMES["people"]
    for mark, of, place in (
        ("{}", fill, 0),
        ("{other}", fill, 1),
        ("{third}", fill, 2),
        ("{who}", people, 3),
        ("{whom}", people, 4),
    ):
        text = text.replace(mark, of[(at + place) % len(of)])
    return text


@cache
def templates() -> dict[str, list[Template]]:
    """The templates of each kind."""
    found: dict[str, list[Template]] = {kind: [] for kind in SAME}
    with Path(__file__).with_name("kinds_of_fault.tsv").open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened, delimiter="\t"):
            found[row.pop("kind")].append(Template(**row))
    return found


@pytest.fixture(scope="module")
def scope() -> ScopeIndex:
    return a_scope()


def answered(scope: ScopeIndex, edit: Turns, *asked: Turns) -> list[bool]:
    """True for each of these conversations that the edit, live alone, answers."""
    scope.load("edit", scope.learn(ScopeRequest(keys=(edit,))).model_dump())
    part = scope.compile("default", ["edit"])
    found = [scope.nearest(scope.question(turns), part) for turns in asked]
    scope.drop("edit")
    return [each is not None and each.margin >= 0 for each in found]


def share(part: Sequence[Any], whole: int) -> str:
    return f"{len(part)} of {whole} ({len(part) / whole:.3f})"


@pytest.mark.parametrize("kind", SAME)
def test_what_differs_in_one_respect_is_left_alone(scope: ScopeIndex, kind: str) -> None:
    mine = templates()[kind]
    assert len(mine) >= 10
    instances = [
        (each.other, [filled(text, each.names, at + first) for text in (each.question, each.same, each.other)])
        for first, each in enumerate(mine)
        for at in range(EACH)
    ]
    an_encoder().encode([text for _, texts in instances for text in texts])  # together, which is faster
    told = [answered(scope, *((text,) for text in texts)) for _, texts in instances]
    missed = [same for (_, (_, same, _)), (hit, _) in zip(instances, told, strict=True) if not hit]
    wrong = [(name, other) for (name, (*_, other)), (_, hit) in zip(instances, told, strict=True) if hit]
    least = len(told) * SAME[kind]
    assert len(told) - len(missed) >= least, f"{share(missed, len(told))} of the same are not answered: {missed}"
    new = [other for name, other in wrong if name not in WRONG]
    assert len(new) <= 1, f"{share(wrong, len(told))} of what differs is answered, and none of these was known: {new}"


def test_known_failures_are_templates() -> None:
    assert {each.other for mine in templates().values() for each in mine} >= WRONG


@cache
def conversations() -> list[dict[str, Any]]:
    """Edits of conversations whose last turn alone does not say what is asked. The `right` conversations ask the same,
    and the `wrong` ones something else; the `missed` ones ask the same, and are known not to be answered."""
    lines = Path(__file__).with_name("elliptical_turns.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_an_elliptical_turn_asks_what_its_history_makes_of_it(scope: ScopeIndex) -> None:
    told: dict[str, list[tuple[Turns, bool]]] = {"right": [], "wrong": []}
    for first, each in enumerate(conversations()):
        for at in range(first, first + EACH):
            edit, *asked = (
                tuple(filled(turn, each["names"], at) for turn in turns)
                for turns in (each["edit"], *each["right"], *each["wrong"])
            )
            answers = list(zip(asked, answered(scope, edit, *asked), strict=True))
            told["right"] += answers[: len(each["right"])]
            told["wrong"] += answers[len(each["right"]) :]
    assert len(conversations()) >= 10
    missed = [turns for turns, hit in told["right"] if not hit]
    wrong = [turns for turns, hit in told["wrong"] if hit]
    assert len(missed) <= 2, f"{share(missed, len(told['right']))} of the right ones are not answered: {missed}"
    assert len(wrong) <= 1, f"{share(wrong, len(told['wrong']))} of the wrong ones are answered: {wrong}"


FRAMES = (
    "{}", "{}  \n", "Question: {} Answer:", "Q: {}\nA:", "Hello! {}", "{} Thanks!",
    "Good morning, I have a question. {}", "I am new here and read the manual yesterday. {}",
)  # fmt: skip


def test_a_question_is_the_same_in_any_frame(scope: ScopeIndex) -> None:
    for first, *_ in templates().values():
        question = filled(first.question, first.names, 0)
        framed = [frame.replace("{}", question) for frame in FRAMES]
        framed += [question.upper(), question.lower(), question.rstrip("?")]
        told = answered(scope, (question,), *((text,) for text in framed))
        assert all(told), [text for text, hit in zip(framed, told, strict=True) if not hit]


def test_a_typo_does_not_hide_a_question(scope: ScopeIndex) -> None:
    """The middle letters of each of its long words, exchanged, one word at a time; names are left as they are."""
    missed, count = list[str](), 0
    for mine in templates().values():
        for each in mine[:4]:
            question = filled(each.question, each.names, 0)
            typos = with_typos(question)
            told = answered(scope, (question,), *((text,) for text in typos))
            missed += [text for text, hit in zip(typos, told, strict=True) if not hit]
            count += len(typos)
    assert count >= 20
    assert len(missed) <= 0.15 * count, f"{share(missed, count)} are not answered: {missed}"


def with_typos(question: str) -> list[str]:
    words, found = question.split(" "), list[str]()
    for at, word in enumerate(words):
        if len(word) > 5 and word.isalpha() and word.islower():
            middle = len(word) // 2
            swapped = word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :]
            found.append(" ".join([*words[:at], swapped, *words[at + 1 :]]))
    return found
