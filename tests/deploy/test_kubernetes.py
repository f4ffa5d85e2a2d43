"""The manifests without a cluster: schemas, and everything that must name something that exists elsewhere."""

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.api.app import create_app
from app.api.gate import OPEN
from app.config import Settings
from app.store.redis_client import DURABLE
from tests.api.fake_service import FakeService
from tests.deploy.manifests import DEPLOY, KUBERNETES, containers, documents, manifests, pods, selects

VERSION = "1.31"
"""The version of Kubernetes whose schemas the manifests must meet."""


@pytest.mark.parametrize("name", manifests())
def test_every_manifest_meets_the_schema(name: str) -> None:
    kubernetes_validate.validate(manifests()[name], VERSION, strict=True)


def test_the_schema_is_really_looked_at() -> None:
    wrong = manifests()["Deployment/errata"]
    wrong["spec"]["replica"] = wrong["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_kustomize_names_files_that_exist_and_leaves_none_out() -> None:
    for path in DEPLOY.rglob("kustomization.yaml"):
        kustomization = yaml.safe_load(path.read_text())
        named = [*kustomization["resources"], *(patch["path"] for patch in kustomization.get("patches", []))]
        for each in named:
            assert (path.parent / each).exists(), each
    base = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "keys.yaml"}
    assert set(base["resources"]) == there


def test_images_have_a_tag_or_get_one_and_are_one() -> None:
    base = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    (image,) = base["images"]
    renamed = f"{image['newName']}:{image['newTag']}"
    for name, _, container in containers():
        given = renamed if container["image"] == image["name"] else container["image"]
        assert re.fullmatch(r".+:[\w.-]*\d[\w.-]*", given), name
        if "errata" in given:
            assert given == renamed, name
    (gpu,) = yaml.safe_load((KUBERNETES / "overlays/gpu/kustomization.yaml").read_text())["images"]
    assert gpu["name"] == image["newName"], "the overlay sees the name that the base has given"
    readme = (DEPLOY / "README.md").read_text()
    assert f"-t {renamed} ." in readme
    assert f"`{gpu['newTag']}`" in readme


def environments() -> dict[str, list[dict[str, Any]]]:
    found = {
        f"{name}/{container['name']}": container.get("env", [])
        for name, _, container in containers()
        if "errata" in container["image"]
    }
    patch = documents(KUBERNETES / "overlays/gpu/gpu.yaml")[0]
    (container,) = patch["spec"]["template"]["spec"]["containers"]
    found["overlay"] = container["env"]
    return found


@pytest.mark.parametrize("name", environments())
def test_every_setting_exists_and_takes_its_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {f"ERRATA_{field.upper()}" for field in Settings.model_fields} | {"REDIS_URL"}
    known.remove("ERRATA_PORT")
    for variable in environments()[name]:
        if variable["name"] == "REDIS_PASSWORD":
            continue
        assert variable["name"] in known
        value = variable.get("value", "0" * 64)
        monkeypatch.setenv(variable["name"], value.replace("$(REDIS_PASSWORD)", "0" * 64))
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    if name != "overlay":
        assert settings.store == f"redis://:{'0' * 64}@redis:6379/0"
        assert settings.log_secret is not None


def test_a_value_is_used_after_it_is_defined() -> None:
    for name, _, container in containers():
        defined: set[str] = set()
        for variable in container.get("env", []):
            assert set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) <= defined, name
            defined.add(variable["name"])


def test_services_named_like_the_app_put_no_variables_into_its_pods() -> None:
    """ERRATA_PORT=tcp://10.0.0.1:80 would be taken for the setting."""
    for name, pod, container in containers():
        if "errata" in container["image"]:
            assert pod["spec"]["enableServiceLinks"] is False, name


def test_secrets_are_those_that_the_readme_makes() -> None:
    made = set(re.findall(r"--from-literal=([\w-]+)=", (DEPLOY / "README.md").read_text()))
    named = {
        variable["valueFrom"]["secretKeyRef"]["key"]
        for _, _, container in containers()
        for variable in container.get("env", [])
        if "valueFrom" in variable
    }
    assert named == made
    assert not [each for each in manifests().values() if each["kind"] == "Secret"]


