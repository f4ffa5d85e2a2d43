"""A store of each kind for the laws."""

import pytest

from tests.laws.stores import STORES, RedisStore
from tests.redis_server import running_redis


@pytest.fixture(scope="session")
def redis_server():
    with running_redis() as server:
        yield server


@pytest.fixture(params=sorted(STORES))
def store(request, tmp_path):
    kind = STORES[request.param]
    if kind is RedisStore:
        RedisStore.server = request.getfixturevalue("redis_server")
    return kind(tmp_path)
