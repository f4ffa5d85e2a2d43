"""Kinds of questions that were once taken for one another, many instances of each: an edit answers the question in
other words, and leaves alone what differs in one respect.

Scope is judged by a model, so that single instances may go wrong: each kind has a share that must hold.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.domain.scope import ScopeRequest
from app.scope.index import ScopeIndex
from tests.rig import a_scope

pytestmark = pytest.mark.slow
PLACES = ("Halvik", "Orlaheim", "Port Merrow", "San Tibo", "Kestwick", "Belmora")
PEOPLE = ("Mira Osei", "Jonas Weck", "Ada Lindqvist", "Tomas Brenner", "Ines Carvalho", "Ravi Menon")
FIRMS = ("Veltora", "Brightloom", "Norvane", "Kestrel Foods", "Solvane", "Quillfeather")
DEVICES = ("heater", "dishwasher", "night light", "alarm", "printer", "router")


@dataclass(frozen=True)
class Kind:
    """The names for `{}`, the least share of the same questions that is answered, and the greatest of others."""

    fill: tuple[str, ...]
    same: float
    other: float


KINDS = {
    "closed-class words": Kind(DEVICES, same=0.8, other=0.0),
    "reversed roles": Kind(PLACES, same=0.8, other=0.0),
    "time": Kind(FIRMS, same=0.7, other=0.05),
    "a relation on top": Kind(FIRMS, same=0.8, other=0.25),
    "another attribute, object or subject": Kind(PEOPLE, same=0.8, other=0.1),
    "words that look alike": Kind(PLACES, same=0.75, other=0.25),
}


def cases() -> dict[str, list[list[str]]]:
    """kind -> [question, the same in other words, what differs], with `{}` for a name and `{other}` for another one."""
    found: dict[str, list[list[str]]] = {kind: [] for kind in KINDS}
    with Path(__file__).with_name("kinds_of_fault.tsv").open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened, delimiter="\t"):
            found[row["kind"]].append([row["question"], row["same"], row["other"]])
    return found


CASES = cases()


def filled(text: str, fill: tuple[str, ...], at: int = 0) -> str:
    return text.replace("{}", fill[at]).replace("{other}", fill[(at + 1) % len(fill)])


def answered(scope: ScopeIndex, edit: str, *asked: str) -> list[bool]:
    scope.load(edit, scope.learn(ScopeRequest(keys=((edit,),))).model_dump())
    part = scope.compile("default", [edit])
    found = [scope.nearest(scope.question((text,)), part) for text in asked]
    scope.drop(edit)
    return [each is not None and each.margin >= 0 for each in found]


@pytest.mark.parametrize("name", KINDS)
def test_what_differs_in_one_respect_is_left_alone(name: str) -> None:
    scope, kind = a_scope(), KINDS[name]
    instances = [[filled(text, kind.fill, at) for text in case] for case in CASES[name] for at in range(len(kind.fill))]
    told = [answered(scope, *case) for case in instances]
    same, other = (sum(each[at] for each in told) / len(told) for at in (0, 1))
    assert len(told) >= 18
    assert same >= kind.same, f"{same:.2f} of the same are answered"
    assert other <= kind.other, f"{other:.2f} of what differs is answered"


FRAMES = (
    "{}", "{}  \n", "Question: {} Answer:", "Q: {}\nA:", "Hello! {}", "{} Thanks!",
    "Good morning, I have a question. {}", "I am new here and read the manual yesterday. {}",
)  # fmt: skip


def test_a_question_is_the_same_in_any_frame() -> None:
    scope = a_scope()
    questions = [filled(CASES[name][0][0], kind.fill) for name, kind in KINDS.items()]
    for question in questions:
        framed = [frame.replace("{}", question) for frame in FRAMES]
        wrong = [text for text, hit in zip(framed, answered(scope, question, *framed), strict=True) if not hit]
        assert not wrong
        assert all(answered(scope, question, question.upper(), question.lower(), question.rstrip("?")))


def test_a_typo_does_not_hide_a_question() -> None:
    """The middle letters of each of its long words, exchanged, one word at a time; names are left as they are."""
    scope, told = a_scope(), []
    for name, kind in KINDS.items():
        for case in CASES[name]:
            words = filled(case[0], kind.fill).split(" ")
            for at, word in enumerate(words):
                if len(word) > 5 and word.isalpha() and word.islower():
                    middle = len(word) // 2
                    swapped = word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :]
                    told += answered(scope, " ".join(words), " ".join([*words[:at], swapped, *words[at + 1 :]]))
    assert len(told) >= 20
    assert sum(told) / len(told) >= 0.85
