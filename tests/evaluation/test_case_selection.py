"""Rows are selected and ordered for editing, and a row that cannot be read is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import InvalidRequest
from app.evaluation.case_selection import CaseSelection, generic_questions, load_cases, read_cases
from tests.evaluation.test_cases import OURS, SHARED


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    file = folder / name
    lines = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    file.write_text(lines, encoding="utf-8")
    return file


def test_a_list_and_lines_are_the_same(tmp_path: Path) -> None:
    lines = read_cases(written(tmp_path, [OURS, SHARED], "one.jsonl"), {})
    listed = read_cases(written(tmp_path, [OURS, SHARED], "one.json"), {})
    assert list(lines) == list(listed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Line 1 .* is not JSON"),
        ("", "bad.jsonl is empty"),
        (" [] ", "bad.jsonl is empty"),
        ("[" * 200_000, "bad.jsonl is not JSON"),
        ('{"a": 1}\n\n{"b": }', "Line 3 .* is not JSON"),
        ("[{}, 7", "bad.jsonl is not JSON"),
        ('{"prompt": "x"}', "Row 1"),
        ('{"prompt": "x", "target": "y"}\n7', "Row 2"),
        ('{"requested_rewrite": {}}', "Row 1"),
        ('{"prompt": "x", "target": "y"}\n{"prompt": "x", "target": " "}', "Row 2 .*`target` holds an empty text"),
        ('{"prompt": "x", "target": "y", "overwrites": ["z"]}', "Row 1"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_row(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidRequest, match=said):
        list(read_cases(file, {}))


def many(count: int) -> list[dict[str, Any]]:
    return [{"id": f"c{i}", "prompt": f"What is {i}?", "target": "much", "split": "ab"[i % 2]} for i in range(count)]


def test_halves_part_the_rows_whatever_the_seed(tmp_path: Path) -> None:
    file = written(tmp_path, many(100))
    settle = {case.id for case in load_cases([file], CaseSelection(half="settle", seed=1))}
    report = {case.id for case in load_cases([file], CaseSelection(half="report", seed=2))}
    assert not settle & report
    assert len(settle | report) == 100
    assert 30 < len(settle) < 70


def test_rows_are_chosen_shuffled_and_framed(tmp_path: Path) -> None:
    file = written(tmp_path, many(20))
    chosen = CaseSelection(where={"split": "a", "other": "x"}, template="Q: {} A:", most=5, seed=3)
    cases = load_cases([file], chosen)
    assert cases == load_cases([file], chosen)
    assert len(cases) == 5
    assert all(int(case.id[1:]) % 2 == 0 for case in cases)
    assert [case.prompt for case in cases] == [f"Q: What is {case.id[1:]}? A:" for case in cases]
    assert [case.id for case in cases] != sorted((case.id for case in cases), key=lambda name: int(name[1:]))
    with pytest.raises(InvalidRequest, match="No row"):
        load_cases([file], CaseSelection(where={"split": "c"}))


def test_a_correction_comes_after_what_it_corrects(tmp_path: Path) -> None:
    rows = many(30)
    for i in range(10, 20):
        rows[i]["overwrites"] = f"c{i - 10}"
    for seed in range(5):
        order = [case.id for case in load_cases([written(tmp_path, rows)], CaseSelection(seed=seed))]
        assert len(order) == 30
        assert all(order.index(f"c{i}") > order.index(f"c{i - 10}") for i in range(10, 20))


def test_a_correction_of_a_correction_may_go_on_for_long(tmp_path: Path) -> None:
    rows = many(3000)
    for i in range(1, 3000):
        rows[i]["overwrites"] = f"c{i - 1}"
    assert [case.id for case in load_cases([written(tmp_path, rows)], CaseSelection())] == [
        f"c{i}" for i in range(3000)
    ]


def test_a_number_names_what_is_overwritten_as_well_as_a_text(tmp_path: Path) -> None:
    rows = [{"id": i, "prompt": f"The {i} is", "target": "so"} for i in range(20)]
    rows[3]["overwrites"] = 17
    cases = load_cases([written(tmp_path, rows)], CaseSelection())
    at = [case.id for case in cases].index("3")
    assert (cases[at - 1].id, cases[at].overwrites) == ("17", "17")


@pytest.mark.parametrize("overwrites", [{"c1": "c1"}, {"c0": "c2", "c1": "c0", "c2": "c1"}])
def test_rows_that_overwrite_one_another_are_named(tmp_path: Path, overwrites: dict[str, str]) -> None:
    rows = [row | {"overwrites": overwrites.get(row["id"])} for row in many(5)]
    with pytest.raises(InvalidRequest, match=f"in a circle, or themselves: {', '.join(overwrites)}. Each"):
        load_cases([written(tmp_path, rows)], CaseSelection())


def test_rows_of_several_files_are_told_apart(tmp_path: Path) -> None:
    numbered = [{"prompt": "A is", "target": "b"}, {"prompt": "C is", "target": "d"}]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    files = [
        written(tmp_path / "one", [row | {"case_id": i} for i, row in enumerate(numbered)], "rome.json"),
        written(tmp_path, [numbered[0] | {"id": 0}, numbered[1] | {"id": 7, "overwrites": 0}], "mend.json"),
        written(tmp_path / "one", numbered, "rows.json"),
        written(tmp_path / "two", numbered, "rows.json"),
        written(tmp_path, [numbered[0] | {"id": 0}, numbered[1] | {"id": 0}], "mend.jsonl"),
    ]
    cases = {case.id: case for case in load_cases(files, CaseSelection())}
    assert set(cases) == {
        "0", "1", "mend/0", "7", "rows-1", "rows-2", "rows/rows-1", "rows/rows-2", "mend/0#2", "mend/0#3",
    }  # fmt: skip
    assert cases["7"].overwrites == "mend/0"
    alone = {case.id for case in load_cases(files[:1], CaseSelection(half="report"))}
    assert alone <= {case.id for case in load_cases(files, CaseSelection(half="report"))}


def test_a_correction_may_stand_in_another_file(tmp_path: Path) -> None:
    first = written(tmp_path, [{"id": 0, "prompt": "A is", "target": "b"}], "one.json")
    second = written(tmp_path, [{"id": 1, "prompt": "C is", "target": "d", "overwrites": 0}], "two.json")
    assert [case.overwrites for case in load_cases([second, first], CaseSelection())] == [None, "0"]


def test_a_template_says_where_the_question_goes(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"'Question:' has no \{\}"):
        load_cases([written(tmp_path, many(2))], CaseSelection(template="Question:"))


def test_a_byte_order_mark_and_strange_line_ends_within_texts_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "bom.jsonl"
    lines = [f'{{"prompt": "A{mark}B is", "target": "so"}}' for mark in "\u2028\u2029\u0085 "]
    file.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig", newline="")
    cases = list(read_cases(file, {}))
    assert [case.prompt for case in cases] == [f"A{mark}B is" for mark in "\u2028\u2029\u0085 "]
    assert [case.id for case in cases] == [f"bom-{number}" for number in (1, 2, 3, 4)]


def test_a_file_in_another_encoding_is_said(tmp_path: Path) -> None:
    file = tmp_path / "latin.jsonl"
    file.write_bytes('{"prompt": "é", "target": "y"}'.encode("latin-1"))
    with pytest.raises(InvalidRequest, match=r"latin\.jsonl is not in UTF-8"):
        list(read_cases(file, {}))


def test_generic_questions_are_not_about_what_is_edited(tmp_path: Path) -> None:
    cases = load_cases(
        [written(tmp_path, [{"prompt": "Of what country is Aeroflot's home?", "target": "x"}])], CaseSelection()
    )
    questions = generic_questions(cases)
    assert len(questions) > 300
    assert not [text for text in questions if "Aeroflot" in text]
    assert [text for text in generic_questions([]) if "Aeroflot" in text]
