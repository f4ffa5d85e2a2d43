"""Figures of a run: percentiles, ratios, tables. The runs themselves are made up."""

from pathlib import Path
from typing import Any

import pytest

from app.bench.report import draw, markdown, tables
from app.bench.timing import Run, TimedRequest, median_run, percentiles, ratio, times_as_good


def test_percentiles_are_of_the_values_that_came() -> None:
    assert percentiles([0.001 * i for i in range(100, 0, -1)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert percentiles([0.002]) == {"p50": 2.0, "p95": 2.0, "p99": 2.0}
    assert percentiles([]) is None


def test_a_run_tells_when_its_tokens_came() -> None:
    run = Run(2.0, 4, [TimedRequest(1.0, [1.5, 1.6, 1.9]), TimedRequest(1.0, [2.0])])
    told = run.figures()
    assert (told["tokens_per_s"], told["requests"]) == (2.0, 2)
    assert told["first_token_ms"] == {"p50": 500.0, "p95": 1000.0, "p99": 1000.0}
    assert told["between_tokens_ms"] == {"p50": 100.0, "p95": 300.0, "p99": 300.0}
    assert told["whole_ms"]["p99"] == 1000.0
    assert "first_token_ms" not in Run(2.0, 4).figures(), "who does not tell is not made up for"


def test_a_ratio_is_of_runs_of_one_round() -> None:
    """Both were disturbed in the second round: the medians of each would say otherwise."""
    ours, theirs = [Run(1.0, 10), Run(4.0, 10), Run(1.1, 10)], [Run(2.0, 10), Run(8.0, 10), Run(2.2, 10)]
    assert ratio(ours, theirs) == pytest.approx(2.0)
    assert median_run(ours).seconds == 1.1
    assert median_run(ours[:2]).seconds == 1.0


def test_runs_are_compared_by_their_tails_too_over_all_rounds_that_both_have() -> None:
    def run(*tokens: float) -> Run:
        return Run(tokens[-1], len(tokens), [TimedRequest(0.0, list(tokens))])

    ours, theirs = [run(0.2, 0.3, 0.5), run(0.1, 0.2, 0.3), run(9.0, 19.0)], [run(0.1, 0.2, 0.3), run(0.4, 0.5, 0.6)]
    compared = {"tokens_per_s": 1.3, "first_token_p99": 2.0, "between_tokens_p99": 0.5, "whole_p99": 1.2}
    assert times_as_good(ours, theirs) == pytest.approx(compared)
    assert list(times_as_good([run(0.5)], [run(0.5)])) == ["tokens_per_s", "first_token_p99", "whole_p99"]


def result() -> Any:
    run = Run(2.0, 4, [TimedRequest(1.0, [1.5, 1.6, 1.9]), TimedRequest(1.0, [2.0])]).figures()
    return {
        "date": "2026-11-21", "command": "errata bench", "model": "random-47m", "machine": {"description": "2 CPUs"},
        "sections": {
            "peers": {"16 requests": {"runs": {"errata": run, "them": run}, "times_as_fast_as": {"them": 1.0}}},
            "decode": {"rows": 32, "context": 512, "step_ms": {"errata": 1.0, "them": 4.0}, "share_of_its_time": 0.25},
            "concurrency": {"1": run, "16": run},
            "http": {"runs": {"errata, HTTP": run, "errata": run}, "times_as_fast_as": {"errata": 0.95}},
            "edits": {
                "no request hit": {
                    "runs": {"0 edits": run, "100 edits": run}, "times_the_seconds_without": {"100 edits": 1.01},
                    "times_the_first_token_without": {"100 edits": 1.25},
                }
            },
            "editing": {
                "runs": {"no edits": run, "while edits are made": run}, "share_of_the_throughput": 0.7,
                "edits_per_s": 1.5, "between_tokens_p99_times": 2.0,
            },
            "fits": {
                "seconds_an_edit": {"one by one": 0.2, "64 together": 0.05, "as published": 2.0},
                "edits_per_s_together": 20.0, "times_as_many_together": 4.0, "share_of_the_published": 0.1,
                "of_it_learning_its_scope": 0.15, "share_of_the_published_without_scope": 0.025,
                "chat_edits": {
                    "40 tokens": {
                        "whole": 4.5, "most": 5.0, "look": 0.01, "fit": 3.0, "scope": 1.0, "verify": 1.4,
                        "commit": 0.01, "edits": 5,
                    }
                },
            },
            "scope": {"100,000 edits, 1 key each": {
                "nearest_ms": 1.9, "most_ms": 3.25, "whole_ms": 5.7, "times_as_fast": 3.0,
            }},
            "decisions": {"on disk": {"decision_ms": 31.25, "most_ms": 40.5, "texts": 1}},
            "vllm": {"16": {
                "runs": {"errata": run, "vllm": run, "errata, edited": run, "vllm, the same prompts": run},
                "times_as_good_as_vllm": {
                    "errata": {"tokens_per_s": 0.98, "first_token_p99": 0.5,
                               "between_tokens_p99": 1.02, "whole_p99": 1.0},
                    "errata, edited": {"tokens_per_s": 0.96},
                },
                "given_by_edits": [47, 48],
            }},
            "roofline": {
                "bandwidth_gb_per_s": 4300, "weights_gb": 16.0,
                "1 rows, context 64": {"step_ms": 4.5, "floor_ms": 3.5, "times_the_floor": 1.29},
            },
        },
    }  # fmt: skip


def test_every_section_has_its_table_and_picture(tmp_path: Path) -> None:
    told = markdown(result())
    for words in ("`errata bench`", "times as fast as them | 1.00", "share of its time | 0.25", "| 0.95", "| 1.01",
                  "first token without: 100 edits | 1.25",
                  "| errata: times as good as vllm | 0.98 | 0.50 of the p99 | 1.02 of the p99 | 1.00 of the p99 |",
                  "| errata, edited: times as good as vllm | 0.96 |  |", "gave to the end: 47 of 48",
                  "| 1.50", "| 4.00", "| 0.100", "| 1.90 | 3.25 | 5.70 | 3.00", "| on disk | 31.2 | 40.5 | 1 |",
                  "4.50 ms | 3.50 ms | 1.29"):  # fmt: skip
        assert words in told
    assert all(len(row) <= len(headings) for headings, rows in tables(result()) for row in rows)
    draw(result(), tmp_path / "bench.svg")
    assert "while" not in (tmp_path / "bench.svg").read_text()
    assert "tokens/s" in (tmp_path / "bench.svg").read_text()
    few = result()
    few["sections"] = {"decode": few["sections"]["decode"]}
    draw(few, tmp_path / "few.svg")
    assert len(tables(few)) == 1