def test_every_pod_is_nobody_special() -> None:
    for name, pod, container in containers():
        security, own = pod["spec"]["securityContext"], container["securityContext"]
        assert security["runAsNonRoot"], name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert own["readOnlyRootFilesystem"], name
        assert own["allowPrivilegeEscalation"] is False, name
        assert own["capabilities"] == {"drop": ["ALL"]}, name
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        assert "memory" in container["resources"]["limits"], name
    user = re.search(r"--uid (\d+)", (DEPLOY.parent / "Dockerfile").read_text())
    assert user is not None
    assert pods()["Deployment/errata"]["spec"]["securityContext"]["runAsUser"] == int(user[1])


def test_redis_keeps_what_it_acknowledges() -> None:
    (container,) = pods()["StatefulSet/redis"]["spec"]["containers"]
    (command,) = container["args"]
    for option, value in DURABLE.items():
        assert f"--{option} {value} " in command
    (claim,) = manifests()["StatefulSet/redis"]["spec"]["volumeClaimTemplates"]
    (mount,) = container["volumeMounts"]
    assert mount["name"] == claim["metadata"]["name"]
    assert f"--dir {mount['mountPath']} " in command
    assert manifests()["StatefulSet/redis"]["spec"]["replicas"] == 1


def test_probes_ask_open_routes_on_ports_that_exist() -> None:
    routes = set(create_app(FakeService()).openapi()["paths"])  # type: ignore[arg-type]
    asked = set()
    for name, _, container in containers():
        ports = {port["name"] for port in container.get("ports", [])}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if (http := container.get(kind, {}).get("httpGet")) is not None:
                assert http["port"] in ports, name
                assert http["path"] in routes & OPEN, name
                asked.add((kind, http["path"]))
    assert ("livenessProbe", "/readyz") not in asked, "a log that is away must not restart the servers"
    assert ("readinessProbe", "/readyz") in asked


def test_selectors_find_their_pods_and_ports() -> None:
    labels = {name: pod["labels"] for name, pod in pods().items()}
    for name, manifest in manifests().items():
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Service":
            (found,) = [pod for each, pod in pods().items() if selects({"matchLabels": spec["selector"]}, labels[each])]
            ports = {port["name"] for container in found["spec"]["containers"] for port in container["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= ports, name
        elif manifest["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            assert [each for each in labels if selects(spec["selector"], labels[each])], name
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            assert selects(spec["selector"], spec["template"]["metadata"]["labels"]), name
    (url,) = {
        variable["value"] for env in environments().values() for variable in env if variable["name"] == "REDIS_URL"
    }
    assert "@redis:6379/" in url
    assert "Service/redis" in manifests()


def test_mounts_have_volumes() -> None:
    for name, pod, container in containers():
        claims = manifests()[name]["spec"].get("volumeClaimTemplates", [])
        volumes = {v["name"] for v in pod["spec"].get("volumes", [])} | {c["metadata"]["name"] for c in claims}
        assert {mount["name"] for mount in container.get("volumeMounts", [])} == volumes, name


def reaches(source: str, target: str) -> bool:
    """True if the policies let a pod of one name open a connection to a pod of the other."""
    policies = [each for each in manifests().values() if each["kind"] == "NetworkPolicy"]

    def allowed(pod: str, peer: str, direction: str, side: str) -> bool:
        applying = [
            policy["spec"]
            for policy in policies
            if selects(policy["spec"]["podSelector"], {"app.kubernetes.io/name": pod})
            and direction in policy["spec"]["policyTypes"]
        ]
        assert applying, "what no policy selects may do anything"
        peers = [p for spec in applying for rule in spec.get(direction.lower(), []) for p in rule[side]]
        own = [p for p in peers if "namespaceSelector" not in p]
        return any(selects(p["podSelector"], {"app.kubernetes.io/name": peer}) for p in own)

    return allowed(source, target, "Egress", "to") and allowed(target, source, "Ingress", "from")


def test_the_network_lets_pass_what_must_and_nothing_else() -> None:
    names = {pod["labels"]["app.kubernetes.io/name"] for pod in pods().values()}
    open_ways = {(one, other) for one in names for other in names if reaches(one, other)}
    assert open_ways == {("errata", "redis"), ("errata-keys", "redis")}


def test_what_runs_gets_the_time_that_the_server_gives_itself() -> None:
    from app.cli.serve import DROP_S, LAST_RESORT_S

    (container,) = pods()["Deployment/errata"]["spec"]["containers"]
    (grace,) = (each["value"] for each in container["env"] if each["name"] == "ERRATA_STOP_GRACE_S")
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    given = pods()["Deployment/errata"]["spec"]["terminationGracePeriodSeconds"]
    assert given > before + float(grace) + DROP_S + LAST_RESORT_S
