"""The quick form of `faults`: each of them once."""

import asyncio

import pytest

from tests.redis_server import running_redis
from tests.service.faults import FAULTS, run

pytestmark = pytest.mark.slow


def test_whatever_redis_does_no_edit_is_lost_or_doubled_and_answers_go_on() -> None:
    with running_redis() as server:
        summary = asyncio.run(run(len(FAULTS), 1, server))
    assert summary.clean(), summary
    assert summary.edits >= 2
    assert summary.asked_again > 0
    assert summary.answered > 10
