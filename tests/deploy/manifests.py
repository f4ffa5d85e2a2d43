"""The files of deploy/ as data, and what stands in them, looked up in one place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def manifests() -> dict[str, Manifest]:
    """Every object of the cluster, as kind/name; patches of overlays are not objects."""
    found = [each for path in sorted(KUBERNETES.glob("*.yaml")) for each in documents(path)]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in found if each["kind"] != "Kustomization"}


def compose() -> dict[str, Manifest]:
    loaded: dict[str, Manifest] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def pod_of(manifest: Manifest) -> Manifest | None:
    """labels and spec of the pods that a manifest makes."""
    if manifest["kind"] == "Pod":
        return {"labels": manifest["metadata"]["labels"], "spec": manifest["spec"]}
    if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
        template = manifest["spec"]["template"]
        return {"labels": template["metadata"]["labels"], "spec": template["spec"]}
    return None


def pods() -> dict[str, Manifest]:
    return {name: pod for name, each in manifests().items() if (pod := pod_of(each)) is not None}


def containers() -> Iterator[tuple[str, Manifest, Manifest]]:
    """(name of its manifest, pod, container)."""
    for name, pod in pods().items():
        for container in pod["spec"]["containers"]:
            yield name, pod, container


def selects(selector: Manifest, labels: Manifest) -> bool:
    wanted = selector.get("matchLabels", {})
    return all(labels.get(name) == value for name, value in wanted.items())
