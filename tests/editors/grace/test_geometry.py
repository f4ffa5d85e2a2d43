"""GRACE's published table (section 3) row by row, with radii worked out by hand; and replay."""

import random

import pytest
import torch

from app.editors.grace.geometry import SPLIT_GAP, Geometry, KeyedEdit, Replay

CPU = torch.device("cpu")


def edit(edit_id: str, *query: float, target: int = 1) -> KeyedEdit:
    return KeyedEdit(edit_id, torch.tensor(query), (target,))


def replayed(*edits: KeyedEdit, radius: float = 1.0, moving_average: bool = False) -> Geometry:
    return Replay(len(edits[0].query), CPU, radius=radius, moving_average=moving_average)(edits)


def shape(geometry: Geometry) -> list[tuple[list[float], float, tuple[str, ...]]]:
    return [(key.tolist(), e.radius, e.members) for key, e in zip(geometry.keys, geometry.entries, strict=True)]


def test_far_from_every_key_a_new_one_is_added_with_the_first_radius() -> None:
    found = replayed(edit("a", 3.0, 4.0), edit("b", 10.0, 4.0, target=2))
    assert shape(found) == [([3.0, 4.0], 1.0, ("a",)), ([10.0, 4.0], 1.0, ("b",))]


def test_near_a_key_of_another_target_both_radii_are_halved_against_each_other() -> None:
    found = replayed(edit("a", 3.0, 4.0), edit("b", 4.5, 4.0, target=2))  # 1.5 apart, within 1 + 1
    assert [entry.radius for entry in found.entries] == pytest.approx([0.75 - SPLIT_GAP, 0.75], abs=1e-9)


def test_a_split_never_widens_what_an_earlier_one_narrowed() -> None:
    """The official code sets d / 2 whatever was there."""
    edits = [edit("a", 3.0, 4.0), edit("b", 3.2, 4.0, target=2), edit("c", 2.0, 4.0, target=2)]
    radii = [entry.radius for entry in replayed(*edits).entries]
    assert radii == pytest.approx([0.1 - SPLIT_GAP, 0.1, 0.5], abs=1e-6)


def test_near_a_key_of_the_same_target_its_radius_grows_to_cover() -> None:
    found = replayed(edit("a", 3.0, 4.0), edit("b", 4.5, 4.0))
    assert shape(found) == [([3.0, 4.0], 1.5, ("a", "b"))]
    assert shape(replayed(edit("a", 3.0, 4.0), edit("b", 4.5, 4.0), moving_average=True)) == [
        ([3.75, 4.0], 1.5, ("a", "b"))
    ]


def test_inside_a_key_of_the_same_target_nothing_changes() -> None:
    assert shape(replayed(edit("a", 3.0, 4.0), edit("b", 3.5, 4.0))) == [([3.0, 4.0], 1.0, ("a", "b"))]


def test_the_same_prompt_with_a_new_target_takes_the_key_over() -> None:
    """Two keys at distance 0 would tie, and the older would answer for ever, as in the official code."""
    found = replayed(edit("a", 3.0, 4.0), edit("again", 3.0, 4.0, target=2))
    assert shape(found) == [([3.0, 4.0], 1.0, ("again",))]


def test_targets_are_compared_by_their_tokens() -> None:
    """The official code compares means: 5, 9 and 9, 5 would be one target, and so would 7, 7."""
    first, second = edit("a", 3.0, 4.0), KeyedEdit("b", torch.tensor([4.5, 4.0]), (9, 5))
    found = replayed(KeyedEdit("a", first.query, (5, 9)), second)
    assert len(found.entries) == 2


def test_only_the_nearest_key_is_asked() -> None:
    found = replayed(edit("wide", 0.0, 0.1), edit("wider", 1.9, 0.1), edit("narrow", 4.0, 0.1, target=2))
    distance, at = found.nearest(torch.tensor([3.0, 0.1]))
    assert (at, found.entries[at].members) == (1, ("narrow",))
    assert distance == pytest.approx(1.0)


def test_replay_without_an_edit_is_never_having_had_it() -> None:
    rng = random.Random(1)
    edits = [edit(f"e{i}", rng.random() * 6, rng.random() * 6, target=rng.randrange(4)) for i in range(60)]
    replay = Replay(2, CPU, radius=1.0, moving_average=False)
    for gone in (0, 7, 59, 30):
        kept = [edit for at, edit in enumerate(edits) if at != gone]
        replay(edits)
        assert shape(replay(kept)) == shape(Replay(2, CPU, radius=1.0, moving_average=False)(kept))


def test_a_list_that_goes_on_is_replayed_from_where_it_was() -> None:
    rng = random.Random(2)
    edits = [edit(f"e{i}", rng.random() * 6, rng.random() * 6, target=rng.randrange(3)) for i in range(40)]
    replay = Replay(2, CPU, radius=1.0, moving_average=True)
    grown = [shape(replay(edits[:count])) for count in range(1, 41)]
    assert grown == [shape(Replay(2, CPU, radius=1.0, moving_average=True)(edits[:count])) for count in range(1, 41)]
