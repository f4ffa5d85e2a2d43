"""The service of these tests is called as the real one is: the same names, arguments and kinds of call."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

import app.api
import app.ui
from app.service.answers import Answers
from app.service.examined_judge import ExaminedJudge
from app.service.service import Service
from tests.api.fake_service import FakeService

PAIRS: dict[str, tuple[type, type]] = {
    "service": (Service, FakeService),
    "answers": (Answers, type(FakeService().answers)),
    "examined_judge": (ExaminedJudge, type(FakeService().examined_judge)),
}
OWN = {"made", "make"}
"""Methods that only the fake has."""


def public(of: type) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


def shape(called: Any) -> tuple[Any, ...]:
    """A method as a caller sees it: its arguments with their defaults, and how its result is awaited."""
    arguments = [(each.name, each.kind, each.default) for each in inspect.signature(called).parameters.values()]
    return arguments, inspect.iscoroutinefunction(called), inspect.isasyncgenfunction(called)


@pytest.mark.parametrize("name", PAIRS)
def test_a_fake_is_called_as_what_it_stands_for(name: str) -> None:
    real, fake = PAIRS[name]
    both = public(real) & public(fake)
    assert public(fake) - public(real) <= OWN
    methods = [each for each in both if callable(inspect.getattr_static(fake, each))]
    assert methods
    for each in methods:
        assert shape(inspect.getattr_static(fake, each)) == shape(inspect.getattr_static(real, each)), each


def asked_of_the_service() -> set[str]:
    """The names that the API and the pages read of something called `service`."""
    found = set()
    for package in (app.api, app.ui):
        for file in Path(package.__path__[0]).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] == "service":
                    found.add(node.attr)
    return found


def test_the_fake_has_all_that_the_api_and_the_pages_ask_of_a_service() -> None:
    names = asked_of_the_service()
    assert {"edit", "records", "stream"} <= names
    assert not {name for name in names if not hasattr(FakeService(), name)}
