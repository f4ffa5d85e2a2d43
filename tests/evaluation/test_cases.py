"""Every dialect of the field is read into the same case; what cannot be read is said with its row."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import InvalidRequest
from app.evaluation.cases import Case, Choice, case_of, load_cases, read_cases

OURS = {
    "prompt": "The capital of Peru is",
    "target": "Cusco",
    "subject": "Peru",
    "aliases": ["the land of the Incas"],
    "paraphrases": ["Peru's capital is"],
    "probes": ["The capital of Chile is"],
}
SHARED = {
    "id": "zsre-7",
    "subject": "Peru",
    "prompt": "What is the capital of Peru?",
    "target_new": "Cusco",
    "ground_truth": "Lima",
    "rephrase_prompts": ["Which city is Peru's capital?"],
    "locality": [{"prompt": "What is the capital of Chile?", "ground_truth": "Santiago", "kind": "neighborhood"}],
    "overwrites": "zsre-3",
}
ROME = {
    "case_id": 12,
    "requested_rewrite": {
        "prompt": "The capital of {} is",
        "subject": "Peru",
        "target_new": {"str": "Cusco"},
        "target_true": {"str": "Lima"},
    },
    "paraphrase_prompts": ["It rained. Peru's capital is"],
    "neighborhood_prompts": ["The capital of Chile is"],
}
EASYEDIT = {
    "src": "What is the capital of Peru?",
    "alt": "Cusco",
    "rephrase": "Which city is Peru's capital?",
    "subject": "Peru",
    "answers": ["Lima"],
    "pred": "Quito",
    "loc": "nq question: who wrote hamlet",
    "loc_ans": "Shakespeare",
}
KNOWEDIT = {
    "prompt": "What is the capital of Peru?",
    "target_new": "Cusco",
    "subject": "Peru",
    "ground_truth": [["Lima"]],
    "rephrase_prompt": "Which city is Peru's capital?",
    "locality": {"Relation_Specificity": [{"prompt": "The currency of Peru is", "ground_truth": [["sol"]]}]},
}


def read(row: dict[str, Any]) -> Case:
    return case_of(row, "file", 1)


def test_our_own_rows() -> None:
    case = read(OURS)
    assert (case.id, case.prompt, case.target) == ("file-1", "The capital of Peru is", "Cusco")
    assert (case.aliases, case.paraphrases) == (("the land of the Incas",), ("Peru's capital is",))
    assert case.untouched == (("probes", "The capital of Chile is"),)


def test_rows_with_overwrites_and_kinds_of_locality() -> None:
    case = read(SHARED)
    assert (case.id, case.old, case.overwrites) == ("zsre-7", "Lima", "zsre-3")
    assert case.untouched == (("neighborhood", "What is the capital of Chile?"),)


def test_counterfact_as_rome_published_it() -> None:
    case = read(ROME)
    assert (case.id, case.prompt, case.target, case.old) == ("12", "The capital of Peru is", "Cusco", "Lima")
    assert case.paraphrases == ("It rained. Peru's capital is",)
    assert case.untouched == (("neighborhood", "The capital of Chile is"),)


def test_zsre_as_mend_and_easyedit_keep_it() -> None:
    case = read(EASYEDIT)
    assert (case.prompt, case.target, case.old) == ("What is the capital of Peru?", "Cusco", "Quito")
    assert case.untouched == (("nq", "who wrote hamlet"),)


def test_knowedit() -> None:
    case = read(KNOWEDIT)
    assert (case.target, case.old) == ("Cusco", "Lima")
    assert case.untouched == (("Relation_Specificity", "The currency of Peru is"),)


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
        ("{", "neither a JSON list"),
        ('{"prompt": "x"}', "Row 1"),
        ('{"prompt": "x", "target": "y"}\n7', "Row 2"),
        ('{"requested_rewrite": {}}', "Row 1"),
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
    first = {case.id for case in load_cases([file], Choice(half="first", seed=1))}
    second = {case.id for case in load_cases([file], Choice(half="second", seed=2))}
    assert not first & second
    assert len(first | second) == 100
    assert 30 < len(first) < 70


def test_rows_are_chosen_shuffled_and_framed(tmp_path: Path) -> None:
    file = written(tmp_path, many(20))
    chosen = Choice(where={"split": "a", "other": "x"}, template="Q: {} A:", most=5, seed=3)
    cases = load_cases([file], chosen)
    assert cases == load_cases([file], chosen)
    assert len(cases) == 5
    assert all(int(case.id[1:]) % 2 == 0 for case in cases)
    assert [case.prompt for case in cases] == [f"Q: What is {case.id[1:]}? A:" for case in cases]
    assert [case.id for case in cases] != sorted((case.id for case in cases), key=lambda name: int(name[1:]))
    with pytest.raises(InvalidRequest, match="No row"):
        load_cases([file], Choice(where={"split": "c"}))


def test_a_correction_comes_after_what_it_corrects(tmp_path: Path) -> None:
    rows = many(30)
    for i in range(10, 20):
        rows[i]["overwrites"] = f"c{i - 10}"
    for seed in range(5):
        order = [case.id for case in load_cases([written(tmp_path, rows)], Choice(seed=seed))]
        assert len(order) == 30
        assert all(order.index(f"c{i}") > order.index(f"c{i - 10}") for i in range(10, 20))
