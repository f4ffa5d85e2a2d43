"""The names that near misses are asked about: those most like the edit's own come first."""

from collections.abc import Sequence

from torch import Tensor

from app.scope.bank import load_bank
from app.scope.other_names import OtherNames
from app.scope.vectors import Vectors
from tests.rig import an_encoder
from tests.scope.stand_in import AngleEncoder


def test_the_names_most_like_it_come_first() -> None:
    names = sorted({each.subject for each in load_bank()})
    others = OtherNames(Vectors(an_encoder()), names)
    found = others.like("Croatia")
    assert sorted(found) == names
    assert {"Finland", "Ukraine", "Azerbaijan"} < set(found[:8])
    assert "18" not in found[:20]


def test_without_a_name_or_without_names_nothing_is_computed() -> None:
    class Nothing(Vectors):
        def of(self, texts: Sequence[str]) -> Tensor:
            raise AssertionError(texts)

    vectors = Nothing(AngleEncoder({}))
    assert OtherNames(vectors, ["Peru", "Bolivia"]).like(None) == ["Peru", "Bolivia"]
    assert OtherNames(vectors, []).like("Peru") == []


def test_what_may_be_another_name_of_the_same_is_left_out() -> None:
    others = OtherNames(Vectors(AngleEncoder({})), ["Peru", "Ivory Coast", "Bolivia", "Per"])
    assert others.like(None, ["Who rules Côte d'Ivoire, the Ivory Coast?", "bolivia"]) == ["Peru", "Per"]


def test_what_is_alike_is_computed_once() -> None:
    asked: list[int] = []

    class Counted(Vectors):
        def of(self, texts: Sequence[str]) -> Tensor:
            asked.append(len(texts))
            return super().of(texts)

    encoder = AngleEncoder({"Peru": 20, "sulphur": 90, "Bolivia": 10, "Chile": 0, "Ecuador": 30})
    others = OtherNames(Counted(encoder), ["Peru", "sulphur", "Bolivia"])
    assert others.like("Chile") == ["Bolivia", "Peru", "sulphur"]
    assert others.like("Ecuador") == ["Peru", "Bolivia", "sulphur"]
    assert others.like("Mongolia") == ["Peru", "sulphur", "Bolivia"], "equally far: in their own order"
    assert asked == [3]
