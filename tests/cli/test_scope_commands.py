"""`errata scope check` and `errata traffic`: the questions of a log, and what edits would do with them."""

import json
from pathlib import Path

import pytest

from app.cli.exits import Exit
from app.cli.scope import AT_ONCE, SHOWN
from tests.api.fake_service import FakeService
from tests.cli.conftest import Errata
from tests.cli.test_commands import ASKED, made


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "log.txt"
    file.write_text(f"Where is my parcel?\n\n  {ASKED}\nWho are you?\nWho is she?\n", encoding="utf-8")
    return file


def test_questions_that_edits_answer_are_counted_by_edit(errata: Errata, log: Path) -> None:
    edit_id = made(errata)
    checked = errata("scope", "check", log)
    assert checked.exit_code == Exit.FAILED
    assert f"{edit_id} answers 1:\n  {ASKED!r}: nearest to its prompt\n" in checked.output
    assert "1 of 4 questions are answered by edits: 0.2500, the bound is 0.002." in checked.output
    told = json.loads(errata("scope", "check", log, "--json").output)
    assert told == {
        "asked": 4, "answered": 1, "rate": 0.25, "bound": 0.002, "edits": {edit_id: [[ASKED, "nearest to its prompt"]]}
    }  # fmt: skip


def test_questions_that_no_edit_answers_are_within_the_bound(errata: Errata, log: Path) -> None:
    checked = errata("scope", "check", log)
    assert checked.exit_code == 0, checked.output
    assert checked.output == "0 of 4 questions are answered by edits: 0.0000, the bound is 0.002.\n"


def test_the_bound_is_the_namespaces_own_unless_another_is_given(errata: Errata, log: Path) -> None:
    made(errata, "--namespace", "lax")
    checked = errata("scope", "check", log, "--namespace", "lax")
    assert checked.exit_code == 0, "as many as the bound are within it"
    assert "0.2500, the bound is 0.25." in checked.output
    assert errata("scope", "check", log, "--namespace", "lax", "--most", "0.2").exit_code == Exit.FAILED
    made(errata)
    assert errata("scope", "check", log, "--most", "1").exit_code == 0
    assert errata("scope", "check", log, "--most", "0").exit_code == Exit.FAILED, "a bound of 0 is one"


def test_of_an_edits_many_questions_a_few_are_shown_and_the_worst_edit_comes_first(
    errata: Errata, tmp_path: Path
) -> None:
    once = made(errata)
    often = errata("edit", "Who?", "Ada", "--json")
    often_id = json.loads(often.output)["id"]
    file = tmp_path / "log.txt"
    file.write_text("\n".join([ASKED, *["Who?"] * AT_ONCE]), encoding="utf-8")
    output = errata("scope", "check", file).output
    assert output.index(f"{often_id} answers {AT_ONCE}:") < output.index(f"{once} answers 1:")
    assert output.count("'Who?'") == SHOWN
    assert f"{AT_ONCE + 1} of {AT_ONCE + 1} questions" in output, "more than one request takes"


def test_an_empty_log_is_refused(errata: Errata, tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_text(" \n", encoding="utf-8")
    for command in (("scope", "check"), ("traffic",)):
        refused = errata(*command, file)
        assert (refused.exit_code, "holds no questions" in refused.stderr) == (Exit.FAILED, True)


def test_traffic_is_kept_by_namespace_as_recent_prompts_or_as_others(
    errata: Errata, service: FakeService, log: Path
) -> None:
    kept = errata("traffic", log, "--namespace", "support")
    assert (kept.exit_code, kept.output) == (0, "4 prompts of the namespace support are kept.\n")
    assert set(service.recent.both("support")[0]) == {"Where is my parcel?", ASKED, "Who are you?", "Who is she?"}
    assert errata("traffic", log, "--others").output == "4 prompts of the namespace default are kept.\n"
    recent, others = service.recent.both("default")
    assert (len(recent), len(others)) == (0, 4)
    assert json.loads(errata("traffic", log, "--json").output) == {"namespace": "default", "kept": 4}


def test_a_server_that_keeps_no_prompts_refuses_them(errata: Errata, service: FakeService, log: Path) -> None:
    service.recent.most = 0
    refused = errata("traffic", log)
    assert (refused.exit_code, "ERRATA_RECENT_PROMPTS" in refused.stderr) == (Exit.USAGE, True)
