"""Redis alone can break a log like this: lose entries, not answer, or answer too late."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.domain.errors import InvalidRequest, LostRace, StoreCorrupt, StoreUnavailable
from app.store.redis import RedisLog
from app.store.redis_client import ANSWER_S, CONNECT_S
from tests.domain.samples import committed, rolled_back
from tests.proxy import Proxy
from tests.redis_server import RedisServer, running_redis
from tests.store import kill_redis

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    server.client().flushall()
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


def unavailable(log: RedisLog, revision: int) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as error:
        log.append(committed(revision, f"e{revision}"))
    assert error.value.details["retry_after_s"] >= 1
    return error.value


@pytest.mark.parametrize(
    ("option", "value"), [("appendonly", "no"), ("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru")]
)
def test_a_redis_that_may_lose_edits_is_refused_unless_that_is_allowed(option: str, value: str) -> None:
    with running_redis(**{option: value}) as server:
        with pytest.raises(InvalidRequest, match=f"{option} is {value}"):
            RedisLog(server.url)
        log = RedisLog(server.url, allow_not_durable=True)
        assert not log.durable
        log.append(committed(1, "a"))
        log.close()


def test_durability_that_is_taken_away_while_it_runs_is_seen() -> None:
    with running_redis() as server:
        log, lenient = RedisLog(server.url), RedisLog(server.url, allow_not_durable=True)
        log.recheck()
        server.client().config_set("appendfsync", "no")
        with pytest.raises(InvalidRequest, match="appendfsync is no"):
            log.recheck()
        lenient.recheck()
        assert (log.durable, lenient.durable) == (False, False)
        server.client().config_set("appendfsync", "always")
        log.recheck()
        assert log.durable
        log.close()
        lenient.close()


def test_a_password_is_needed_where_one_is_set_and_never_shown() -> None:
    with running_redis(requirepass="s3cret") as server:
        with pytest.raises(StoreUnavailable, match="name and password"):
            RedisLog(server.url)
        log = RedisLog(server.url.replace("//", "//:s3cret@"))
        assert log.durable
        assert "s3cret" not in log.url
        log.close()


def test_one_event_is_one_stream_entry_under_its_revision(server: RedisServer) -> None:
    client = server.client()
    client.flushall()
    log = RedisLog(server.url, prefix="tenant:a")
    log.append(committed(1, "a"))
    log.append(rolled_back(2, "a"))
    assert client.keys() == [b"tenant:a:log"]
    assert [entry_id for entry_id, _ in client.xrange("tenant:a:log")] == [b"1-0", b"2-0"]
    log.close()


def test_a_lost_answer_is_read_back_and_nothing_is_doubled(server: RedisServer, proxy: Proxy) -> None:
    log = RedisLog(f"redis://127.0.0.1:{proxy.port}/0")
    log.append(committed(1, "a"))
    proxy.drop_answers = True
    unavailable(log, 2)
    proxy.drop_answers = False
    # it may have been kept: the log says which
    kept = log.head() == 2
    if kept:
        with pytest.raises(LostRace):
            log.append(committed(2, "other"))
    log.append(committed(3 if kept else 2, "next"))
    assert [event.revision for event in log.read()] == list(range(1, log.head() + 1))
    log.close()


def test_an_answer_that_is_lost_once_is_no_failure(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.client().flushall()
    log = RedisLog(server.url)
    log.append(committed(1, "a"))
    sent = redis.Redis.execute_command
    lost: list[object] = []

    def lose_one(client: redis.Redis, *command: object, **options: object) -> object:
        answer = sent(client, *command, **options)
        if command[0] == "XADD" and not lost:
            lost.append(command)
            raise redis.TimeoutError("Timeout reading from socket")
        return answer

    monkeypatch.setattr(redis.Redis, "execute_command", lose_one)
    log.append(committed(2, "b"))
    assert lost
    assert [event.revision for event in log.read()] == [1, 2]
    log.close()


def test_the_time_limits_of_an_append_add_up_to_five_seconds_at_most() -> None:
    """Two answers, and in doubt a third one over a new connection."""
    assert CONNECT_S + 3 * ANSWER_S <= 5.0


@pytest.mark.parametrize("fault", ["half_open", "slow", "frozen", "cut"])
def test_every_append_ends_and_the_log_goes_on_after(fault: str, server: RedisServer, proxy: Proxy) -> None:
    log = RedisLog(f"redis://127.0.0.1:{proxy.port}/0")
    log.append(committed(1, "a"))
    if fault == "half_open":
        proxy.half_open = True
    elif fault == "slow":
        proxy.delay_s = 3.0
    elif fault == "frozen":
        server.freeze()
    else:
        proxy.cut()  # the next question opens a new connection, and is answered
    if fault != "cut":
        unavailable(log, 2)
    proxy.half_open, proxy.delay_s = False, 0.0
    server.thaw()
    ends = time.monotonic() + 60
    while True:
        try:
            head = log.head()
            log.append(committed(head + 1, f"after-{head}"))
            break
        except StoreUnavailable:  # a connection that is half dead may fail once more
            assert time.monotonic() < ends
            time.sleep(0.2)
    events = list(log.read())
    assert [event.revision for event in events] == list(range(1, len(events) + 1))
    assert events[-1].edit.id.startswith("after-")
    log.close()


def test_a_killed_redis_has_all_that_it_acknowledged(tmp_path: Path) -> None:
    summary = kill_redis.run(4, seed=1, folder=tmp_path)
    assert summary.clean(), summary
    assert summary.acknowledged > 20
    assert summary.rewrites == 4


def test_a_log_goes_on_by_itself_after_redis_was_killed() -> None:
    with running_redis() as server:
        log = RedisLog(server.url)
        log.append(committed(1, "a"))
        server.kill()
        with pytest.raises(StoreUnavailable):
            log.append(committed(2, "b"))
        server.start()
        log.append(committed(2, "b"))
        assert log.head() == 2
        log.close()


def test_a_log_that_was_deleted_is_not_begun_in_its_middle(server: RedisServer) -> None:
    server.client().flushall()
    log = RedisLog(server.url)
    log.append(committed(1, "a"))
    head = log.head

    def deleted_meanwhile() -> int:
        found = head()
        server.client().flushall()
        return found

    log.head = deleted_meanwhile  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="deleted"):
        log.append(rolled_back(2, "a"))
    assert server.client().exists("errata:log") == 0
    log.close()


def test_a_key_that_is_not_errata_s_is_named(server: RedisServer) -> None:
    client = server.client()
    client.flushall()
    client.set("errata:log", "x")
    log = RedisLog(server.url)
    with pytest.raises(StoreCorrupt, match="not a stream"):
        log.head()
    client.flushall()
    client.xadd("errata:log", {"other": "x"}, id="1-0")
    with pytest.raises(StoreCorrupt, match="other fields"):
        list(log.read())
    client.flushall()
    client.xadd("errata:log", {"e": "x"}, id="1-7")
    with pytest.raises(StoreCorrupt, match="id was not given by Errata"):
        list(log.read())
    log.close()


def test_waiting_ends_with_the_news(server: RedisServer) -> None:
    server.client().flushall()
    one, other = RedisLog(server.url), RedisLog(server.url)
    assert not one.wait(0, 0.05)
    other.append(committed(1, "a"))
    assert one.wait(0, 5.0)
    assert not one.wait(1, 0.05)
    one.close()
    other.close()
