"""The house keeps its own rules: imports run downhill, types hold, the style is one, files know one thing."""

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    "pyproject.toml",
    "Dockerfile",
    "docker-compose.yml",
    "app",
    "tests",
    "deploy",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
}


def tracked() -> list[Path]:
    """Files that git knows; in an unpacked copy without git, all."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
        return [ROOT / name for name in listed.stdout.splitlines()]
    made = {".venv", "errata.egg-info", "__pycache__"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not made & set(path.parts)]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        pytest.param(["mypy"], marks=pytest.mark.slow),
        ["lint-imports"],
    ],
    ids=lambda command: command[0] + (" format" if "format" in command else ""),
)
def test_checks(command: list[str]) -> None:
    tool = Path(sys.executable).parent / command[0]
    done = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_top_level_is_as_ordered() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_files_are_short_enough_to_know_one_thing() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in tracked()
        if path.suffix == ".py" and path.exists() and (count := len(path.read_text().splitlines())) > 350
    }
    assert not long


def test_every_module_says_what_it_is() -> None:
    silent = [
        path.relative_to(ROOT)
        for path in tracked()
        if path.suffix == ".py" and path.exists() and (text := path.read_text()).strip() and not text.startswith('"""')
    ]
    assert not silent


@cache
def parsed(folder: str = "app") -> list[tuple[Path, ast.Module]]:
    files = [
        path for path in tracked() if path.suffix == ".py" and path.exists() and folder in path.relative_to(ROOT).parts
    ]
    return [(path.relative_to(ROOT), ast.parse(path.read_text())) for path in files]


def docstrings(tree: ast.Module) -> list[ast.Constant]:
    """Docstrings of modules, classes and functions, and the texts below attributes."""
    found = []
    for node in ast.walk(tree):
        for each in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if (
                isinstance(each, ast.Expr)
                and isinstance(each.value, ast.Constant)
                and isinstance(each.value.value, str)
            ):
                found.append(each.value)
    return found


FRAGMENT = re.compile(
    r"\s*(What|Where|Whether|Which|Who|Whose|Of|Those|As|How|And|But|Or|Than|From|For|With|Without|Called|Refused)\b"
)


@pytest.mark.slow
def test_no_docstring_begins_as_a_fragment() -> None:
    """A docstring names its object first: "The edits that ...", not "Those that ..."; "True if", not "Whether"."""
    assert not [
        f"{path}:{each.lineno}: {str(each.value)[:60]}"
        for folder in ("app", "tests", "deploy")
        for path, tree in parsed(folder)
        for each in docstrings(tree)
        if FRAGMENT.match(str(each.value))
    ]


def test_no_help_begins_as_a_fragment() -> None:
    """Help of commands and descriptions in the API name their object first, too: "The editor that learns it"."""
    helps = [
        (f"{path}:{call.lineno}", ast.unparse(each.value).lstrip("f").strip("'\""))
        for path, tree in parsed()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for each in call.keywords
        if each.arg in ("help", "description", "summary")
    ]
    assert not [each for each in helps if re.match(r"(What|Where|Whether|Which|Who|Whose|Of|Those|How)\b", each[1])]


TERMS = {
    "serving",
    "packing",
    "training",
    "forcing",
    "timing",
    "decoding",
    "editing",
    "fitting",
    "keyring",
}
"""Words in -ing that name a thing or a method of the field: a preset, a keyring, teacher forcing, a bench's section."""
LONE = {
    "Fitted",
    "Learned",
    "Routing",
    "Incoming",
    "Outgoing",
    "Keyring",
    "Served",
    "Adopted",
    "Greeting",
    "Embed",
    "Speed",
    "Unauthenticated",
}
"""Classes of one word in -ing or -ed that have a place in the contract of editors or in the API, or are nouns."""


