"""Namespaces set up, edits promoted, protected questions asked, webhooks, keys for some namespaces: on the console."""

import json
from pathlib import Path

from typer.testing import CliRunner

from app.cli.exits import Exit
from app.cli.main import app
from tests.api.fake_service import FakeService
from tests.cli.conftest import Errata
from tests.cli.test_commands import ASKED

WAYS = ("--from", "staging", "--to", "production")
URL = "https://hooks.example.com/errata"


def set_up(errata: Errata) -> None:
    for name in ("staging", "production"):
        done = errata("namespaces", "create", name, "--description", f"{name} it is")
        assert done.exit_code == 0, done.output


def test_namespaces_are_set_up_and_listed(errata: Errata) -> None:
    set_up(errata)
    assert "production it is" in errata("namespaces").output
    found = json.loads(errata("namespaces", "--json").output)
    assert {each["name"] for each in found["namespaces"]} == {"default", "staging", "production"}
    made = json.loads(errata("namespaces", "create", "staging", "--description", "first", "--json").output)
    assert made["description"] == "first"
    assert errata("namespaces", "create", "-x").exit_code == Exit.USAGE


def test_edits_are_promoted(errata: Errata, service: FakeService) -> None:
    set_up(errata)
    errata("edit", ASKED, "euro", "--namespace", "staging")
    errata("edit", "Who?", "Ada", "--namespace", "staging")
    preview = errata("promote", *WAYS, "--dry-run")
    assert (preview.exit_code, "would be made in production" in preview.output) == (0, True), preview.output
    assert service.records.ledger.live_count("production") == 0
    done = errata("promote", *WAYS, "ed_0000", "--reason", "release 12")
    assert (done.exit_code, "1 of 1 edits" in done.output) == (0, True), done.output
    (edit,) = service.records.ledger.live("production")
    assert (edit.request.promoted_from, edit.request.reason) == ("ed_0000", "release 12")
    errata("edit", "Who?", "Eve", "--namespace", "production", ERRATA_ACTOR="eve")
    refused = errata("promote", *WAYS)
    assert refused.exit_code == Exit.REFUSED
    assert "ed_0001 was refused: Somebody else's edit" in refused.output
    assert errata("promote", "--from", "stagign", "--to", "production").exit_code == Exit.UNKNOWN


def test_protected_questions_are_asked(errata: Errata, tmp_path: Path) -> None:
    errata("edit", ASKED, "euro")
    file = tmp_path / "probes.txt"
    file.write_text(f"{ASKED}\nWhere?\n")
    changed = errata("probes", file, "--check")
    assert changed.exit_code == Exit.FAILED
    assert "is changed by ed_0000: 'base answer here' -> 'euro'" in changed.output
    assert "1 of 2 probes" in changed.output
    assert json.loads(errata("probes", "--json").output)["prompts"] == [], "they were asked, not set"
    kept = errata("probes", "--check")
    assert (kept.exit_code, "0 of 0 probes" in kept.output) == (0, True)


def test_webhooks_are_set_up_tried_and_removed(errata: Errata, service: FakeService) -> None:
    made = errata("webhooks", "create", URL, "--on", "publish", "--namespace", "staging")
    assert made.exit_code == 0, made.output
    assert made.stdout.strip().startswith("whsec_")
    ((hook_id, hook),) = service.records.ledger.webhooks.items()
    assert (hook.kinds, hook.namespaces) == (("publish",), ("staging",))
    listed = errata("webhooks", "list").output
    assert all(word in listed for word in (hook_id, "publish", "staging"))
    assert "It arrived: 204." in errata("webhooks", "test", hook_id).output
    assert "delivered" in errata("webhooks", "deliveries", hook_id).output
    assert "is removed" in errata("webhooks", "remove", hook_id).output
    assert "No webhooks." in errata("webhooks", "list").output
    assert errata("webhooks", "test", hook_id).exit_code == Exit.UNKNOWN
    assert errata("webhooks", "create", "http://10.0.0.1/").exit_code == Exit.USAGE


def test_a_key_is_for_some_namespaces(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/errata.db"

    def keys(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["keys", *arguments, "--store", store], env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        return result.output

    made = keys("create", "--role", "admin", "--name", "stage", "--namespace", "staging", "--namespace", "test")
    assert "of the namespaces staging, test" in made
    assert "no key for all namespaces may" in made, "nobody could make another"
    assert "staging, test" in keys("list")
    assert json.loads(keys("list", "--json"))[0]["namespaces"] == ["staging", "test"]
