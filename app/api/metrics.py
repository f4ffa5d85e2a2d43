"""The metrics for Prometheus, one registry for each app. Independent of the routes."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.domain.errors import EditRejected, ScopeConflict, StateConflict
from app.domain.generation import Generation
from app.service.views import EditResults, Status

FAST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SLOW_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class _StatusGauges(Collector):
    """Gauges of the server's state, read once per scrape."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        for name, about, value in (
            ("num_requests_running", "Requests in a slot", status.running),
            ("num_requests_waiting", "Requests that wait for a slot", status.waiting),
            ("edits_live", "Live edits, regardless of the edit switches", status.live_edits),
            ("proposals_pending", "Proposals that wait for a second person", status.pending_proposals),
            ("reported_answers", "Answers that readers reported as wrong, and that are kept", status.reported_answers),
            ("revision", "The newest revision applied here", status.revision),
            ("ready", "Whether it serves: 1 or 0", int(status.ready)),
            ("log_lag_events", "Events of the log that are not applied here yet", status.log_lag),
            ("log_silence_seconds", "Since the log last answered", status.log_silence_s),
        ):
            yield GaugeMetricFamily(f"errata_{name}", about, value)
        about = "How often the program that generates answers was lost and replaced"
        yield CounterMetricFamily("errata_engine_restarts", about, status.engine_restarts)
        judge = status.judge
        yield GaugeMetricFamily("errata_judge_serving", "Whether a judge has passed its exam", judge.state == "serving")
        for name, about, count in (
            ("asked", "Questions that the judge was asked", judge.asked),
            ("changed", "Decisions that are others than without the judge", judge.changed),
            ("failed", "Questions that the judge had no answer to", judge.failed),
            ("seconds", "What the judge's answers took", judge.asked_seconds),
        ):
            yield CounterMetricFamily(f"errata_judge_{name}", about, count)
        about = "Edit switches: 1 is on; the empty namespace means all. Of namespaces only those that are off"
        switches = GaugeMetricFamily("errata_switched_on", about, labels=["namespace"])
        switches.add_metric([""], int(status.switched_on))
        for namespace in status.switched_off:
            switches.add_metric([namespace], 0)
        yield switches

    def describe(self) -> Iterator[Metric]:
        return iter(())  # registration must not ask a service that has not started


class Metrics:
    """Counters and histograms of one app. Tokens are counted for requests, not for verifications."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_StatusGauges(status))
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of answered requests")
        self._generation_tokens = self._counter("generation_tokens", "Tokens answered")
        self._success = self._counter("request_success", "Answered requests", "finish_reason")
        self._errors = self._counter("request_errors", "Requests that ended in an error", "status")
        self._edits = self._counter("edits", "Edits asked for, by what became of them", "outcome")
        self._hits = self._counter("edit_hits", "Answers that an edit gave", "editor")
        self._not_given = self._counter(
            "edit_targets_not_given", "Answers in an edit's scope that did not say its target", "editor"
        )
        self._uncertain = self._counter(
            "uncertain_decisions", "Answers whose scope was near a bound, by what was decided", "outcome"
        )
        self._feedback = self._counter("feedback", "Answers that readers judged, by what they said", "verdict")
        self._latency = self._histogram("e2e_request_latency_seconds", "From request to whole answer", SLOW_S)
        self._first_token = self._histogram("time_to_first_token_seconds", "From request to first token", FAST_S)
        self._edit_seconds = self._histogram("edit_seconds", "What making edits took", SLOW_S, "phase")

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"errata_{name}", about, labels, registry=self._registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"errata_{name}", about, labels, registry=self._registry, buckets=buckets)

    def generated(self, generation: Generation, began: float) -> None:
        """Count a finished answer. `began` is a time of `time.perf_counter`."""
        self._prompt_tokens.inc(generation.prompt_tokens)
        self._generation_tokens.inc(len(generation.tokens))
        self._success.labels(generation.finish_reason).inc()
        self._latency.observe(time.perf_counter() - began)
        if generation.uncertain:
            self._uncertain.labels("answered" if generation.reached else "deferred").inc()
        for hit in generation.hits:
            self._hits.labels(hit.editor).inc()
        for hit in generation.not_given:
            self._not_given.labels(hit.editor).inc()

    def first_token(self, began: float) -> None:
        self._first_token.observe(time.perf_counter() - began)

    def edited(self, results: EditResults, *, dry_run: bool) -> None:
        if results.proposal is not None:
            self._edits.labels("proposed").inc()
        for result in results.results:
            self._edits.labels("preview" if dry_run else "committed" if result.created else "existing").inc()
        counted = [result for result in results.results if result.created or dry_run]
        if counted:  # a batch is made as one
            for phase, seconds in counted[0].seconds.items():
                self._edit_seconds.labels(phase).observe(seconds)

    def edit_failed(self, error: Exception, count: int) -> None:
        conflict = isinstance(error, ScopeConflict | StateConflict)
        outcome = "rejected" if isinstance(error, EditRejected) else "conflict" if conflict else "failed"
        self._edits.labels(outcome).inc(count)

    def judged(self, verdict: str) -> None:
        self._feedback.labels(verdict).inc()

    def error(self, status: int) -> None:
        self._errors.labels(str(status)).inc()

    def latencies(self) -> dict[str, tuple[int, float | None, float | None]]:
        """The number, the median and the 95th percentile in seconds of answers and edits since the start, read from the
        histograms' buckets; None without any value, or beyond the last bucket."""
        measured: dict[str, tuple[Histogram, dict[str, str]]] = {
            "First token": (self._first_token, {}),
            "Whole answer": (self._latency, {}),
        }
        phases = {"Fit": "fit", "Verification": "verify", "Commit": "commit"}
        measured |= {name: (self._edit_seconds, {"phase": phase}) for name, phase in phases.items()}
        return {name: _quantiles(histogram, labels) for name, (histogram, labels) in measured.items()}

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)


def _quantiles(histogram: Histogram, labels: dict[str, str]) -> tuple[int, float | None, float | None]:
    samples = [each for metric in histogram.collect() for each in metric.samples if each.name.endswith("_bucket")]
    mine = [each for each in samples if all(each.labels.get(name) == value for name, value in labels.items())]
    counts = [(float(each.labels["le"]), int(each.value)) for each in mine]
    total = counts[-1][1] if counts else 0

    def quantile(share: float) -> float | None:
        bound = next((bound for bound, count in counts if total and count >= share * total), None)
        return None if bound is None or bound == float("inf") else bound

    return total, quantile(0.5), quantile(0.95)
