"""A Ray cluster of two nodes on loopback, with the application of deploy/ray/serve.yaml. Needs ray[serve]."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.redis_server import free_port
from tests.test_house import ROOT

HEAD, OTHER = "127.0.0.2", "127.0.0.3"
"""The nodes' addresses: Ray takes 127.0.0.1 for a name of the machine, and two nodes need two."""
APPLICATION, DEPLOYMENT = "errata", "Errata"


@dataclass(frozen=True)
class RunningReplica:
    name: str
    node: str
    pid: int


class TwoNodes:
    """The head, which cannot be killed, and another. `urls` are those of their proxies."""

    def __init__(self, cluster: Any, other: Any, dashboard: str, urls: tuple[str, str]) -> None:
        self._cluster, self._other, self.urls = cluster, other, urls
        self._serve = _client(dashboard)
        self._config: dict[str, Any] = {}

    def deploy(self, *, least: int, most: int, **settings: Any) -> None:
        """Deploy what ships, with little of everything: a replica has one core, and more come from two requests on."""
        config = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
        config["http_options"] = {"host": "127.0.0.1", "port": int(self.urls[0].rsplit(":", 1)[1])}
        (application,) = config["applications"]
        application["args"] |= {"stop_grace_s": 20, "reason_required": False} | settings
        (deployment,) = application["deployments"]
        deployment["autoscaling_config"] = {
            "min_replicas": least,
            "initial_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": 1,
            "upscale_delay_s": 2,
            "look_back_period_s": 5,
            "metrics_interval_s": 1,
        }
        deployment |= {"max_replicas_per_node": most, "ray_actor_options": {"num_cpus": 1}, "health_check_period_s": 2}
        self._config = config
        self._serve.deploy_applications(config)

    def state(self) -> tuple[str, str]:
        """The application's status, and what Serve says about it and its replicas."""
        found = self._serve.get_serve_details()["applications"].get(APPLICATION, {})
        said = [found, *found.get("deployments", {}).values()]
        return found.get("status", "NOT_STARTED"), " ".join(each.get("message", "") for each in said)

    def replicas(self) -> list[RunningReplica]:
        found = self._serve.get_serve_details()["applications"].get(APPLICATION, {}).get("deployments", {})
        return [
            RunningReplica(each["replica_id"], each["node_ip"], each["pid"])
            for each in found.get(DEPLOYMENT, {}).get("replicas", [])
            if each["state"] == "RUNNING"
        ]

    def await_running(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while (state := self.state())[0] != "RUNNING":
            assert state[0] not in ("DEPLOY_FAILED", "UNHEALTHY"), state[1]
            assert time.monotonic() < end, f"not running in time: {state}"
            time.sleep(0.5)

    def kill_other_node(self) -> None:
        """End every process of the other node, as a power cut does."""
        self._cluster.remove_node(self._other, allow_graceful=False)

    def stop_application(self) -> None:
        """Deploy no application. Returns at once; the replicas end their work first, and the proxies go on."""
        self._serve.deploy_applications({**self._config, "applications": []})


def _client(dashboard: str) -> Any:
    """The client by which `serve deploy` speaks to the dashboard, once that answers."""
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    end = time.monotonic() + 60
    while True:
        try:
            return ServeSubmissionClient(dashboard)
        except (ConnectionError, RuntimeError):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@contextmanager
def two_nodes(**environment: str) -> Iterator[TwoNodes]:
    """A cluster whose processes have these variables; it is gone when the block ends."""
    ports = [free_port() for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        for name in [name for name in os.environ if name.startswith("ERRATA_") and name != "ERRATA_CACHE_DIR"]:
            patch.delenv(name)
        ours = {
            "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(ports[1]),
            "RAY_TMPDIR": folder,  # Ray also writes the cluster's address there, into a folder that it expects.
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        Path(folder, "ray").mkdir()
        for name, value in (ours | environment).items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 3, "object_store_memory": 80 * 2**20}
        dashboard = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": ports[2]}
        cluster = Cluster(initialize_head=True, head_node_args={**small, **dashboard, "node_ip_address": HEAD})
        try:
            other = cluster.add_node(**small, node_ip_address=OTHER)
            urls = (f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
            yield TwoNodes(cluster, other, f"http://127.0.0.1:{ports[2]}", urls)
        finally:
            cluster.shutdown()
