"""The documentation against the code, both ways: what there is has one place in it, and what it names exists."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main
from prometheus_client.parser import text_string_to_metric_families

from app.api.app import create_app
from app.api.errors import TABLE
from app.api.gate import right_of
from app.api.schemas.corrections import EditBody
from app.api.schemas.edit_visibility import EditVisibility
from app.cli.main import app as commands
from app.config import NOT_SETTINGS, ClientSettings, Settings, default_cache
from app.domain.keys import RIGHTS, Right, Role
from app.editors.registry import EDITORS
from app.service.verification import Thresholds
from app.ui.help import FOLDER, ORDER, read
from tests.api.fake_service import FakeService
from tests.api.serving import Caller
from tests.built_package import build_py

ROOT = Path(__file__).parents[1]
ROLE_OF = {
    Right.GENERATE: "generator",
    Right.READ: "reader",
    Right.PROPOSE: "proposer",
    Right.EDIT: "editor",
    Right.ADMIN: "admin",
    None: "none",
}
BESIDE = {"/docs", "/ui", "/help", "/v1"}
"""Paths that the description of the API leaves out."""


def text(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text()


def rows(header: str) -> list[list[str]]:
    """The cells of all rows, on whatever page, of tables whose first column has this header."""
    found = []
    for name in ORDER:
        for table in re.findall(r"(?:^\|.*\n)+", text(name), re.M):
            first, _, *rest = (_cells(line) for line in table.splitlines())
            if first[0] == header:
                found += rest
    assert found, f"no table begins with a column {header!r}"
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


def codes(markdown: str) -> list[str]:
    return re.findall(r"`([^`]+)`", markdown)


def named(header: str) -> list[str]:
    """The names in the first columns of these tables, in order."""
    return sorted(code for first, *_ in rows(header) for code in codes(first))


def prose() -> Iterator[tuple[str, str]]:
    """(page, code span) of all pages, blocks left out."""
    for name in ORDER:
        for code in codes(re.sub(r"^```.*?^```$", "", text(name), flags=re.S | re.M)):
            yield name, " ".join(code.split())


def sources() -> Iterator[tuple[Path, str]]:
    for path in sorted((ROOT / "app").rglob("*")):
        if path.suffix in (".py", ".html"):
            yield path, path.read_text()


def test_the_pages_that_are_listed_are_all_there_are() -> None:
    assert sorted(ORDER) == sorted(path.stem for path in FOLDER.glob("*.md"))
    readme = (ROOT / "README.md").read_text()
    assert all(f"](app/docs/{name}.md)" in readme for name in ORDER)


# -- settings


def test_every_setting_has_one_row() -> None:
    settings = [f"ERRATA_{name.upper()}" for name in Settings.model_fields]
    assert named("setting") == sorted([*settings, *NOT_SETTINGS])


def test_the_defaults_are_those_of_the_code() -> None:
    models = (*Settings.model_fields.items(), *ClientSettings.model_fields.items())
    defaults = {f"ERRATA_{name.upper()}": field.get_default(call_default_factory=True) for name, field in models}
    for first, told, *_ in rows("setting"):
        (name,) = codes(first)
        assert told == shown(defaults.get(name)), name


def shown(default: Any) -> str:
    if default is None or default == ():
        return "none"
    if default == default_cache():
        return "`~/.cache/errata`"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


# -- routes, fields, errors


def routes() -> dict[tuple[str, str], str]:
    """(method, path, names of parameters left out) -> the path as the code writes it."""
    paths = create_app(FakeService()).openapi()["paths"]  # type: ignore[arg-type]
    return {(method.upper(), bare(path)): path for path, operations in paths.items() for method in operations}


def bare(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_every_route_has_one_row_with_the_role_that_it_needs() -> None:
    known = routes()
    told = {tuple(map(bare, code.split(" "))): role for first, _, role in rows("route") for code in codes(first)}
    assert told.keys() == known.keys()
    assert len(named("route")) == len(known)
    for (method, path), role in told.items():
        assert role == ROLE_OF[right_of(method, known[method, path])], f"{method} {path}"


def test_every_field_of_a_correction_has_one_row() -> None:
    assert named("field of `POST /edit`") == sorted(EditBody.model_fields)


def test_parameters_that_choose_edits_exist() -> None:
    told = set(named("parameter"))
    assert told < EditVisibility.model_fields.keys()
    about_edits = {name for name, field in EditVisibility.model_fields.items() if "dit" in (field.description or "")}
    assert about_edits <= told


def test_every_type_of_error_has_one_row_with_its_status() -> None:
    told = [(codes(first)[0], int(status)) for first, status, _ in rows("type")]
    assert sorted(told) == sorted((kind, status) for status, kind, _ in TABLE.values())


# -- commands, metrics, editors, roles, thresholds


def test_every_command_has_one_row() -> None:
    assert named("command") == sorted(f"errata {' '.join(path)}" for path in leaves(typer.main.get_command(commands)))


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Commands that do something by themselves: a group may, too."""
    inside = getattr(command, "commands", {})
    if path and (not inside or command.invoke_without_command):
        yield path
    for name, each in inside.items():
        yield from leaves(each, (*path, name))


