"""Counts of what a vLLM preempted and found in its prefix cache, from its own metrics.

One that a server started has no port: with `PROMETHEUS_MULTIPROC_DIR` in its environment it keeps its metrics in a
folder, where another process may read them. One that runs already has them at /metrics.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
PREEMPTIONS, CACHED = "vllm:num_preemptions_total", "vllm:prefix_cache_hits_total"


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of a vLLM since it started, or between two times."""

    preemptions: int
    """The number of times that a sequence lost its keys and values, which were then computed again."""
    cached_tokens: int
    """The number of prompt tokens found in the prefix cache, without those of sequences that were preempted."""

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.preemptions - other.preemptions, self.cached_tokens - other.cached_tokens)

    def __str__(self) -> str:
        return f"{self.preemptions} preemptions, {self.cached_tokens} tokens of prompts from the prefix cache"


Count = Callable[[], Counts]


def counts_in(folder: Path) -> Counts:
    """Return the counts of a vLLM that keeps its metrics in a folder, in which nothing else ends in .db."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return _counts(generate_latest(registry).decode())


def counts_at(url: str) -> Counts:
    """Return the counts of a vLLM that answers at a URL."""
    return _counts(httpx.get(f"{url}/metrics", trust_env=False).raise_for_status().text)


def _counts(metrics: str) -> Counts:
    samples = [each for family in text_string_to_metric_families(metrics) for each in family.samples]
    found = {name: [each.value for each in samples if each.name == name] for name in (PREEMPTIONS, CACHED)}
    assert all(found.values()), f"this vLLM does not count {[name for name in found if not found[name]]}"
    return Counts(*(int(sum(values)) for values in found.values()))
