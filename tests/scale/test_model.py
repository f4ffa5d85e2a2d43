"""Copies are edits of their own, costs come from the parts, and the model is right."""

from dataclasses import fields, replace

import pytest

from app.bench import scope_index
from app.domain.events import EditCommitted
from app.domain.ledger import Ledger
from tests.domain.samples import committed
from tests.scale import parts, report
from tests.scale.__main__ import PROMPT, costs_of, extrapolated, measured
from tests.scale.model import Costs, Demand, Design, Limits, Scale, busiest, demands, full_at, queues
from tests.scale.parts import CopiedEvents

SCOPE = {"keys": [PROMPT], "made": ["Who leads Lumen?"], "names": [["lumen"]], "bound": 0.5}
COSTS = Costs(**{field.name: 1e-3 for field in fields(Costs)})


def real_event() -> EditCommitted:
    event = committed(1, prompt=PROMPT)
    return replace(event, edit=replace(event.edit, learned={"scope": SCOPE}))


def test_copies_are_other_edits_of_the_same_size() -> None:
    copies, ledger = CopiedEvents(real_event(), each=2), Ledger()
    for revision in range(1, 6):
        ledger.apply(copies.event(revision))
    edits = list(ledger.all_live())
    assert len(edits) == 5
    assert [edit.request.namespace for edit in edits] == ["space0", "space0", "space1", "space1", "space2"]
    assert {edit.request.prompt for edit in edits} == {edit.learned["scope"]["keys"][0] for edit in edits}
    assert len({edit.request.prompt for edit in edits}) == len({str(edit.learned) for edit in edits}) == 5
    assert len({len(entry) for entry in copies.entries(5)}) == 1


def test_a_part_is_full_where_its_use_is_whole() -> None:
    whole, limits = Scale(replicas=10), Limits()
    demand_of = demands(COSTS, whole, Design(followers=10), limits)
    assert demand_of["appends, one after the other"] == Demand(10.0, "edits_per_s")
    for part, demand in demand_of.items():
        full = full_at(COSTS, whole, Design(followers=10), limits, part)
        more = replace(whole, **{demand.grows_with: full})
        followers = full if demand.grows_with == "replicas" else 10
        assert demands(COSTS, more, Design(followers=followers), limits)[part].use == pytest.approx(1.0, rel=1e-3), part
    assert full_at(COSTS, whole, Design(followers=10), limits, "appends, one after the other") == pytest.approx(1_000)


def test_shards_divide_what_each_log_and_server_does_and_laziness_what_a_server_holds() -> None:
    whole, limits = Scale(replicas=100), Limits()
    one = demands(COSTS, whole, Design(followers=100), limits)
    ten = demands(COSTS, whole, Design(shards=10, followers=10), limits)
    lazy = demands(COSTS, whole, Design(shards=10, followers=10, lazy=True, held=0.1), limits)
    for part in one.keys() - {"counts of answers"}:
        assert ten[part].use < one[part].use / 9, part
    assert {part for part in ten if lazy[part].use < ten[part].use} == {
        "a server's core: folding",
        "a server's memory",
        "a server's start",
    }


def test_a_queue_waits_for_what_is_before_it_and_has_no_end_above_its_rate() -> None:
    alone = queues(0.01, 0.01, 0.02, seconds=2_000.0)
    assert (alone["append_p99_ms"], alone["lag_p99_ms"], alone["grows"]) == (10.0, 20.0, False)
    busy = queues(90.0, 0.01, 0.001, seconds=200.0)
    # the mean wait of random arrivals at a fixed service time is rho / (2 (1 - rho)) services: 45 ms before one's own
    assert 100 < busy["append_p99_ms"] < 400
    assert busy["lag_p99_ms"] == pytest.approx(1.0, abs=0.1), "the append lets one through at a time"
    assert queues(110.0, 0.01, 0.001)["grows"]
    assert queues(90.0, 0.001, 0.02)["grows"], "a follower that is slower than the log"


def test_large_namespaces_make_busy_shards() -> None:
    whole = Scale(namespaces=10_000)
    even, top = busiest(whole, 10, 0.0)
    assert 0.1 <= even < 0.12
    assert top == pytest.approx(1e-4)
    skewed, largest = busiest(whole, 10, 1.0)
    assert skewed > even
    assert skewed >= largest > 0.1
    assert busiest(whole, 1, 1.0)[0] == 1.0


@pytest.mark.slow
def test_every_part_is_measured_and_tells_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PIECES", 2)
    monkeypatch.setattr(scope_index, "ENCODED", 8)
    lines: list[str] = []
    figures = measured(real_event(), (40, 120), 24, lines.append)
    assert set(figures["ledger"]["fold_us"]) == {40, 120}
    assert figures["sqlite"]["tries"] >= 1
    entry, redis = figures["codec"]["entry_bytes"], figures["redis"]
    assert entry < redis["catching_up"]["bytes"] < 2 * entry, "a server that catches up reads each entry once"
    assert redis["following"]["bytes"] > entry
    assert len(lines) == len(figures), "each part's figures are told as they come"
    follows = extrapolated(costs_of(figures), seconds=0.2)
    in_memory = ("ledger_bytes", "scope_bytes")  # of so few edits a process that has freed more needs nothing new
    measured_costs = {name: value for name, value in follows["costs"].items() if name not in in_memory}
    assert all(value > 0 for name, value in measured_costs.items() if not name.startswith("redis_"))
    tables = report.tables({"parts": figures} | follows)
    assert len(tables) == 4
    assert {row[0] for row in tables[2][1]} == set(demands(COSTS, Scale(), Design(), Limits()))
    lines = report.text({"parts": figures} | follows).splitlines()
    assert sum(line.startswith("| ---") for line in lines) == 4
