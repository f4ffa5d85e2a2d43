"""A folder is of one run and of one set of options, and what is in it is whole."""

import os
from pathlib import Path

import pytest

from app.domain.errors import InvalidRequest
from app.evaluation.folder import opened


def test_other_options_are_refused_and_new_ones_are_not(tmp_path: Path) -> None:
    with opened(tmp_path / "a" / "b") as folder:
        folder.check({"seed": 0})
        folder.keep({"seed": 0, "half": None})
        folder.check({"seed": 0, "half": None, "ask": 5})
        with pytest.raises(InvalidRequest, match="had other options: seed, half"):
            folder.check({"seed": 1, "half": "settle", "ask": 5})


def test_results_are_replaced_whole(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        assert folder.results() == {"candidates": {}}
        folder.keep_results({"candidates": {"bare": []}})
        assert folder.results() == {"candidates": {"bare": []}}
        assert {each.name for each in tmp_path.iterdir()} == {"results.json", "run.lock", "run.owner"}


@pytest.mark.parametrize("left", [b"", b'{"seed"', b"[]", b"\xc3"])
def test_a_torn_file_is_said(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "options.json").write_bytes(left)
    (tmp_path / "results.json").write_bytes(left)
    with opened(tmp_path) as folder:
        with pytest.raises(InvalidRequest, match=r"options\.json is not whole"):
            folder.check({})
        with pytest.raises(InvalidRequest, match=r"results\.json is not whole"):
            folder.results()


def test_a_second_run_is_told_of_the_first(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(InvalidRequest, match=f"process {os.getpid()} on "), opened(tmp_path):
        pass
    with opened(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="cannot be written"), opened(tmp_path / "file" / "sub"):
        pass
