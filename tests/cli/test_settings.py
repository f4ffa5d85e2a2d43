"""Settings come from several places in a fixed order, and a wrong one is refused in one line with its remedy."""

import json
from pathlib import Path

import pytest
import typer.main
from click.testing import Result
from typer.testing import CliRunner

from app.cli.exits import Exit
from app.cli.main import app
from app.config import ClientSettings, Settings
from tests.api.fake_service import FakeService
from tests.api.serving import live_server


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands run here; `--config` sets a variable, which is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ERRATA_CONFIG", "")
    monkeypatch.delenv("ERRATA_CORPUS_TOKENS", raising=False)
    return tmp_path


def errata(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb", **environment})


def settings(*arguments: str, **environment: str) -> dict[str, dict[str, str]]:
    done = errata(*arguments, "settings", "--json", **environment)
    assert done.exit_code == 0, done.output
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_each_source_is_read_and_the_nearer_one_wins(folder: Path) -> None:
    (folder / "errata.toml").write_text(
        'port = 8001\nslots = 8\nqueue_limit = 9\nthresholds = {"*" = {made = 0.5}}\nstore = "sqlite:///a.db"\n'
    )
    (folder / ".env").write_text("ERRATA_SLOTS=16\nERRATA_QUEUE_LIMIT=10\nREDIS_URL=redis://:secret@b\nOTHERS=1\n")
    found = settings(ERRATA_QUEUE_LIMIT="11")
    told = {name: (found[name]["value"], found[name]["from"]) for name in ("port", "slots", "queue_limit", "store")}
    assert told == {
        "port": ("8001", "errata.toml"),
        "slots": ("16", ".env"),
        "queue_limit": ("11", "ERRATA_QUEUE_LIMIT"),
        "store": ("redis://***@b", ".env"),
    }
    assert Settings(port=8002).port == 8002
    assert Settings(store="memory://").store == "memory://"
    assert Settings().thresholds == {"*": {"made": 0.5}}
    assert (found["host"]["value"], found["host"]["from"]) == ("127.0.0.1", "default")


def test_a_config_file_is_named_by_an_option_or_a_variable(folder: Path) -> None:
    (folder / "mine.toml").write_text("slots = 5\n")
    for found in (settings("--config", "mine.toml"), settings(ERRATA_CONFIG="mine.toml")):
        assert (found["slots"]["value"], found["slots"]["from"]) == ("5", "mine.toml")


def test_secrets_are_not_shown() -> None:
    assert "a long secret of the operators" not in str(settings(ERRATA_LOG_SECRET="a long secret of the operators"))


def test_commands_find_their_server_by_the_same_sources(folder: Path) -> None:
    service = FakeService()
    with live_server(service) as url:
        (folder / "errata.toml").write_text(f'[client]\nurl = "{url}"\nactor = "from the file"\n')
        assert errata("edit", "p", "t").exit_code == 0
        (folder / ".env").write_text("ERRATA_ACTOR='from .env'\n")
        assert errata("edit", "q", "t").exit_code == 0
        assert errata("--actor", "the option", "edit", "r", "t").exit_code == 0
    assert [origin.actor for origin in service.origins] == ["from the file", "from .env", "the option"]
    assert ClientSettings().url == url


@pytest.mark.parametrize(
    ("toml", "env", "says"),
    [
        ("prot = 1", {}, "prot is not a setting: did you mean port?"),
        ('url = "http://there"', {}, "url is a setting of commands: move it into the table [client]."),
        ("port = ", {}, "errata.toml is not TOML: "),
        ("slots = 0", {}, "slots: Input should be greater than or equal to 1 (given: 0)."),
        ("[client]\nurll = 1", {}, "urll is not a setting: did you mean url?"),
        ("", {"ERRATA_THRESHOLDS": '{"a":'}, "ERRATA_THRESHOLDS is not JSON: "),
        ("", {"ERRATA_SLOTS": "many"}, "slots: "),
        ("", {"ERRATA_CONFIG": "no.toml"}, "There is no config file no.toml: "),
        ("", {"ERRATA_DEVICE": "abacus"}, "use auto, cpu, cuda or cuda:N"),
    ],
)
def test_what_is_wrong_is_one_line(folder: Path, toml: str, env: dict[str, str], says: str) -> None:
    (folder / "errata.toml").write_text(toml)
    done = errata("serve", "--port", "0", **env)
    assert done.exit_code == Exit.USAGE
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert isinstance(done.exception, SystemExit), "a traceback is no message"


def test_a_misspelt_variable_of_dotenv_is_told(folder: Path) -> None:
    (folder / ".env").write_text("ERRATA_SLOTTS=4\n")
    assert "did you mean ERRATA_SLOTS?" in errata("serve", "--port", "0").stderr


@pytest.mark.parametrize("command", ["serve", "store check", "keys list", "log verify"])
def test_a_store_that_is_not_there_is_told_and_not_made(folder: Path, command: str) -> None:
    done = errata(*command.split(), "--store", "sqlite:///no/such/errata.db", *(["--port", "0"] * (command == "serve")))
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    remedy = "does not exist: make it (mkdir -p " if command == "serve" else "name it with --store"
    assert remedy in done.stderr
    assert not list(folder.iterdir())


def test_help_shows_the_defaults_of_serve() -> None:
    shown = " ".join(errata("serve", "--help").output.split())
    (command,) = [each for name, each in typer.main.get_command(app).commands.items() if name == "serve"]  # type: ignore[attr-defined]
    options = [each for each in command.params if each.name in Settings.model_fields]
    assert len(options) > 10
    for option in options:
        assert "[default: " in (option.help or "")
    assert "[default: 127.0.0.1]" in shown
    assert "[default: 64]" in shown
    assert "[default: sqlite:///errata.db]" in shown
