"""A log from its URL."""

import pytest

from app.domain.errors import InvalidRequest, StoreUnavailable
from app.store.memory import MemoryLog
from app.store.open import open_log
from app.store.sqlite import SqliteLog


def test_the_forms_of_sqlite_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
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


@pytest.mark.parametrize(
    "url",
    [
        "redis://ada:secret@127.0.0.1:9/0",
        "rediss://:secret@127.0.0.1:9",
        "redis+sentinel://ada:secret@127.0.0.1:9/mymaster/0",
    ],
)
def test_a_redis_that_is_not_there_is_named_without_its_secret(url):
    with pytest.raises(StoreUnavailable, match="cannot be reached") as error:
        open_log(url)
    assert "secret" not in error.value.message
    assert "127.0.0.1:9" in error.value.message


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@host:port/0",
        "redis+sentinel://:secret@host:26379",
        "redis+sentinel://:secret@host:26379/mymaster?x=y",
        "redis+sentinel://:secret@host:26379/mymaster/db",
    ],
)
def test_a_redis_url_that_cannot_be_read_is_refused_with_its_forms(url):
    with pytest.raises(InvalidRequest, match="redis") as error:
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
