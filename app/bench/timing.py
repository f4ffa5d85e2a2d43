"""Arrival times of tokens, and their summary as percentiles and tokens per second. Plain Python."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

PERCENTILES = (50, 95, 99)


@dataclass(slots=True)
class TimedRequest:
    """One request; all times in seconds of `time.perf_counter`."""

    began: float
    tokens: list[float] = field(default_factory=list)
    text: str = ""
    """The answer, where the contestant was asked to keep it."""

    @property
    def first_s(self) -> float:
        return self.tokens[0] - self.began

    @property
    def whole_s(self) -> float:
        return self.tokens[-1] - self.began

    @property
    def gaps_s(self) -> list[float]:
        return [later - sooner for sooner, later in zip(self.tokens, self.tokens[1:], strict=False)]


@dataclass(frozen=True, slots=True)
class Run:
    """Requests that ran concurrently. A contestant that reports no token times gives only its total time."""

    seconds: float
    tokens: int
    requests: Sequence[TimedRequest] = ()

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    def figures(self) -> dict[str, Any]:
        """JSON summary: throughput, and times to the first token, between tokens and to the end, in milliseconds."""
        figures: dict[str, Any] = {
            "requests": len(self.requests) or None,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 4),
            "tokens_per_s": round(self.tokens_per_s, 1),
        }
        if self.requests:
            figures |= {f"{name}_ms": percentiles(seconds(self)) for name, seconds in TIMES.items()}
        return figures


TIMES: Mapping[str, Callable[[Run], list[float]]] = MappingProxyType(
    {
        "first_token": lambda run: [each.first_s for each in run.requests],
        "between_tokens": lambda run: [gap for each in run.requests for gap in each.gaps_s],
        "whole": lambda run: [each.whole_s for each in run.requests],
    }
)
"""The times of a run's requests, in seconds."""


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Seconds -> {"p50": milliseconds, ...} by the nearest-rank method; None without values."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {
        f"p{percent}": round(1e3 * ordered[min(len(ordered) - 1, -(-len(ordered) * percent // 100) - 1)], 3)
        for percent in PERCENTILES
    }


def median_run(runs: Sequence[Run]) -> Run:
    """The run of median time per token; of two in the middle the faster."""
    return sorted(runs, key=lambda run: run.seconds / run.tokens)[(len(runs) - 1) // 2]


def ratio(ours: Sequence[Run], theirs: Sequence[Run]) -> float:
    """Ratio of tokens per second, as the median over rounds in which both ran, since disturbances affect both. The last
    round may lack the second contestant."""
    return statistics.median(a.tokens_per_s / b.tokens_per_s for a, b in zip(ours, theirs, strict=False))


def times_as_good(ours: Sequence[Run], theirs: Sequence[Run]) -> dict[str, float]:
    """The ratios of our runs to theirs: of tokens per second, and of the 99th percentiles of the three times, each over
    all requests of the rounds in which both ran, theirs divided by ours. Above 1 ours are faster. A time without values
    is left out."""
    both = list(zip(ours, theirs, strict=False))
    ratios = {"tokens_per_s": round(ratio(ours, theirs), 3)}
    for name, seconds in TIMES.items():
        tails = [percentiles([each for run in runs for each in seconds(run)]) for runs in zip(*both, strict=True)]
        if all(tail is not None and tail["p99"] > 0 for tail in tails):
            our_tail, their_tail = (tail["p99"] for tail in tails if tail is not None)
            ratios[f"{name}_p99"] = round(their_tail / our_tail, 3)
    return ratios
