"""Settings from the environment: lists with commas, and names that set nothing."""

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from app.cli.main import app
from app.config import Settings, unknown_variables


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://a.example, http://localhost:3000,", ("https://a.example", "http://localhost:3000")),
    ],
)
def test_origins_are_given_with_commas(monkeypatch: pytest.MonkeyPatch, given: str, origins: tuple[str, ...]) -> None:
    monkeypatch.setenv("ERRATA_CORS_ORIGINS", given)
    assert Settings().cors_origins == origins


@pytest.mark.parametrize("given", ["a.example", "https://a.example/path", "ftp://a.example"])
def test_what_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("ERRATA_CORS_ORIGINS", given)
    with pytest.raises(ValidationError, match="is not an origin"):
        Settings()


def test_every_setting_is_known_and_what_is_not_is_told_its_spelling() -> None:
    assert unknown_variables({f"ERRATA_{name.upper()}": "x" for name in Settings.model_fields}) == []
    assert unknown_variables({"ERRATA_KEY": "x", "ERRATA_URL": "x", "ERRATUM": "x", "HOME": "/"}) == []
    assert unknown_variables({"ERRATA_LOG_SECRT": "x"}) == [
        "ERRATA_LOG_SECRT is not a setting: did you mean ERRATA_LOG_SECRET?"
    ]
    assert unknown_variables({"ERRATA_ZZZ": "x"}) == ["ERRATA_ZZZ is not a setting: unset it."]


def test_what_kubernetes_tells_a_pod_of_a_service_is_left_alone() -> None:
    links = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8000_TCP", "PORT_8000_TCP_ADDR")
    assert unknown_variables({f"ERRATA_{each}": "x" for each in links}) == []
    assert unknown_variables({f"ERRATA_REDIS_{each}": "x" for each in links}) == []


def test_a_server_does_not_start_under_a_setting_that_it_does_not_know() -> None:
    told = CliRunner().invoke(app, ["serve"], env={"COLUMNS": "200", "ERRATA_REASON_REQIRED": "true"})
    assert told.exit_code != 0
    assert "did you mean ERRATA_REASON_REQUIRED?" in told.stderr
