"""Alerts and dashboard against the metrics that the app really has."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.api.fake_service import UNCERTAIN, FakeService
from tests.api.serving import Caller
from tests.deploy.manifests import DEPLOY, ROOT, compose

PROMETHEUS_OWN = {"up"}
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""


@pytest.fixture(scope="module")
def metrics() -> dict[str, set[str]]:
    """Every sample that a server shows after some traffic -> its labels."""
    service = FakeService()
    ask = Caller(service)
    ask.post("/generate", {"inputs": "x"})
    ask.post("/generate_stream", {"inputs": "x"})
    ask.post("/edit", {"prompt": "x", "target": "y"})
    ask.post("/generate", {"inputs": "x"})
    service.says = "not y"
    ask.post("/generate", {"inputs": "x"})
    ask.post("/generate", {"inputs": f"{UNCERTAIN} x"})
    ask.get("/edits/none")
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(ask.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def alerts() -> dict[str, dict[str, Any]]:
    loaded = yaml.safe_load((DEPLOY / "prometheus/errata.rules.yml").read_text())
    return {rule["alert"]: rule for group in loaded["groups"] for rule in group["rules"]}


def panels() -> dict[str, list[str]]:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/errata.json").read_text())
    shown = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    found = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in shown}
    assert len(found) == len(shown), "two panels have one title"
    return found


def expressions() -> dict[str, str]:
    found = {f"alert {name}": rule["expr"] for name, rule in alerts().items()}
    for title, exprs in panels().items():
        found |= {f"panel {title} {i}": expr.replace("$__rate_interval", "1m") for i, expr in enumerate(exprs)}
    return found


def selectors(expr: Any) -> Iterator[Any]:
    """Every metric that a parsed expression asks for."""
    if isinstance(expr, promql_parser.VectorSelector):
        yield expr
        return
    for name in ("expr", "lhs", "rhs", "vector_selector", "vs", "args", "param"):
        inner = getattr(expr, name, None)
        for each in inner if isinstance(inner, list) else [inner]:
            if each is not None and not isinstance(each, str | float):
                yield from selectors(each)


@pytest.mark.parametrize("name", expressions())
def test_every_expression_asks_for_metrics_and_labels_that_exist(name: str, metrics: dict[str, set[str]]) -> None:
    found = list(selectors(promql_parser.parse(expressions()[name])))
    assert found
    for selector in found:
        assert selector.name in metrics.keys() | PROMETHEUS_OWN
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= metrics.get(selector.name, set()) | SCRAPED
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", expressions()[name]) for label in group.split(", ")}
    known = set().union(*(metrics.get(selector.name, set()) for selector in found))
    assert grouped <= known | SCRAPED


def test_outcomes_and_phases_of_the_alerts_are_told_by_the_app() -> None:
    source = (ROOT / "app/api/metrics.py").read_text()
    for rule in alerts().values():
        for values in re.findall(r'outcome=~"([^"]+)"', rule["expr"]):
            for value in values.split("|"):
                assert f'"{value}"' in source


@pytest.mark.parametrize("name", alerts())
def test_every_alert_says_what_is_wrong_and_what_to_do(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["for"]
    assert len(rule["annotations"]["description"]) > 40
    for used in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
        assert used in SCRAPED
        aggregated = re.match(r"(?:max|sum)(?! by \(instance\))", rule["expr"])
        assert not aggregated or "group_right" in rule["expr"], "an aggregation leaves no such label"


def test_the_configuration_fits_what_compose_mounts() -> None:
    services = compose()["services"]
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (mount,) = [v for v in services["prometheus"]["volumes"] if v.startswith("./")]
    folder, inside, mode = mount.split(":")
    assert mode == "ro"
    for path in prometheus["rule_files"]:
        assert (ROOT / folder / path.removeprefix(f"{inside}/")).is_file()
    (job,) = prometheus["scrape_configs"]
    assert job["job_name"] == "errata", "the alerts name it"
    for discovery in job["dns_sd_configs"]:
        assert set(discovery["names"]) <= set(services)
        assert discovery["port"] == 8000
    mounts = dict(v.split(":")[:2][::-1] for v in services["grafana"]["volumes"] if v.startswith("./"))
    for path in (ROOT / mounts["/etc/grafana/provisioning"]).rglob("*.yaml"):
        for provider in yaml.safe_load(path.read_text()).get("providers", []):
            assert list((ROOT / mounts[provider["options"]["path"]]).glob("*.json"))
        for source in yaml.safe_load(path.read_text()).get("datasources", []):
            assert source["url"] == "http://prometheus:9090"
            assert f'"uid": "{source["uid"]}"' in (DEPLOY / "grafana/dashboards/errata.json").read_text()


def test_compose_publishes_on_loopback_with_pinned_images_and_nobody_special() -> None:
    for name, service in compose()["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        if "image" in service:
            assert re.search(r":v?\d+\.\d+", service["image"]), name
        if name != "redis":
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name


def test_the_profiles_are_those_that_are_told() -> None:
    profiles = {profile for service in compose()["services"].values() for profile in service.get("profiles", [])}
    assert profiles == {"gpu", "replicas", "monitoring"}
    head = (ROOT / "docker-compose.yml").read_text().split("x-app")[0]
    assert all(f"`{profile}`" in head for profile in profiles)
