"""Keys of edits in one matrix: places are taken, given back and taken again, and the nearest is the nearest."""

import random

import pytest
import torch
from torch import Tensor

from app.scope import keys as keys_module
from app.scope.keys import SPARE, KeyIndex
from app.scope.outline import HEAD, Outline

WIDTH = 8


def unit(count: int, seed: int) -> Tensor:
    vectors = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


def test_each_place_is_of_the_edit_and_key_that_it_was_given() -> None:
    keys = KeyIndex(WIDTH)
    keys.add(4, unit(3, 1))
    keys.add(9, unit(2, 2))
    assert {keys.place(place) for place in keys.of([4]).tolist()} == {(4, 0), (4, 1), (4, 2)}
    assert {keys.place(place) for place in keys.of([9]).tolist()} == {(9, 0), (9, 1)}
    both = keys.of([9, 4]).tolist()
    assert both == sorted(both) == sorted(keys.of([4]).tolist() + keys.of([9]).tolist())
    assert keys.of([]).tolist() == []
    for row, key, vectors in ((4, 2, unit(3, 1)), (9, 0, unit(2, 2))):
        places = torch.tensor([place for place in both if keys.place(place) == (row, key)])
        assert keys.cosines(vectors[key][None], places).item() == pytest.approx(1, abs=1e-6)