def test_every_metric_has_one_place() -> None:
    families = text_string_to_metric_families(Caller(FakeService()).get("/metrics").text)
    names = [
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if not family.name.endswith("_created")
    ]
    assert named("metric") == sorted(name.removeprefix("errata_") for name in names)


def test_every_editor_has_one_row_with_its_longest_target() -> None:
    told = {codes(first)[0]: last for first, *_, last in rows("editor")}
    assert list(told) == list(EDITORS), "in the order in which `auto` tries them"
    for name, last in told.items():
        source = (ROOT / f"app/editors/{name}/serving.py").read_text()
        assert f"max_target_tokens={last.removesuffix(' tokens')}," in source


def test_every_role_has_one_row_with_its_rights() -> None:
    told = {codes(first)[0]: [cell == "yes" for cell in cells] for first, *cells in rows("role")}
    assert told == {role.value: [right in RIGHTS[role] for right in Right] for role in Role}


def test_every_threshold_has_one_row_with_its_default() -> None:
    told = {codes(first)[0]: float(default) for first, _, default in rows("share")}
    assert told == {each.name: each.default for each in fields(Thresholds)}


# -- what is named exists


def test_paths_that_are_named_exist() -> None:
    known = routes()
    paths = {path for _, path in known}
    count = 0
    for page, code in prose():
        if found := re.fullmatch(r"(GET|POST|PUT|PATCH|DELETE) (/\S*)", code):
            assert (found[1], bare(found[2])) in known, f"{page}: {code}"
            count += 1
        elif re.fullmatch(r"/[\w/{}-]+", code):
            assert bare(code) in paths | BESIDE, f"{page}: {code}"
            count += 1
    assert count > 50


def test_names_that_are_named_exist() -> None:
    """Fields, report keys, metrics and the like: names of several words stand somewhere in the code."""
    words = set(re.findall(r"\w+", "\n".join(text for _, text in sources())))
    wrong = [
        f"{page}: {code}"
        for page, code in prose()
        for name in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", code)
        if name not in words and name not in named("metric") and "intent" not in code
    ]
    assert wrong == []


def test_files_that_are_named_exist() -> None:
    files = [code for _, code in prose() if re.fullmatch(r"(app|deploy)/[\w./-]+", code)]
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_messages_that_are_quoted_are_said() -> None:
    """Piece by piece: what changes from case to case is `...` or a number in the documentation, a field in the code."""
    said = "\n".join(re.sub(r'"\s*\n\s*f?"', "", text) for _, text in sources())
    quoted = [each for name in ORDER for each in re.findall(r'\*"([^"*]+)"\*', text(name))]
    pieces = [piece.strip() for each in quoted for piece in re.split(r"\.\.\.|\d[\d.]*", each)]
    assert len(pieces) > 5
    assert [piece for piece in pieces if piece not in said] == []


# -- links from messages, packaging


def links() -> list[tuple[str, str, str]]:
    """(file, page, anchor) of each place in the code that leads into the documentation."""
    return [
        (str(path.relative_to(ROOT)), page, anchor)
        for path, text in sources()
        for page, anchor in re.findall(r"/help/([a-z]+)(?:#([\w-]+))?", text)
    ]


def test_links_of_messages_lead_to_a_page_and_a_heading() -> None:
    pages = read()
    found = links()
    assert len(found) > 10
    for file, page, anchor in found:
        assert page in pages, f"{file}: /help/{page}"
        assert not anchor or anchor in pages[page].anchors, f"{file}: /help/{page}#{anchor}"


def test_the_pages_are_in_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    command = build_py(monkeypatch)
    command.manifest_files = {}
    packed = {Path(path).name for path in command.find_data_files("app", "app") if Path(path).parent.name == "docs"}
    assert packed == {path.name for path in FOLDER.iterdir()}
