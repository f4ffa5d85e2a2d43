"""Figures as tables and as a plot. Knows no terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.domain.errors import InvalidRequest

Table = tuple[list[str], list[list[str]]]
RUN = ("tokens/s", "first token, ms (p50, p95, p99)", "between tokens, ms", "to the end, ms")
RATIOS = {
    "times_as_fast_as": "times as fast as {}",
    "times_the_seconds_without": "times the seconds without: {}",
    "times_the_first_token_without": "times the time to the first token without: {}",
}


def tables(results: Mapping[str, Any]) -> list[Table]:
    """A table per section and workload."""
    shown: list[Table] = []
    sections: Mapping[str, Any] = results["sections"]
    for name in ("peers", "edits"):
        for what, figures in sections.get(name, {}).items():
            shown.append(_of_runs(what, figures["runs"]))
            for key, form in RATIOS.items():
                shown[-1][1].extend(
                    [form.format(other), f"{value:.2f}"] for other, value in figures.get(key, {}).items()
                )
            shown[-1][1].extend(_size(figures))
    if "concurrency" in sections:
        (headings, rows) = _of_runs("requests under way", sections["concurrency"])
        rows += [[f"{at}: {row[0]}"] for at, run in sections["concurrency"].items() for row in _size(run)]
        shown.append((headings, rows))
    if "http" in sections:
        headings, rows = _of_runs("16 streaming clients", sections["http"]["runs"])
        rows += [[f"times as fast as {k}", f"{v:.2f}"] for k, v in sections["http"]["times_as_fast_as"].items()]
        rows += _size(sections["http"])
        shown.append((headings, rows))
    for clients, figures in sections.get("vllm", {}).items():
        shown.append(_beside_vllm(clients, figures))
    if "decode" in sections:
        shown.append(_decode(sections["decode"]))
    if "editing" in sections:
        shown.append(_editing(sections["editing"]))
    if "fits" in sections:
        if "seconds_an_edit" in sections["fits"]:  # these fits come after the chat edits
            shown.append(_fits(sections["fits"]))
        if "chat_edits" in sections["fits"]:
            shown.append(_chat_edits(sections["fits"]["chat_edits"]))
    if sections.get("scope"):
        shown.append(_scope(sections["scope"]))
    if sections.get("decisions"):
        shown.append(_decisions(sections["decisions"]))
    if sections.get("roofline"):
        shown.append(_roofline(sections["roofline"]))
    return shown


def _of_runs(what: str, runs: Mapping[str, Any]) -> Table:
    rows = []
    for name, run in runs.items():
        spread = [run.get(key) for key in ("first_token_ms", "between_tokens_ms", "whole_ms")]
        rows.append([name, f"{run['tokens_per_s']:,.0f}", *(_spread(each) for each in spread)])
    return [what, *RUN], rows


def _beside_vllm(clients: str, figures: Mapping[str, Any]) -> Table:
    """Ratios stand below what they compare: of tokens per second, and of the 99th percentiles of the times."""
    headings, rows = _of_runs(f"{clients} client{'s' * (clients != '1')}, HTTP", figures["runs"])
    for name, times in figures["times_as_good_as_vllm"].items():
        tails = (times.get(f"{each}_p99") for each in ("first_token", "between_tokens", "whole"))
        shown = ["" if each is None else f"{each:.2f} of the p99" for each in tails]
        rows.append([f"{name}: times as good as vllm", f"{times['tokens_per_s']:.2f}", *shown])
    if "given_by_edits" in figures:
        given, answers = figures["given_by_edits"]
        rows.append([f"answers that edits gave to the end: {given:,} of {answers:,}"])
    return headings, rows + _size(figures)


def _size(figures: Mapping[str, Any]) -> list[list[str]]:
    """A row that reports what time was too short for."""
    if (size := figures.get("size")) is None:
        return []
    parts = [f"{size[what][0]:,} of {size[what][1]:,} {what}" for what in size if what != "warmed_up"]
    return [[f"fitted to the time: {', '.join(parts)}{'' if size['warmed_up'] else ', not warmed up'}"]]


def _spread(figures: Mapping[str, float] | None) -> str:
    return "" if figures is None else ", ".join(f"{value:,.1f}" for value in figures.values())


def _decode(figures: Mapping[str, Any]) -> Table:
    rows = [[name, f"{step:,.1f} ms"] for name, step in figures["step_ms"].items()]
    if "share_of_its_time" in figures:
        rows.append(["share of its time", f"{figures['share_of_its_time']:.2f}"])
    rows += _size(figures)
    return [f"a decode step, {figures['rows']} rows, context {figures['context']}", ""], rows


def _editing(figures: Mapping[str, Any]) -> Table:
    headings, rows = _of_runs("16 under way", figures["runs"])
    rows += [
        ["share of the throughput", f"{figures['share_of_the_throughput']:.2f}"],
        ["edits a second meanwhile", f"{figures['edits_per_s']:.2f}"],
        ["times the p99 between tokens", f"{figures['between_tokens_p99_times']:.2f}"],
        *_size(figures),
    ]
    return headings, rows


def _fits(figures: Mapping[str, Any]) -> Table:
    rows = [[name, f"{seconds:.3f}"] for name, seconds in figures["seconds_an_edit"].items()]
    rows += [
        ["edits a second, 64 together", f"{figures['edits_per_s_together']:.1f}"],
        ["times as many as one by one", f"{figures['times_as_many_together']:.2f}"],
        ["one, share of the published", f"{figures['share_of_the_published']:.3f}"],
        ["of it learning its scope", f"{figures['of_it_learning_its_scope']:.3f}"],
        ["share of the published without that", f"{figures['share_of_the_published_without_scope']:.3f}"],
        *_size(figures),
    ]
    return ["fits of GRACE", "seconds an edit"], rows


def _chat_edits(figures: Mapping[str, Any]) -> Table:
    parts = ("whole", "most", "look", "fit", "scope", "verify", "commit", "edits")
    rows = [[length, *(f"{each[part]:g}" for part in parts)] for length, each in figures.items()]
    return ["chat edits, median seconds", "whole", "at most", *parts[2:4], "of it scope", *parts[5:]], rows


def _scope(figures: Mapping[str, Any]) -> Table:
    parts = ("nearest_ms", "most_ms", "whole_ms", "times_as_fast")
    rows = [[name, *(f"{each[part]:.2f}" for part in parts)] for name, each in figures.items()]
    return ["the nearest keys of a question", "ms, median", "at most", "one product over all", "times as fast"], rows


def _decisions(figures: Mapping[str, Any]) -> Table:
    rows = [
        [name, f"{each['decision_ms']:.1f}", f"{each['most_ms']:.1f}", f"{each['texts']:g}"]
        for name, each in figures.items()
    ]
    return ["a scope decision, edits' token states", "ms, median", "at most", "texts encoded, median"], rows


def _roofline(figures: Mapping[str, Any]) -> Table:
    rows = [
        [name, f"{each['step_ms']:.2f} ms", f"{each['floor_ms']:.2f} ms", f"{each['times_the_floor']:.2f}"]
        for name, each in figures.items()
        if isinstance(each, Mapping)
    ]
    return [f"decode at {figures['bandwidth_gb_per_s']:,} GB/s", "a step", "floor", "times the floor"], rows


def markdown(results: Mapping[str, Any]) -> str:
    parts = [f"{results['machine']['description']}, {results['model']}: `{results['command']}`, {results['date']}.\n"]
    for headings, rows in tables(results):
        lines = [headings, ["---"] + ["---:"] * (len(headings) - 1)]
        lines += [[*row, *[""] * (len(headings) - len(row))] for row in rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    parts += [f"{line}\n" for line in incomplete(results)]
    return "\n".join(parts)


def incomplete(results: Mapping[str, Any]) -> list[str]:
    """One line per incomplete section."""
    return [f"Section {name} is incomplete: {why}." for name, why in results.get("incomplete", {}).items()]


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Plots throughput and latency over concurrency, and the cost of live edits. Raises InvalidRequest without
    matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidRequest("Pictures need matplotlib: pip install 'errata[eval]'.") from error
    figure: Any = Figure(figsize=(11, 3.6), layout="constrained")
    throughput, latency, edits = figure.subplots(1, 3)
    runs: Mapping[str, Any] = results["sections"].get("concurrency", {})
    under_way = [int(at) for at in runs]
    throughput.plot(under_way, [run["tokens_per_s"] for run in runs.values()], marker="o")
    throughput.set(title="Throughput", xlabel="requests under way", ylabel="tokens/s", ylim=(0, None))
    for key, label in (("first_token_ms", "first token"), ("between_tokens_ms", "between tokens")):
        for percent in ("p50", "p99"):
            style = "-" if percent == "p50" else "--"
            points = [run[key][percent] for run in runs.values()]
            latency.plot(under_way, points, style, marker="o", label=f"{label}, {percent}")
    latency.set(title="Latency", xlabel="requests under way", ylabel="ms", yscale="log")
    for what, figures in results["sections"].get("edits", {}).items():
        times = {int(name.split()[0]): value for name, value in figures["times_the_seconds_without"].items()}
        edits.plot(list(times), list(times.values()), marker="o", label=what)
    edits.set(title="Time beside no edits", xlabel="live edits", xscale="log", ylim=(0.9, None))
    edits.axhline(1.0, color="grey", linewidth=0.8)
    for panel in (throughput, latency, edits):
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False, fontsize="small")
    # makes the output reproducible and keeps text as text
    with rc_context({"svg.hashsalt": "errata", "svg.fonttype": "none"}):
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