def test_places_are_used_again_and_more_are_made_when_there_are_none() -> None:
    keys = KeyIndex(WIDTH)
    keys.add(0, unit(SPARE, 0))
    held = keys.held_bytes
    (place, *_) = keys.of([0]).tolist()
    keys.remove(0)
    assert keys.place(place) == (-1, 0), "it is nobody's"
    for row in range(1, 5):
        keys.add(row, unit(SPARE // 4, row))
    assert keys.held_bytes == held
    keys.add(5, unit(1, 5))
    assert keys.held_bytes > held
    assert len(set(keys.of(range(1, 6)).tolist())) == SPARE + 1
    with pytest.raises(KeyError):
        keys.of([0])


@pytest.mark.parametrize("share", [0.05, 0.9])
def test_the_nearest_is_found_exactly_among_those_that_may_be_seen(share: float) -> None:
    """The nearest of few keys and of most keys are computed in different ways."""
    rng, keys = random.Random(3), KeyIndex(WIDTH)
    stand: dict[int, Tensor] = {}
    for number in range(900):
        if stand and rng.random() < 0.3:
            gone = rng.choice(list(stand))
            keys.remove(gone)
            del stand[gone]
        else:
            stand[number] = unit(rng.randrange(1, 5), number)
            keys.add(number, stand[number])
    seen = rng.sample(sorted(stand), int(share * len(stand)))
    places = keys.of(seen)
    queries = unit(3, 10_000)
    found = keys.cosines(queries, places)
    assert found.shape == (sum(len(stand[row]) for row in seen),)
    for place, value in zip(places.tolist(), found.tolist(), strict=True):
        row, key = keys.place(place)
        assert value == pytest.approx(float((stand[row][key] @ queries.T).max()), abs=1e-6)
    nearest = keys.place(int(places[found.argmax()]))
    by_hand = max(((row, key) for row in seen for key in range(len(stand[row]))),
                  key=lambda at: float((stand[at[0]][at[1]] @ queries.T).max()))  # fmt: skip
    assert nearest == by_hand


def like_questions(count: int, seed: int, width: int = 160) -> Tensor:
    """Unit vectors whose variance lies mostly in few directions, and in clusters, as that of sentence vectors does."""
    made = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, width + 1).float().pow(-0.7)
    centres = torch.randn(40, width, generator=made) * scale
    which = torch.randint(len(centres), (count,), generator=made)
    return torch.nn.functional.normalize(
        centres[which] + 0.5 * torch.randn(count, width, generator=made) * scale, dim=-1
    )


def by_hand(vectors: Tensor, queries: Tensor, places: Tensor, most: int, floor: float) -> list[float]:
    every = sorted((vectors[places].double() @ queries.double().T).amax(1).tolist(), reverse=True)
    return [value for value in every[:most] if value > floor]


@pytest.mark.parametrize(("floor", "share"), [(0.2, 1.0), (0.2, 0.7), (-1.0, 1.0), (0.9, 1.0)])
def test_the_nearest_of_many_are_those_of_a_comparison_with_all(
    monkeypatch: pytest.MonkeyPatch, floor: float, share: float
) -> None:
    monkeypatch.setattr(keys_module, "MANY", 2 * SPARE)
    vectors = like_questions(6_000, 1)
    keys, every = KeyIndex(vectors.shape[1]), torch.zeros(20_000, vectors.shape[1])
    for row in range(0, 6_000, 3):
        keys.add(row, vectors[row : row + 3])
    for row in range(0, 1_500, 3):  # their places are given to others
        keys.remove(row)
    others = like_questions(1_500, 2)
    for row in range(0, 1_500, 3):
        keys.add(row, others[row : row + 3])
        vectors[row : row + 3] = others[row : row + 3]
    for row in range(0, 6_000, 3):
        for place in keys.of([row]).tolist():
            every[place] = vectors[row + keys.place(place)[1]]
    places = keys.of(random.Random(4).sample(range(0, 6_000, 3), int(share * 2_000)))
    whole = 0
    for queries in (*like_questions(40, 3).split(2), *torch.nn.functional.normalize(torch.randn(20, 160)).split(2)):
        found, cosines = keys.nearest(queries, places, 64, floor)
        assert cosines.tolist() == pytest.approx(by_hand(every, queries, places, 64, floor), abs=1e-5)
        assert (every[found] @ queries.T).amax(1).tolist() == pytest.approx(cosines.tolist(), abs=1e-5)
        assert set(found.tolist()) <= set(places.tolist())
        whole += len(keys.candidates(queries, places, 64, floor)) == len(places)
    assert whole < 30, "the outline rules nothing out"


def test_no_outline_is_kept_for_namespaces_that_are_a_small_part_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a quarter of what the keys take, and only an edition with a large part of them reads it."""
    monkeypatch.setattr(keys_module, "MANY", 2 * SPARE)
    vectors, keys = like_questions(4 * SPARE, 5), KeyIndex(160)
    for row in range(4 * SPARE // 4):
        keys.add(row, vectors[4 * row : 4 * row + 4])
    keys.of(range(100))
    held = keys.held_bytes
    assert held <= 1.5 * (vectors.nbytes + 8 * len(vectors)), "with at most half as much to spare"
    places = keys.of(range(SPARE))
    assert keys.held_bytes > held + (HEAD + 1) * 4 * len(vectors) - 1
    assert len(keys.candidates(vectors[:1], places, 16, 0.5)) < len(places)
    keys.add(4 * SPARE, like_questions(4 * SPARE, 6))
    assert keys.nearest(vectors[:1], keys.of(range(SPARE)), 1, 0.5)[1].item() == pytest.approx(1.0, abs=1e-5)


def test_no_cosine_is_above_what_the_outline_allows() -> None:
    vectors, queries = like_questions(3_000, 5), like_questions(7, 6)
    outline = Outline(vectors, vectors[:500])
    later = like_questions(100, 7)
    vectors[200:300] = later
    outline.set(list(range(200, 300)), later)
    bounds = outline.at_most(queries)
    cosines = (vectors.double() @ queries.double().T).amax(1)
    assert (bounds >= cosines).all()
    assert (bounds - cosines).mean() < 0.2, "bounds as loose as these rule nothing out"


def test_rounding_excludes_no_vector_that_lies_almost_in_the_head() -> None:
    made = torch.Generator().manual_seed(8)
    inside = torch.nn.functional.normalize(torch.randn(2_000, HEAD, generator=made), dim=-1)
    vectors = torch.nn.functional.normalize(torch.cat([inside, torch.full((2_000, 1), 2e-4)], dim=1), dim=-1)
    queries = torch.nn.functional.normalize(torch.cat([inside[:3], torch.ones(3, 1)], dim=1), dim=-1)
    cosines = (vectors.double() @ queries.double().T).amax(1)
    assert (Outline(vectors, vectors).at_most(queries) >= cosines).all()
