"""Radii are a pure function of the rows that are live together; memory given back is used again."""

import random

import pytest
import torch

from app.editors.codebook import Codebook

CPU = torch.device("cpu")


def book_of(keys: list[list[float]], radius: float = 1.0) -> Codebook:
    book = Codebook(CPU)
    for i, key in enumerate(keys):
        add(book, f"e{i}", key, radius, loaded=i, target=(i,))
    return book


def add(book: Codebook, edit_id: str, key: list[float], radius: float, loaded: int, target: tuple[int, ...]) -> int:
    return book.add(
        edit_id,
        keys=torch.tensor([key]),
        radius=radius,
        target=target,
        rivals=[book.row(f"e{j}") for j in range(loaded) if f"e{j}" in book._row_of],
    )


def test_radii_end_before_the_keys_of_rivals() -> None:
    book = book_of([[0.0, 0.0], [1.0, 0.0], [0.0, 0.4]])
    assert book.radii([0, 1, 2]) == pytest.approx({0: 0.3, 1: 0.75, 2: 0.3})


def test_taking_a_row_out_gives_its_rivals_their_radii_back() -> None:
    book = book_of([[0.0, 0.0], [1.0, 0.0], [0.0, 0.4]])
    assert book.radii([0, 1]) == pytest.approx({0: 0.75, 1: 0.75})
    assert book.radii([0]) == {0: 1.0}


def test_far_rivals_do_not_matter() -> None:
    assert book_of([[0.0, 0.0], [5.0, 0.0]]).radii([0, 1]) == {0: 1.0, 1: 1.0}


def test_of_equal_keys_the_newest_is_left() -> None:
    book = book_of([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0 + 1e-4]])
    assert book.radii([0, 1, 2]) == {2: 1.0}
    assert book.radii([0, 1]) == {1: 1.0}
    assert book.radii([0]) == {0: 1.0}
    assert book.radii([2, 1, 0]) == {0: 1.0}, "age is the edition's word, not the order in which rows were loaded"


def test_a_row_is_as_near_as_the_nearest_of_its_keys() -> None:
    book = Codebook(CPU)
    first = book.add("a", keys=torch.tensor([[0.0, 0.0], [10.0, 0.0]]), radius=4.0, target=(1,), rivals=[])
    second = book.add("b", keys=torch.tensor([[0.0, 50.0], [14.0, 0.0]]), radius=4.0, target=(2,), rivals=[first])
    assert book.distances(torch.tensor([9.0, 0.0]), [second, first]) == pytest.approx([5.0, 1.0])
    assert book.radii([first, second]) == pytest.approx({first: 3.0, second: 3.0})
    assert book.radii([second]) == {second: 4.0}


def test_radii_do_not_depend_on_the_order_in_which_rows_came() -> None:
    rng = random.Random(5)
    keys = [[rng.random() * 3, rng.random() * 3] for _ in range(30)]
    straight = book_of(keys)
    mixed = Codebook(CPU)
    order = list(range(30))
    rng.shuffle(order)
    for i in order:
        key = torch.tensor(keys[i])
        rivals = [mixed.row(f"e{j}") for j in order[: order.index(i)]]
        mixed.add(f"e{i}", keys=key[None], radius=1.0, target=(i,), rivals=rivals)
    live = rng.sample(range(30), 17)
    one = {straight.edit_id(r): v for r, v in straight.radii([straight.row(f"e{i}") for i in live]).items()}
    two = {mixed.edit_id(r): v for r, v in mixed.radii([mixed.row(f"e{i}") for i in live]).items()}
    assert one == two


def test_memory_given_back_is_used_again() -> None:
    book = book_of([[float(i), 0.0] for i in range(5)])
    before = book._keys.data.shape  # room for 64
    for _ in range(200):
        for count in (1, 3):
            keys = torch.full((count, 2), 9.0)
            row = book.add("trial", keys=keys, radius=1.0, target=(1,), rivals=[])
            assert book.remove("trial") == row
    assert book._keys.data.shape == before
    assert len(book) == 5
    assert book.radii(range(5)).keys() == set(range(5))


def test_the_shortlist_holds_the_nearest() -> None:
    torch.manual_seed(0)
    keys = torch.randn(500, 16)
    book = book_of(keys.tolist(), radius=0.0)
    query = torch.randn(16)
    nearest = int((keys - query).norm(dim=-1).argmin())
    listed = book.shortlist(query, range(500), book.first_keys(range(500)), 8)
    assert nearest in listed
    assert book.distances(query, [nearest])[0] == pytest.approx(float((keys - query).norm(dim=-1).min()))
