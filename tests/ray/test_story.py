"""The story of replicas on Ray is true; and Serve shows why a deployment cannot start."""

import time

import pytest

from tests.ray.cluster import two_nodes
from tests.ray.story import told

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(420),
    pytest.mark.filterwarnings("default"),  # Ray's own
]


def test_no_edit_is_lost_and_no_answer_wrong_while_a_replica_and_a_node_are_killed() -> None:
    told(print)


def test_replicas_that_would_not_share_a_log_say_what_to_do() -> None:
    with two_nodes(ERRATA_STORE="sqlite:////tmp/errata.db") as nodes:
        nodes.deploy(least=2, most=2, allow_anonymous=True)
        end = time.monotonic() + 120
        while "Name a Redis in ERRATA_STORE" not in (message := nodes.state()[1]):
            assert time.monotonic() < end, message
            time.sleep(0.5)