def test_modules_and_classes_are_named_by_nouns() -> None:
    """A name says what its object holds: `edit_pipeline`, not `making`; `EditResult`, not `Made`."""
    trees = parsed()
    modules = [str(path) for path, _ in trees if path.stem.endswith("ing") and path.stem.split("_")[-1] not in TERMS]
    classes = [
        f"{path}: {each.name}"
        for path, tree in trees
        for each in tree.body
        if isinstance(each, ast.ClassDef) and re.fullmatch(r"[A-Z][a-z]+(ing|ed)", each.name) and each.name not in LONE
    ]
    assert not modules + classes


def test_no_two_public_classes_have_one_name() -> None:
    """One name, one thing; `Learned` is each editor's own record of a fit."""
    homes: dict[str, list[str]] = {}
    for path, tree in parsed():
        for each in tree.body:
            if isinstance(each, ast.ClassDef) and not each.name.startswith("_") and each.name != "Learned":
                homes.setdefault(each.name, []).append(str(path))
    assert not {name: where for name, where in homes.items() if len(where) > 1}


def test_the_glossary_has_each_word_once() -> None:
    lines = (ROOT / "app/README.md").read_text().split("## Words")[1].split("\n## ")[0].splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith("| ")][1:]
    words = [word.strip() for row in rows for word in row.split(",")]
    assert len(words) > 30
    assert len(words) == len(set(words))


def test_the_tour_names_modules_that_exist() -> None:
    """Each room has one row, and what is listed under a room is a module or a folder of it. Cells are short."""
    rooms = (ROOT / "app/README.md").read_text().split("## Rooms")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in rooms.splitlines() if line.startswith("| ")][1:]
    assert not [what for _, what in rows if len(what) > 130]
    named = {name.strip("/") for cell, _ in rows for name in re.findall(r"`(.+?)`", cell)} | {"docs"}
    folders = {
        path.relative_to(ROOT / "app").parts[0] for path in tracked() if "app" in path.relative_to(ROOT).parts[:-2]
    }
    assert folders <= named
    for part in rooms.split("\n**`")[1:]:
        room, _, text = part.partition("/`**")
        names = re.findall(r"`([a-z_]+)/?`", text)
        known = {path.stem for path in (ROOT / "app" / room).rglob("*") if "__pycache__" not in path.parts}
        assert names
        assert not set(names) - known, room


def test_a_decision_takes_eight_lines_at_most() -> None:
    paragraphs = (ROOT / "app/DECISIONS.md").read_text().split("\n\n")[1:]
    assert not [each.splitlines()[0] for each in paragraphs if len(each.strip().splitlines()) > 8]
    dates = [match and match[1] for match in (re.match(r"\s*\*\*(20\d\d-\d\d-\d\d)\. ", each) for each in paragraphs)]
    assert all(dates)
    assert dates == sorted(map(str, dates)), "the oldest stand first"


def test_the_readme_is_read_in_one_go() -> None:
    """Words outside code blocks; tables count."""
    prose = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(prose.split()) <= 1200


