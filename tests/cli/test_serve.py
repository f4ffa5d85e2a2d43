"""`errata serve` before there is a server: settings, address, model. Each refusal says what to do."""

import json
import socket

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.cli.main import app
from app.config import Settings
from app.domain.errors import InvalidRequest
from app.service.service import Service


def serve(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, ["serve", *arguments], env={"COLUMNS": "200", **environment})


def test_wrong_settings_are_named() -> None:
    result = serve("--port", "70000")
    assert result.exit_code == 2
    assert "port:" in result.stderr
    result = serve(ERRATA_SLOTS="many")
    assert result.exit_code == 2
    assert "slots:" in result.stderr
    assert "'many'" in result.stderr


def test_the_name_that_clients_see_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def build(settings: Settings, *_: object) -> Service:
        seen.append(settings)
        raise InvalidRequest("far enough")

    monkeypatch.setattr("app.cli.serve.build", build)
    assert "far enough" in serve("--port", "0", "--served-model-name", "support-bot").stderr
    assert "far enough" in serve("--port", "0", ERRATA_SERVED_MODEL_NAME="from-the-environment").stderr
    assert [settings.served_model_name for settings in seen] == ["support-bot", "from-the-environment"]


def test_a_port_in_use_is_said_before_any_model_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = serve("--port", str(taken.getsockname()[1]), "--model", "/nowhere")
    assert result.exit_code == 1
    assert "is in use" in result.stderr


def test_an_address_that_is_not_ours_is_refused() -> None:
    result = serve("--host", "192.0.2.1", "--port", "0")
    assert result.exit_code == 1
    assert "--host" in result.stderr


def test_for_programs_every_line_of_a_start_is_json() -> None:
    result = serve("--port", "0", "--store", "memory://", "--model", "/nowhere", "--json")
    *lines, error = [json.loads(line) for line in result.stderr.splitlines()]
    assert [(each["event"], each["kind"]) for each in lines][-1] == (
        "Starting: reading the weights of /nowhere",
        "start",
    )
    assert "/nowhere" in error["detail"]
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "/nowhere", "--store", "memory://"], "/nowhere"),
        (["--model", __file__, "--store", "memory://"], "not a GGUF file"),
        (["--model", "demo", "--store", "nonsense://x"], "nonsense"),
        (["--model", "demo", "--store", "memory://", "--device", "cuda"], "built with CUDA"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(arguments: list[str], says: str) -> None:
    result = serve("--port", "0", *arguments)
    assert result.exit_code == 1
    assert says in result.stderr
    assert isinstance(result.exception, SystemExit), "a traceback is no message"
