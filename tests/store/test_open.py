"""A log from its URL."""

import pytest

from app.domain.errors import InvalidRequest
from app.store.memory import MemoryLog
from app.store.open import open_log
from app.store.sqlite import SqliteLog


def test_the_forms_of_sqlite_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url, path in (
        ("sqlite:///relative.db", tmp_path / "relative.db"),
        (f"sqlite:///{tmp_path}/absolute.db", tmp_path / "absolute.db"),
        ("sqlite:///sub/my log.db", tmp_path / "sub" / "my log.db"),
    ):
        log = open_log(url)
        assert isinstance(log, SqliteLog)
        assert (log.url, path.exists()) == (url, True)
        log.close()


def test_memory():
    log = open_log("memory://")
    assert isinstance(log, MemoryLog)
    assert (log.url, log.durable) == ("memory://", False)


@pytest.mark.parametrize("url", ["redis://:secret@host:6379/0", "rediss://:secret@host"])
def test_redis_has_its_place_but_is_not_here_yet(url):
    with pytest.raises(InvalidRequest, match="not in this version") as error:
        open_log(url)
    assert "secret" not in error.value.message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "errata.db",
        "sqlite://errata.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///a.db?mode=ro",
        "sqlite:errata.db",
        "memory://x",
        "memory:",
        "postgres://user:secret@host/db",
    ],
)
def test_anything_else_is_refused_without_repeating_it(url):
    with pytest.raises(InvalidRequest, match=r"URL") as error:
        open_log(url)
    assert "secret" not in error.value.message