def test_the_service_is_a_facade() -> None:
    """It checks and passes on: what a use case does is in a module of its own."""
    tree = ast.parse((ROOT / "app/service/service.py").read_text())
    (facade,) = [each for each in tree.body if isinstance(each, ast.ClassDef)]
    methods = [each for each in facade.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert (facade.end_lineno or 0) < 200
    assert not [each.name for each in methods if each.name != "edit" and len(each.body) > 5]


def test_the_switch_has_one_name() -> None:
    """A kill switch that is on, and lets edits answer, says the opposite of what it does."""
    texts = [
        path for path in tracked() if path.suffix in (".py", ".md", ".html") and "app" in path.relative_to(ROOT).parts
    ]
    assert not [path for path in texts if path.exists() and re.search(r"kill.?switch", path.read_text(), re.IGNORECASE)]


def test_the_service_reaches_the_engine_through_its_client() -> None:
    """`EngineAccess` alone hands the engine out, for measurements; no use case reaches through its owner, and none
    asks which class an editor has."""
    for path in sorted((ROOT / "app/service").glob("*.py")):
        text = path.read_text()
        assert "_owner.engine" not in text or path.name == "engine_access.py", path.name
        assert not re.search(r"isinstance\([^)]*\b(Grace|Patcher|LoraMixture|HookLayers|Editor)\b", text), path.name


REPLACED = {
    **dict.fromkeys(("tell", "_tell", "tells", "told", "telling"), "a callback is `on_progress`, `on_step`, ..."),
    **dict.fromkeys(("standing", "stands"), "`live`, `current` or `status`, as the glossary has it"),
    **dict.fromkeys(("adaptor", "adaptor_key"), "an editor and its preset in one word are an `editor_key`"),
    **dict.fromkeys(("asked", "_asked"), "only a number of questions; a sequence is `prompts`, `requests` or `specs`"),
}
"""Words that had several meanings, and what says it now."""


def bound_names(tree: ast.AST) -> list[tuple[str, int]]:
    """The names that a module gives to functions, arguments, variables and attributes, with their lines."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.arg(arg=name):
                found.append((name, node.lineno))
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                found.append((name, node.lineno))
    return found


def test_no_name_is_a_word_with_several_meanings() -> None:
    counts = {"app/evaluation/scores.py", "app/evaluation/time_limit.py", "app/demo/check.py"}
    counts |= {"app/api/schemas/server.py", "app/service/views.py", "app/service/examined_judge.py"}
    found = [
        f"{path}:{line}: {name}: {REPLACED[name]}"
        for path, tree in parsed()
        if "inside" not in path.parts
        for name, line in bound_names(tree)
        if name in REPLACED and not (name.strip("_") == "asked" and str(path) in counts)
    ]
    assert not found


def test_names_say_what_they_hold() -> None:
    """A name does not say that its object was found or made: it is `match`, `rows`, `problem`, `attempts`. Fields of a
    class are part of a contract, as is the name of stored weights."""
    empty, kept = {"found", "made", "beside"}, {"app/scope_training/items.py: made", "app/scope/scorer.py: beside"}
    bound = [
        f"{path}:{line}: {name}"
        for path, tree in parsed()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for name, line in bound_names(function)
        if name.strip("_") in empty and f"{path}: {name}" not in kept
    ]
    assert not bound


OF_LIBRARIES = {
    *("_buffers", "_forward_hooks", "_forward_pre_hooks", "_parameters"),  # torch's modules
    *("_attn_implementation", "_from_config", "_skip_keys_device_placement", "_hf_hook"),  # models of transformers
    "_replace",  # named tuples
}
BY_NAME = {"getattr", "hasattr", "setattr", "delattr", "attrgetter", "patch", "object", "multiple"}
"""The functions that take the name of a member as a string."""
PRIVATE_READS = {
    "tests/engine/test_spread.py": (
        1,
        "tensors on pretended devices have no values, by which `suffixes` sorts rows",
    ),
    "tests/laws/stores.py": (1, "it damages a log in memory, which no caller of a log may"),
    "tests/service/test_tokenising.py": (2, "it counts what is tokenised, also for a check of a prompt's beginning"),
    "tests/ui/visitor.py": (
        1,
        "each request has its own loop, and an event belongs to the loop that waited for it",
    ),
}
"""The number of reads of private members in each file of tests, and why nothing public would do."""


def members_named(node: ast.AST) -> list[str]:
    """The members that a node reads of something else: by attribute, by import, or by a string, as `setattr(x, "name")`
    and `patch("module.name")` do."""
    if isinstance(node, ast.Attribute):
        return [] if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") else [node.attr]
    if isinstance(node, ast.ImportFrom):
        return [each.name for each in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in BY_NAME:
        texts = [each.value for each in node.args[:2] if isinstance(each, ast.Constant)]
        return [text.rpartition(".")[2] for text in texts if isinstance(text, str)]
    return []


def test_tests_read_what_is_public() -> None:
    """A test that reads a private member fails when the member is renamed, and shows nothing that a caller sees. What
    is listed is counted exactly, so that a read that goes takes its line with it."""
    found = Counter(
        str(path)
        for path, tree in parsed("tests")
        for node in ast.walk(tree)
        for name in members_named(node)
        if re.match(r"_[a-z]", name) and name not in OF_LIBRARIES
    )
    assert found == {path: count for path, (count, _) in PRIVATE_READS.items()}
