"""The pairs are for training alone: what is installed is without them."""

import pytest

from tests.built_package import ROOT, build_py


def test_the_pairs_are_in_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    command = build_py(monkeypatch)
    pairs = [str(path.relative_to(ROOT)) for path in (ROOT / "app/scope_training/pairs").iterdir()]
    assert len(pairs) > 20
    command.manifest_files = {"app.scope_training": pairs}  # as if a list of the sources named them
    packages = ("app", "app.scope", "app.scope_training")
    packed = {path for name in packages for path in command.find_data_files(name, name.replace(".", "/"))}
    assert "app/scope/scorer_v1.safetensors" in packed
    assert packed.isdisjoint(pairs)
