"""An editor needs a folder, a line in the registry and a row in the documentation, and none has been forgotten."""

from pathlib import Path

from app.editors.registry import EDITORS

APP = Path(__file__).parents[2] / "app"


def test_every_editor_has_a_folder_a_line_and_a_row() -> None:
    folders = {each.parent.name for each in (APP / "editors").glob("*/__init__.py")} - {"fitting"}
    assert folders == set(EDITORS)
    documentation = (APP / "docs/editors.md").read_text(encoding="utf-8")
    assert [name for name in EDITORS if f"\n| `{name}` |" not in documentation] == []


def test_every_editor_has_the_default_preset() -> None:
    assert [name for name, presets in EDITORS.items() if "serving" not in presets] == []
