"""The figures as Markdown tables."""

from collections.abc import Mapping
from typing import Any

Table = tuple[list[str], list[list[str]]]
UNITS = {"edits_per_s": "edits/s", "edits": "edits", "replicas": "servers"}


def text(figures: Mapping[str, Any]) -> str:
    return "\n\n".join("\n".join(_lines(*table)) for table in tables(figures))


def _lines(heading: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (heading, ["---"] * len(heading), *rows)]


def tables(figures: Mapping[str, Any]) -> list[Table]:
    return [_parts(figures["parts"]), _reach(figures["reach"]), _use(figures["use"]), _queues(figures["queues"])]


def _parts(parts: Mapping[str, Any]) -> Table:
    rows = []
    for part, figures in parts.items():
        for name, value in _flat(figures):
            rows.append([f"{part}: {name}", f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"])
    return ["part, per edit unless it says otherwise", "measured"], rows


def _flat(figures: Mapping[Any, Any], before: str = "") -> list[tuple[str, float]]:
    flat: list[tuple[str, float]] = []
    for name, value in figures.items():
        whole = f"{before}{name:,} edits" if isinstance(name, int) else f"{before}{name}"
        flat += _flat(value, f"{whole}, ") if isinstance(value, Mapping) else [(whole, value)]
    return flat


def _reach(reach: Mapping[Any, Any]) -> Table:
    rows = []
    for replicas, each in reach.items():
        (rate, by_rate), (edits, by_edits) = each["edits_per_s"], each["edits"]
        rows.append([f"{int(replicas):,}", f"{_rounded(rate)}", by_rate, f"{_rounded(edits)}", by_edits])
    return ["servers over one log", "edits/s", "full first", "edits", "full first"], rows


def _use(use: Mapping[str, Any]) -> Table:
    rows = []
    for part in next(iter(use.values())):
        cells = [f"{share:.2g}" for share, _, _ in (by_part[part] for by_part in use.values())]
        _, full, quantity = next(iter(use.values()))[part]
        rows.append([part, *cells, f"{_rounded(full)} {UNITS[quantity]}"])
    return ["use, as a multiple of what the part has", *use, "one log is full at"], rows


def _queues(queues: Mapping[str, Any]) -> Table:
    rows = []
    for name, each in queues.items():
        waits = (
            ["without end"] * 2 if each["grows"] else [f"{each[key]:,.0f}" for key in ("append_p99_ms", "lag_p99_ms")]
        )
        rows.append([name, f"{each['rate']:,.0f}", *waits])
    return ["simulated: busiest shard", "edits/s", "append, p99 ms", "lag, p99 ms"], rows


def _rounded(value: float) -> str:
    """Two digits: what was extrapolated is not known better."""
    return f"{float(f'{value:.2g}'):,.2f}".rstrip("0").rstrip(".")
