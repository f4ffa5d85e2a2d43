"""`errata eval` for the kinds of cases that measure scope. Imports torch late."""

import asyncio
import hashlib
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from app.cli import render
from app.cli.interruption import Interruption
from app.cli.progress import CountProgress
from app.cli.serve import started_service
from app.cli.settings import read_settings

if TYPE_CHECKING:
    from app.evaluation.folder import Folder
    from app.evaluation.kinds import Kind, ScopeCaseSelection
    from app.evaluation.trial_report import Results
    from app.evaluation.trial_runs import TrialPlan
    from app.evaluation.trials import Trial

TABLES = "results.md"
EDIT_OPTIONS = frozenset(("batch", "step", "minutes", "given", "subject", "text", "papers"))
SUPPORT_OPTIONS = frozenset(("known", "traffic", "traffic_from"))
INAPPLICABLE: Mapping[str, frozenset[str]] = {
    "edits": SUPPORT_OPTIONS | {"decisions"},
    "support": EDIT_OPTIONS,
    "pairs": EDIT_OPTIONS | SUPPORT_OPTIONS | {"ask"},
    "conversations": EDIT_OPTIONS | SUPPORT_OPTIONS | {"ask"},
}
"""Kind of cases -> the options that it does not have."""


def cases_of(context: typer.Context, files: list[Path] | None, kind: "Kind | None") -> "tuple[list[Path], Kind]":
    """The files of a run, or the built-in ones if none is named, and their kind. Raises InvalidRequest."""
    from app.domain.errors import InvalidRequest
    from app.evaluation.kinds import SHIPPED, kind_of

    if not files and kind not in SHIPPED:
        raise InvalidRequest(f"Name a file of cases; only those of --kind {' and --kind '.join(SHIPPED)} ship.")
    files = files or [SHIPPED[kind]]  # type: ignore[index]
    kind_of_cases = kind or kind_of(files)
    given = [
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    ]
    if inapplicable := [f"--{name.replace('_', '-')}" for name in given if name in INAPPLICABLE[kind_of_cases]]:
        raise InvalidRequest(
            f"Cases of the kind {kind_of_cases} have no use for {', '.join(inapplicable)}: leave it out."
        )
    return files, kind_of_cases


def evaluate_scope(
    kind: "Kind", files: Sequence[Path], out: Path, editors: Sequence[str], selection: "ScopeCaseSelection",
    template: str, settings: Mapping[str, Any], *, decisions: bool,
) -> None:  # fmt: skip
    """Evaluate scopes. Raises InvalidRequest for cases that cannot be read, before a model is loaded."""
    from app.domain.errors import InvalidRequest
    from app.evaluation.folder import opened
    from app.evaluation.trial_runs import TrialPlan, check_editor

    for name in editors:
        check_editor(name)
    if "{}" not in template:
        raise InvalidRequest(f"The template {template!r} has no {{}}: write it where the question goes.")
    plan = TrialPlan(trials=_trials(kind, files, selection), template=template, decisions=decisions)
    server_settings = read_settings(dict(settings))
    options = {
        "kind": kind, "files": [file.name for file in files], "edits": selection.edits, "half": selection.half,
        "seed": selection.seed, "where": dict(selection.where), "known": list(selection.known), "ask": selection.ask,
        "traffic": selection.traffic, "traffic_from": selection.traffic_from, "template": template,
        "decisions": decisions, "model": settings.get("model"), "device": server_settings.device,
        "dtype": server_settings.dtype, "contents": [digest(file.read_bytes()) for file in files],
    }  # fmt: skip
    try:
        with opened(out) as folder, Interruption() as stopping:
            folder.check(options)
            for name in editors:
                asyncio.run(_run(kind, name, plan, folder, settings, options, selection.traffic, stopping))
                if stopping.number is not None:
                    break
            _show(kind, folder)
            if render.AS_JSON.get():
                render.as_json(folder.results())
            if stopping.number is not None:
                render.say(f"Stopped by {stopping.number.name}: the run is incomplete. The same command resumes it.")
            stopping.end()
    except OSError as error:
        render.fail(f"The run has stopped: {error}.", "What was done is kept: the same command resumes it.")


def digest(content: bytes) -> str:
    """A digest that shows whether a file has changed between two runs."""
    return hashlib.sha256(content).hexdigest()[:16]


def _trials(kind: "Kind", files: Sequence[Path], selection: "ScopeCaseSelection") -> "list[Trial]":
    from app.evaluation import conversations, pairs, support

    makers = {"support": support.trials_of, "pairs": pairs.trials_of, "conversations": conversations.trials_of}
    return makers[kind](files, selection)


async def _run(
    kind: "Kind", name: str, plan: "TrialPlan", folder: "Folder", settings: Mapping[str, Any],
    options: Mapping[str, Any], traffic: int, stopping: Interruption,
) -> None:  # fmt: skip
    from app.evaluation.journal import Journal
    from app.evaluation.trial_runs import renderer_for, run_trials

    mark = name.replace("/", "-")
    store = f"sqlite:///{folder.path / mark}.db"
    service = await started_service(read_settings({**settings, "store": store, "recent_prompts": traffic}))
    results = folder.results()

    def keep(figures: list[dict[str, Any]]) -> None:
        results["kind"], results["candidates"][name] = kind, figures
        results["machine"] = {"python": platform.python_version(), "processor": platform.machine()}
        folder.keep_results(results)

    try:
        renderer_for(plan, service)
        folder.keep(options)  # kept only once the model is loaded and ready: a mistyped run must not claim the folder
        with CountProgress() as counting:
            journal = Journal(folder.path / f"{mark}.jsonl")

            async def work() -> None:
                await run_trials(name, plan, service, journal, counting.on_step, keep)

            await stopping.run(work())
    finally:
        await service.stop()


def _show(kind: "Kind", folder: "Folder") -> None:
    from app.evaluation import trial_report
    from app.evaluation.folder import RESULTS

    candidates: Results = folder.results()["candidates"]
    results = {name: trials for name, trials in candidates.items() if trials}
    if not results:
        return
    headings, rows = trial_report.rows_of(kind, results)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(headings[0], no_wrap=True)
    for name in headings[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    render.out().print(table, "")
    for line in trial_report.notes_of(results):
        render.say(line)
    (folder.path / TABLES).write_text(trial_report.markdown(kind, results), encoding="utf-8")
    render.say(
        f"{folder.path / RESULTS} and {folder.path / TABLES} hold the rest, such as the questions that went wrong."
    )
