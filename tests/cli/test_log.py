"""`errata log`: the newest first, filtered, followed."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
import typer

from app.cli.exits import Exit
from app.cli.log import moment
from tests.api.fake_service import NOW_S, FakeService
from tests.api.serving import live_server
from tests.cli.conftest import Errata
from tests.cli.test_commands import made
from tests.server import PATIENCE_S

pytestmark = pytest.mark.slow


def revisions(errata: Errata, *arguments: object) -> list[int]:
    done = errata("log", "--json", *arguments)
    assert done.exit_code == 0, done.output
    return [json.loads(line)["revision"] for line in done.stdout.splitlines()]


def test_the_newest_come_first_and_filters_narrow(errata: Errata) -> None:
    first = made(errata)
    errata("edit", "Who wrote Emma?", "Jane Austen", ERRATA_ACTOR="bob")
    errata("disable", "0000", ERRATA_ACTOR="bob")
    errata("enable", "0000")
    assert revisions(errata) == [4, 3, 2, 1]
    assert revisions(errata, "--actor", "bob") == [3, 2]
    assert revisions(errata, "--edit", first) == revisions(errata, "--edit", "0000") == [4, 3, 1]
    assert revisions(errata, "--after", 2) == [4, 3]
    assert revisions(errata, "--actor", "ada", "--limit", 1) == [4]
    assert revisions(errata, "--since", datetime.fromtimestamp(NOW_S - 1, UTC).isoformat()) == [4, 3, 2, 1]
    assert revisions(errata, "--since", datetime.fromtimestamp(NOW_S + 1, UTC).isoformat()) == []
    assert revisions(errata, "--since", "1h") == []
    assert errata("log", "--since", "yesterday").exit_code == Exit.USAGE


def test_a_long_log_is_read_back_to_what_is_looked_for(errata: Errata, service: FakeService) -> None:
    made(errata)
    for _ in range(60):
        errata("switch", "off", "--yes") if service.records.ledger.switched_on("default") else errata(
            "switch", "on", "--yes"
        )
    assert revisions(errata, "--edit", "0000") == [1]
    assert "There are more than 50" in errata("log").stderr


def test_times() -> None:
    assert moment("2026-11-29") == datetime(2026, 11, 29, tzinfo=UTC)
    assert moment("2026-11-29T12:30+02:00") == datetime(2026, 11, 29, 10, 30, tzinfo=UTC)
    assert abs(datetime.now(UTC) - moment("2h") - timedelta(hours=2)) < timedelta(minutes=1)
    with pytest.raises(typer.BadParameter, match="not a time"):
        moment("soon")


def test_following_shows_changes_as_they_come_until_ctrl_c(service: FakeService) -> None:
    """A real process: it is stopped by a real signal."""
    with live_server(service) as url:
        environment = os.environ | {"ERRATA_URL": url, "ERRATA_ACTOR": "ada", "PYTHONUNBUFFERED": "1"}
        errata = [sys.executable, "-m", "app"]
        subprocess.run([*errata, "edit", "one", "x"], env=environment, check=True, capture_output=True)
        following = subprocess.Popen(
            [*errata, "log", "--follow", "--json"], env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["revision"] == 1
        subprocess.run([*errata, "edit", "two", "x"], env=environment, check=True, capture_output=True)
        assert json.loads(following.stdout.readline())["revision"] == 2
        time.sleep(0.1)
        following.send_signal(signal.SIGINT)
        _, told = following.communicate(timeout=PATIENCE_S)
        assert following.returncode == 130
        assert json.loads(told)["title"] == "Stopped by Ctrl-C"
