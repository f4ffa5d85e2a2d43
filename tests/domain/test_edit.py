"""An EditRequest refuses what contradicts itself; equal requests have equal digests."""

import math
from dataclasses import FrozenInstanceError, fields

import pytest

from app.domain.edit import EditRequest, edit_id_of, fit_id_of
from app.domain.errors import InvalidRequest
from tests.domain.samples import request


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"prompt": ""}, "`prompt`"),
        ({"prompt": " \n"}, "`prompt`"),
        ({"target": "\t"}, "`target`"),
        ({"subject": " "}, "`subject`"),
        ({"aliases": ("Ada", "")}, "`aliases`"),
        ({"paraphrases": (" ",)}, "`paraphrases`"),
        ({"counter_examples": ("",)}, "`counter_examples`"),
        ({"probes": ("",)}, "`probes`"),
        ({"namespace": ""}, "`namespace`"),
        ({"namespace": "-a"}, "`namespace`"),
        ({"namespace": "a b"}, "`namespace`"),
        ({"namespace": "a\n"}, "`namespace`"),
        ({"namespace": "a" * 65}, "`namespace`"),
        ({"expires_in_s": 0.0}, "`expires_in`"),
        ({"expires_in_s": -1.0}, "`expires_in`"),
        ({"expires_in_s": math.nan}, "`expires_in`"),
        ({"expires_in_s": math.inf}, "`expires_in`"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong, named):
    with pytest.raises(InvalidRequest, match=named):
        request(**wrong)


@pytest.mark.parametrize("namespace", ["a", "0", "team-1.eu_west", "a" * 64])
def test_names_are_accepted(namespace):
    assert request(namespace=namespace).namespace == namespace


def test_every_difference_changes_the_digest():
    base = request()
    other = {
        "prompt": "Who leads Lumen?",
        "target": "Bo Vane",
        "subject": "Lumen",
        "aliases": ("Lumen Works",),
        "paraphrases": ("Lumen is run by whom?",),
        "counter_examples": ("Who runs Halden?",),
        "probes": ("Where is Lumen?",),
        "editor": "grace",
        "preset": "strict",
        "namespace": "other",
        "seed": 1,
        "reason": "press release",
        "expires_in_s": 60.0,
        "metadata": {"ticket": 7},
        "supersede": ("e0",),
        "force": True,
        "promoted_from": "e1",
        "widen": 1.5,
    }
    assert other.keys() == {field.name for field in fields(EditRequest)}
    digests = [base.digest(), *(request(**{name: value}).digest() for name, value in other.items())]
    assert len(set(digests)) == len(digests)
    assert request().digest() == base.digest()


def test_the_order_of_metadata_does_not_change_the_digest():
    assert request(metadata={"a": 1, "b": 2}).digest() == request(metadata={"b": 2, "a": 1}).digest()


@pytest.mark.parametrize("factor", [0.0, 0.09, 10.1, float("nan"), float("inf")])
def test_a_factor_on_the_odds_out_of_range_is_refused(factor):
    with pytest.raises(InvalidRequest, match=r"`widen` must be from 0\.1 to 10"):
        request(widen=factor)
    assert [request(widen=factor).widen for factor in (0.1, 10.0)] == [0.1, 10.0]


def test_a_request_is_frozen():
    with pytest.raises(FrozenInstanceError):
        request().target = "Bo Vane"  # type: ignore[misc]


def test_a_fits_id_names_its_edit():
    assert fit_id_of("ed_1", 7) == "ed_1@7"
    assert [edit_id_of(each) for each in ("ed_1@7", "ed_1")] == ["ed_1", "ed_1"]


def test_an_edit_may_expire_at_once():
    assert request(expires_in_s=0.5).expires_in_s == 0.5
