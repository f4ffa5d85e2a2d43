"""The house keeps its own rules: imports run downhill, types hold, the style is one, files know one thing."""

import ast
import re
import subprocess
import sys
from collections import Counter
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


FRAGMENT = re.compile(r"\s*(What|Where|Whether|Which|Who|Whose|Of|Those)\b")


def test_no_docstring_begins_as_a_fragment() -> None:
    """A docstring names its object first: "The edits that ...", not "Those that ..."; "True if", not "Whether"."""
    assert not [
        f"{path}:{each.lineno}: {str(each.value)[:60]}"
        for path, tree in parsed()
        for each in docstrings(tree)
        if FRAGMENT.match(str(each.value))
    ]


TERMS = {
    "serving",
    "packing",
    "whitening",
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


OF_LIBRARIES = {
    *("_buffers", "_forward_hooks", "_forward_pre_hooks", "_parameters"),  # torch's modules
    *("_attn_implementation", "_from_config", "_skip_keys_device_placement"),  # transformers' models
    "_replace",  # named tuples
}
PRIVATE_READS = {
    "tests/engine/test_spread.py": (
        1,
        "tensors on pretended devices have no values, by which `suffixes` sorts rows",
    ),
    "tests/laws/stores.py": (1, "it damages a log in memory, which no caller of a log may"),
    "tests/service/test_tokenising.py": (1, "it counts what is tokenised, also for a check of a prompt's beginning"),
    "tests/ui/visitor.py": (
        1,
        "each request has its own loop, and an event belongs to the loop that waited for it",
    ),
}
"""The number of reads of private members in each file of tests, and why nothing public would do."""


def test_tests_read_what_is_public() -> None:
    """A test that reads a private member fails when the member is renamed, and shows nothing that a caller sees. What
    is listed is counted exactly, so that a read that goes takes its line with it."""
    found = Counter(
        str(path)
        for path, tree in parsed("tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match(r"_[a-z]", node.attr)
        and node.attr not in OF_LIBRARIES
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    )
    assert found == {path: count for path, (count, _) in PRIVATE_READS.items()}
