"""The folder of a run: its lock, its options, and all candidates' figures, whose meaning it does not know."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from app.domain.errors import InvalidRequest

OPTIONS, RESULTS, LOCK, OWNER = "options.json", "results.json", "run.lock", "run.owner"


class Folder:
    """The folder of one run at a time. Files are replaced atomically, so that a kill leaves the old or the new one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, options: Mapping[str, Any]) -> None:
        """Checks that the options are those of the folder: figures of different options must not be mixed. Options that
        the folder does not record are accepted. Raises InvalidRequest."""
        before = self._read(OPTIONS)
        changed = [name for name in options if name in before and before[name] != options[name]]
        if changed:
            raise InvalidRequest(
                f"The run in {self.path} had other options: {', '.join(changed)}. Name another folder."
            )

    def keep(self, options: Mapping[str, Any]) -> None:
        self._write(OPTIONS, options)

    def results(self) -> dict[str, Any]:
        return {"candidates": {}, **self._read(RESULTS)}

    def keep_results(self, results: Mapping[str, Any]) -> None:
        self._write(RESULTS, results)

    def _read(self, name: str) -> dict[str, Any]:
        file = self.path / name
        if not file.exists():
            return {}
        try:
            content = json.loads(file.read_bytes())
            if not isinstance(content, dict):
                raise ValueError("no JSON object")
            return content
        except ValueError as error:
            raise InvalidRequest(
                f"{file} is not whole ({error}): remove it if its run had the same options, or name another folder."
            ) from error

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        part = self.path / f"{name}.part"
        part.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
        part.replace(self.path / name)


@contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """Opens, and if need be creates, the folder for this process alone. Raises InvalidRequest."""
    lock, owner = FileLock(path / LOCK), path / OWNER
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except Timeout as error:
        who = owner.read_text(encoding="utf-8") if owner.exists() else "owner unknown"
        raise InvalidRequest(f"Another run uses {path} ({who}): wait for it, or name another folder.") from error
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written ({error.strerror}): name another folder.") from error
    try:
        yield Folder(path)
    finally:
        lock.release()
