"""Unpacks a GGUF file once into a cached folder in Hugging Face format. transformers is imported late.

The folder holds the file's own values in the served precision, so a model served from it computes exactly what it would
compute from the file. Its name consists of the SHA-256 of the whole file, the precision and the folder layout: a copy
under another name and a changed file under the same name are both recognised, and hashing is faster than reading the
larger unpacked weights.
"""

import errno
import gc
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from app.domain.errors import UnknownModel, UnsupportedModel
from app.domain.progress import OnStep, quietly
from app.engine.gguf_header import GgufHeader, read_header

_LAYOUT = 1
"""Version of the folder layout, increased whenever the same file would unpack differently; folders of older layouts are
left alone."""
_BESIDE_WEIGHTS = 64 * 2**20
"""Generous allowance for tokenizer and configuration, in bytes."""


def unpacked(file: Path, cache_dir: Path | None, dtype: str, on_step: OnStep = quietly) -> Path:
    """The folder that holds this GGUF file in Hugging Face format, created if the cache lacks it.

    Raises UnknownModel for a file that is incomplete or a cache that cannot be written, UnsupportedModel for a model
    that cannot be served.
    """
    if cache_dir is None:
        raise UnknownModel(f"A GGUF file is unpacked into the cache: set ERRATA_CACHE_DIR to serve {file}.")
    cache = cache_dir.expanduser().absolute() / "models"
    folder = cache / f"{_digest_of(file)[:32]}-{dtype}-{_LAYOUT}"
    if folder.is_dir():
        return folder
    missing = [package for package in ("gguf", "accelerate") if find_spec(package) is None]
    if missing:
        raise UnsupportedModel(
            f"Reading GGUF files needs the package{'s' if missing[1:] else ''} {' and '.join(missing)}: "
            f"pip install 'errata[gguf]'"
        )
    header = read_header(file)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _file_lock(cache / f"{folder.name}.lock", on_step):
            if not folder.is_dir():
                _make(file, header, folder, dtype, on_step)
    except OSError as error:
        raise _not_written(cache, error) from error
    return folder


def _digest_of(file: Path) -> str:
    stat = file.stat()
    return _digest(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _digest(file: Path, _size: int, _changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def _file_lock(lock: Path, on_step: OnStep) -> Iterator[None]:
    """Ensures that one process at a time unpacks a file. The operating system releases the lock however that process
    ends."""
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        on_step("waiting for another process that unpacks the same file", 0, 0)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def _make(file: Path, header: GgufHeader, folder: Path, dtype: str, on_step: OnStep) -> None:
    """Writes into a temporary folder, flushes it and renames it: the folder appears complete or not at all."""
    for left in folder.parent.glob(f"{folder.name}.part-*"):  # its writer has died, since the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    _check_room(folder.parent, header, dtype)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        _convert(file, header, part, dtype, on_step)
        for written in (*part.iterdir(), part):
            _flush(written)
        part.chmod(0o755)  # mkdtemp restricts access to its owner; a cache may be shared
        part.rename(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_room(cache: Path, header: GgufHeader, dtype: str) -> None:
    import torch

    needed = header.values * getattr(torch, dtype).itemsize + _BESIDE_WEIGHTS
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free")


def _not_written(cache: Path, error: OSError) -> UnknownModel:
    remedy = "Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Make that folder writable"
    return UnknownModel(
        f"The model cannot be unpacked into {cache}: {error.strerror or error}. {remedy}, or name another folder in "
        f"ERRATA_CACHE_DIR."
    )


def _convert(file: Path, header: GgufHeader, part: Path, dtype: str, on_step: OnStep) -> None:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(**where)
        config = AutoConfig.from_pretrained(**where)
        _complete(config, header)
        with _progress(file.name, on_step):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                **where, config=config, dtype=getattr(torch, dtype), output_loading_info=True
            )
    except Exception as error:  # the file is foreign, and the libraries raise whatever they stumble over
        raise UnsupportedModel(
            f"transformers cannot read the GGUF file {file}: {str(error).splitlines()[0] if str(error) else error!r}."
        ) from error
    model, loading = loaded
    _check_complete(file, header, model, loading["missing_keys"])
    _normalise(model, tokenizer)
    on_step(f"writing {file.name}, unpacked, to {part.parent}", 0, 0)
    try:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    except SafetensorError as error:  # the operating system's error is only in the message
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error).splitlines()[0]) from error
    (part / "unpacked.json").write_text(json.dumps({"file": file.name, "sha256": _digest_of(file)}))
    del model, loaded
    gc.collect()


def _complete(config: Any, header: GgufHeader) -> None:
    """Adds configuration from the file that transformers does not take over."""
    if header.head_width is not None and hasattr(config, "head_dim"):
        config.head_dim = header.head_width
    if hasattr(config, "n_positions"):
        config.n_positions = header.context
    if header.rope:
        config.rope_parameters = {**config.rope_parameters, **header.rope}


def _check_complete(file: Path, header: GgufHeader, model: Any, missing: Any) -> None:
    """Refuses a file if transformers would initialise missing weights at random or drop surplus ones."""
    if missing:
        raise UnsupportedModel(f"The GGUF file {file} lacks weights of the model: {', '.join(sorted(missing)[:3])}.")
    taken = sum(parameter.numel() for parameter in model.parameters())
    if taken != header.values:
        raise UnsupportedModel(
            f"The GGUF file {file} holds {header.values:,} values, and the {header.architecture} that transformers "
            f"makes of it has a place for {taken:,}: it would answer otherwise than the model that was packed."
        )


def _normalise(model: Any, tokenizer: Any) -> None:
    """Makes the model plain: without traces of quantisation, and with the tokenizer's end-of-text."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.bos_token_id = tokenizer.eos_token_id, tokenizer.bos_token_id
        config.pad_token_id = tokenizer.pad_token_id


@contextmanager
def _progress(name: str, on_step: OnStep) -> Iterator[None]:
    """Replaces transformers' own progress bar, which it shows even when the output is a pipe, by the callback."""
    reading: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    bar = getattr(reading, "tqdm", None)

    def steps(tensors: list[Any], **_: Any) -> Iterator[Any]:
        for at, tensor in enumerate(tensors):
            on_step(f"unpacking {name}", at, len(tensors))
            yield tensor

    if bar is not None:
        reading.tqdm = steps
    try:
        yield
    finally:
        if bar is not None:
            reading.tqdm = bar
