"""Arrival times of tokens, and their summary as percentiles and tokens per second. Plain Python."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PERCENTILES = (50, 95, 99)


@dataclass(slots=True)
class TimedRequest:
    """One request; all times in seconds of `time.perf_counter`."""

    began: float
    tokens: list[float] = field(default_factory=list)

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
            figures["first_token_ms"] = percentiles([each.first_s for each in self.requests])
            figures["between_tokens_ms"] = percentiles([gap for each in self.requests for gap in each.gaps_s])
            figures["whole_ms"] = percentiles([each.whole_s for each in self.requests])
        return figures


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
