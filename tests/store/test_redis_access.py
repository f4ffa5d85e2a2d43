"""Redis is reached over TLS, as a user with no more rights than needed, and through Sentinel."""

import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.errors import StoreUnavailable
from app.domain.snapshot import records_of
from app.store import snapshots, upkeep
from app.store.base import Log
from app.store.open import open_log
from tests.domain.samples import committed, rolled_back
from tests.proxy import Proxy
from tests.redis_server import RedisServer, binary, free_port, running_redis

NEEDED = "+xadd +xrange +xrevrange +xread +xtrim +hset +hget +hkeys +hdel +info +config|get"
"""The rights that README.md and deploy/ say that Errata's user needs."""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


def works(log: Log) -> None:
    """All that is ever asked of a log."""
    log.append(committed(1, "a"))
    log.append(rolled_back(2, "a"))
    assert log.wait(1, 0.1)
    assert not log.wait(2, 0.1)
    ledger, last = upkeep.fold(log)
    snapshots.save(log, 2, last, records_of(ledger), 0.0)
    upkeep.check(log)
    log.trim(2)
    assert (log.first(), log.head(), upkeep.fold(log)[0].revision) == (2, 2, 2)
    log.drop(log.names())
    log.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of a host called localhost, with its key beside it."""
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path.with_name("key.pem")), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture
def tls(server: RedisServer, certificate: Path) -> Iterator[Proxy]:
    """Takes TLS off in front of Redis: not every build of it has TLS."""
    server.client().flushall()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    proxy = Proxy(server.port, tls=context)
    yield proxy
    proxy.close()


def test_over_tls(tls: Proxy, certificate: Path) -> None:
    works(open_log(f"rediss://localhost:{tls.port}/0?ssl_ca_certs={certificate}"))


def test_a_certificate_that_nobody_trusts_is_refused(tls: Proxy, certificate: Path) -> None:
    for url in (f"rediss://localhost:{tls.port}/0", f"rediss://127.0.0.1:{tls.port}/0?ssl_ca_certs={certificate}"):
        with pytest.raises(StoreUnavailable, match="certificate"):
            open_log(url)


def test_as_a_user_who_may_do_no_more_than_is_needed(server: RedisServer) -> None:
    client = server.client()
    client.flushall()
    client.execute_command("ACL", "SETUSER", "ada", "reset", "on", ">p@ss", "~errata:*", *NEEDED.split())
    works(open_log(f"redis://ada:p%40ss@127.0.0.1:{server.port}/0"))
    with pytest.raises(StoreUnavailable, match="name and password"):
        open_log(f"redis://ada:wrong@127.0.0.1:{server.port}/0")
    log = open_log(f"redis://ada:p%40ss@127.0.0.1:{server.port}/0", redis_prefix="other")
    with pytest.raises(StoreUnavailable, match="refuses this user"):
        log.append(committed(1, "a"))
    log.close()


def test_what_a_user_needs_is_told() -> None:
    root = Path(__file__).parents[2]
    assert NEEDED in (root / "deploy/README.md").read_text().replace("\n  ", " ")


@pytest.fixture
def sentinel(server: RedisServer, tmp_path: Path) -> Iterator[int]:
    server.client().flushall()
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\ndir {tmp_path}\nsentinel monitor mymaster 127.0.0.1 {server.port} 1\n")
    process = subprocess.Popen([binary(), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
    yield port
    process.kill()
    process.wait()


def test_through_sentinel(sentinel: int) -> None:
    url = f"redis+sentinel://127.0.0.1:{sentinel}/mymaster/0"
    ends = time.monotonic() + 60
    while True:
        try:
            log = open_log(url)
            break
        except StoreUnavailable:  # it is starting
            assert time.monotonic() < ends
            time.sleep(0.1)
    works(log)
    with pytest.raises(StoreUnavailable):
        open_log(f"redis+sentinel://127.0.0.1:{sentinel}/nobody/0")
