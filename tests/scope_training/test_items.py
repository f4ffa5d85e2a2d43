"""The items that the scope's models are trained on."""

from pathlib import Path

import pytest

from app.scope_training.items import PAIRS, all_items, held_out, phrasings, read_items


def test_the_written_pairs_are_whole() -> None:
    items = read_items(PAIRS)
    assert len(items) > 500
    for item in items:
        assert len(item.same) >= 2
        assert not set(item.same) & set(item.other)


@pytest.mark.slow
def test_a_focus_takes_all_of_its_fields_and_a_share_of_the_others() -> None:
    written = {item for item in read_items(PAIRS) if not held_out(item)}
    focus = {item for field in ("roles", "lookalike") for item in read_items(PAIRS, field)} & written
    taken = {*all_items(PAIRS, 0, ("roles", "lookalike"), 0.25)} & written
    assert taken > focus
    assert len(taken - focus) / len(written - focus) == pytest.approx(0.25, abs=0.03)
    assert {*all_items(PAIRS, 0)} > written


def test_phrasings_are_those_that_ship_and_those_of_the_folder(tmp_path: Path) -> None:
    shipped, _ = phrasings(tmp_path)
    ways, _ = phrasings(PAIRS)
    assert ways.keys() > shipped.keys() > set()
    (tmp_path / "relations.tsv").write_text("relation\tphrasing\nowl\tWelche Eule hat {}?\n", encoding="utf-8")
    ways, _ = phrasings(tmp_path)
    assert (ways.keys() - shipped.keys(), ways["owl"]) == ({"owl"}, ["Welche Eule hat {}?"])
