"""Files of corrections: what is read of them, what is told of rows that cannot be, and that a file comes back whole."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidRequest
from app.service.files import COLUMNS, FileRow, read, write

CSV = 'prompt,target,paraphrases\nWho?,Ada,"Who is it?\nWho was it?"\n\n"Where, now?",Bern,\n'


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_spreadsheets_files_are_read(delimiter: str, ends: str, mark: str) -> None:
    rows = ["Prompt,Target,Counter Examples,", '"Who, ""he""?",Ada,"A?\nB?",', ",,,", "Where?,Bern,,"]
    text = mark + ends.join(rows[0:1] + rows[1:]).replace(",", delimiter)
    kind, lines = read(text)
    assert kind == "csv"
    assert [line.problem for line in lines] == [None, None]
    assert lines[0].text("prompt") == f'Who{delimiter} "he"?'
    assert lines[0].list("counter_examples") == ("A?", "B?")
    assert (lines[1].text("prompt"), lines[1].text("target"), lines[1].list("counter_examples")) == (
        "Where?",
        "Bern",
        (),
    )


def test_rows_know_the_line_on_which_they_begin() -> None:
    assert [line.number for line in read(CSV)[1]] == [2, 5]
    assert [line.number for line in read('{"prompt": "a"}\n\n{"prompt": "b"}\n')[1]] == [1, 3]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (" \n", "is empty"),
        ("prompt,target\n", "no rows"),
        ("question,answer\na,b\n", "no column 'prompt'"),
        ("prompt\na\n", "no column 'target'"),
        ("prompt,target,colour\na,b,c\n", "'colour' is not known"),
        ("prompt,target,target\na,b,c\n", "a column twice"),
        ('prompt,target\n"a" b,c\n', "cannot be read as CSV from line 2 on"),
        ("prompt,target\n" + "a,b\n" * 1001, "1001 rows"),
        ("prompt,target," + "c" * 200_000 + "\na,b,c\n", "from line 1 on"),
        ("prompt,target\na," + "b" * 200_000 + "\n", "at most 131,072 characters"),
    ],
)
def test_a_file_that_is_none_says_what_to_do(text: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(text)
    assert told in raised.value.message


@given(st.text('prompt,target;\t\r\n"{}a\x00\x85\u2028', max_size=60), st.sampled_from(["", "prompt,target\n"]))
def test_any_text_is_read_or_refused(text: str, head: str) -> None:
    with suppress(InvalidRequest):
        assert read(head + text)[1]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"prompt": "a", "target": 3}', "'target' must be a text"),
        ('{"prompt": "a", "paraphrases": [1]}', "'paraphrases' must be a list of texts"),
        ('{"prompt": "a", "force": true}', "'force' is not known"),
        ('{"prompt": "\\ud800"}', "half of a surrogate pair"),
        ("[1]", "not a JSON object"),
        ('{"prompt": ', "not JSON"),
    ],
)
def test_a_row_that_cannot_be_read_leaves_the_others_alone(row: str, told: str) -> None:
    _, lines = read('{"prompt": "Who?", "target": "Ada"}\n' + row)
    assert lines[0].problem is None
    assert told in (lines[1].problem or "")


def test_a_row_with_too_many_cells_is_told() -> None:
    _, lines = read("prompt,target\nWho, then?,Ada\nWhere?,Bern,\n")
    assert "more cells" in (lines[0].problem or "")
    assert lines[1].problem is None


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_of_refused_rows_comes_back_as_it_was(kind: str) -> None:
    texts = ['=HYPERLINK("x")', "'=1", "-1", "+1", "@a", "a,b;c", 'say "no"', "'tis", "é 😀"]
    before = [FileRow(1, {"prompt": each, "target": each}, {"paraphrases": (each, "or so")}) for each in texts]
    text = write(kind, ((line, "=no") for line in before))  # type: ignore[arg-type]
    found, lines = read(text)
    assert found == kind
    for old, new in zip(before, lines, strict=True):
        assert new.problem is None
        assert {name: new.text(name) for name in ("prompt", "target")} == dict(old.texts)
        assert new.list("paraphrases") == old.list("paraphrases")
    if kind == "csv":
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in text.replace("\n", ",").split(","))
    else:
        assert all(json.loads(line)["problem"] == "=no" for line in text.splitlines())


def test_every_column_comes_back() -> None:
    whole = {name: ["a", "b"] if name in ("paraphrases", "counter_examples") else "a" for name in COLUMNS}
    _, (line,) = read(json.dumps(whole))
    assert json.loads(write("jsonl", [(line, "why")])) == {**whole, "problem": "why"}
    _, (again,) = read(write("csv", [(line, "why")]))
    assert write("jsonl", [(again, "why")]) == write("jsonl", [(line, "why")])
