"""Keys of edits in one matrix: places are taken, given back and taken again, and the nearest is the nearest."""

import random

import pytest
import torch
from torch import Tensor

from app.scope.keys import SPARE, Keys

WIDTH = 8


def unit(count: int, seed: int) -> Tensor:
    vectors = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


def test_each_place_is_of_the_edit_and_key_that_it_was_given() -> None:
    keys = Keys(WIDTH)
    keys.add(4, unit(3, 1))
    keys.add(9, unit(2, 2))
    assert [keys.place(place) for place in keys.row_places(4)] == [(4, 0), (4, 1), (4, 2)]
    assert [keys.place(place) for place in keys.row_places(9)] == [(9, 0), (9, 1)]
    both = keys.of([9, 4]).tolist()
    assert both == sorted(both) == sorted(keys.row_places(4) + keys.row_places(9))
    assert keys.of([]).tolist() == []
    for row, key, vectors in ((4, 2, unit(3, 1)), (9, 0, unit(2, 2))):
        places = torch.tensor([keys.row_places(row)[key]])
        assert keys.similarity(vectors[key][None], places).item() == pytest.approx(1, abs=1e-6)


def test_places_are_used_again_and_more_are_made_when_there_are_none() -> None:
    keys = Keys(WIDTH)
    keys.add(0, unit(SPARE, 0))
    held = keys.held_bytes
    keys.remove(0)
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
    """With few of all keys, and with most: the two are computed in different ways."""
    rng, keys = random.Random(3), Keys(WIDTH)
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
    found = keys.similarity(queries, places)
    assert found.shape == (sum(len(stand[row]) for row in seen),)
    for place, value in zip(places.tolist(), found.tolist(), strict=True):
        row, key = keys.place(place)
        assert value == pytest.approx(float((stand[row][key] @ queries.T).max()), abs=1e-6)
    nearest = keys.place(int(places[found.argmax()]))
    by_hand = max(((row, key) for row in seen for key in range(len(stand[row]))),
                  key=lambda at: float((stand[at[0]][at[1]] @ queries.T).max()))  # fmt: skip
    assert nearest == by_hand
