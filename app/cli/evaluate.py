"""`errata eval`: the effect of edits on a model, measured by real generation. Imports torch late."""

import asyncio
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from app.cli import render
from app.cli.evaluate_scope import cases_of, digest, evaluate_scope
from app.cli.fit import Device, Dtype, Model, reported_errors
from app.cli.interruption import Interruption
from app.cli.options import Json
from app.cli.progress import CountProgress
from app.cli.serve import started_service
from app.cli.settings import read_settings

if TYPE_CHECKING:
    from app.evaluation.folder import Folder
    from app.evaluation.report import Results
    from app.evaluation.run import EvaluationPlan

PICTURE, TABLES = "curves.svg", "results.md"
NONE_HELD_OUT = (
    "No row is held out, as --edits takes all: the generic questions that ship serve as unrelated ones, but for those "
    "about what is edited. Editors set their scopes by these questions too, so with a smaller --edits it is harder."
)


def evaluate(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the run; an interrupted one is resumed.", file_okay=False)],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Cases: edits as our JSON lines, CounterFact, zsRE or KnowEdit; or one of the kinds of --kind. "
            "Pairs and conversations ship; they are used where no file is named.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        Literal["edits", "support", "pairs", "conversations"] | None,
        typer.Option(help="Kind of the cases. [default: recognised by the fields of the rows]"),
    ] = None,
    editor: Annotated[
        list[str], typer.Option(help="The name of an editor, NAME/paper, auto, cache or bare; may be repeated.")
    ] = ["auto"],  # noqa: B006
    edits: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The number of edits. [default: all; of support cases 50 intents]",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Edits that are made together.")] = 1,
    step: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Numbers of edits after which all is measured; may be repeated. "
            "[default: 1, 10, 100, 1000, 10000; with --minutes only the end]",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Time for all of it, loading included: fewer edits are made, fewer questions asked."
        ),
    ] = None,
    given: Annotated[int, typer.Option(min=0, help="Paraphrases that each request carries.")] = 0,
    subject: Annotated[bool, typer.Option("--subject", help="Requests carry the subject and its aliases.")] = False,
    where: Annotated[
        list[str], typer.Option(help="FIELD=VALUE: only rows with this value, of those that have the field.")
    ] = [],  # noqa: B006
    half: Annotated[
        Literal["settle", "report"] | None,
        typer.Option(help="Only this half of the rows: settle choices on one, report figures of the other."),
    ] = None,
    template: Annotated[str, typer.Option(help="Put around questions, in place of {}.")] = "{}",
    text: Annotated[
        Path | None, typer.Option(help="Generic text for perplexity. [default: as ERRATA_CORPUS]", exists=True)
    ] = None,
    ask: Annotated[
        int,
        typer.Option(
            min=1,
            help="Edits re-asked at each step, a sample beyond that. Support: utterances of the edits' intents, and as "
            "many others.",
        ),
    ] = 1_000,
    seed: Annotated[int, typer.Option(help="The seed of the order of edits, and of every sample.")] = 0,
    papers: Annotated[
        bool, typer.Option("--papers", help="Score as the editors' papers do, by teacher forcing, and little else.")
    ] = False,
    known: Annotated[
        list[int],
        typer.Option(min=1, help="Support: utterances that each edit knows; a trial each, may be repeated."),
    ] = [1, 5, 10],  # noqa: B006
    traffic: Annotated[
        int, typer.Option(min=0, help="Support: utterances that the server keeps as recent prompts.", max=100_000)
    ] = 0,
    traffic_from: Annotated[
        Literal["others", "all"],
        typer.Option(help="Support: intents that traffic is drawn from, those without an edit or all."),
    ] = "others",
    decisions: Annotated[
        bool,
        typer.Option("--decisions", help="All kinds but edits: only which edit answers, not what. Quick."),
    ] = False,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    json_: Json = False,
) -> None:
    """Make edits one after the other and measure, by free generation to the natural end, what they do.

    After 1, 10, 100, ... edits all past ones are asked again: the prompt, paraphrases that the request did not carry,
    and prompts whose answers must stay as they were. Refusals count as failures. Paper presets skip verification here.
    With --papers: reliability, generality and locality by token match, and whole answers of the edited prompts.
    Figures are shown and kept as they come. Ctrl-C ends the run with those that are there; the same command resumes it.

    Other kinds of cases ask which questions an edit reaches. Support: utterances by intent (rows of `intent`, `text`).
    Pairs: rephrasings and questions that differ by little (`prompt`, `target`, `same`, `other`; also `kind`, `half`,
    `paraphrases`, `counter_examples`). Conversations: histories (`messages`, `target`, `right`, `wrong`; also `half`).
    """
    began = time.monotonic()  # importing libraries takes seconds, which count
    from app.evaluation.candidates import RequestContents
    from app.evaluation.case_selection import CaseSelection, generic_questions, load_cases
    from app.evaluation.folder import opened
    from app.evaluation.kinds import ScopeCaseSelection
    from app.evaluation.run import STEPS, EvaluationPlan, check_candidate
    from app.evaluation.time_limit import QuestionLimits

    given_settings = {"model": model, "device": device, "dtype": dtype}
    settings = {name: value for name, value in given_settings.items() if value is not None}
    rows = _pairs(where)
    with reported_errors():
        files, found_kind = cases_of(context, files, kind)
        if found_kind != "edits":
            selection = ScopeCaseSelection(
                edits=edits, half=half, seed=seed, where=rows, known=known, ask=ask,
                traffic=traffic, traffic_from=traffic_from,
            )  # fmt: skip
            evaluate_scope(found_kind, files, out, editor, selection, template, settings, decisions=decisions)
            return
        for name in editor:
            check_candidate(name)
        chosen = CaseSelection(seed=seed, half=half, where=rows, template=template)
        cases = load_cases(files, chosen)
        held_out = [case.prompt for case in cases[len(cases[:edits]) :]]
        plan = EvaluationPlan(
            cases=cases[:edits],
            held_out=held_out,
            texts=_texts(text),
            generic=[] if held_out else generic_questions(cases),
            batch=batch,
            steps=step or (() if minutes else STEPS),
            contents=RequestContents(paraphrases=given, subject=subject),
            extent=QuestionLimits(edits=ask),
            seed=seed,
            papers=papers,
        )
        if not held_out and not papers:
            render.say(NONE_HELD_OUT)
        server_settings = read_settings(settings)
        options = {
            "kind": found_kind, "files": [file.name for file in files], "edits": edits, "batch": batch, "given": given,
            "subject": subject, "where": where, "half": half, "template": template, "seed": seed, "model": model,
            "ask": ask, "device": server_settings.device, "dtype": server_settings.dtype,
            "contents": [digest(file.read_bytes()) for file in files],
            "text": digest("\n\n".join(plan.texts).encode()), "papers": papers,
        }  # fmt: skip
        try:
            with opened(out) as folder, Interruption() as stopping:
                folder.check(options)
                ends = None if minutes is None else began + 60 * minutes
                for number, name in enumerate(editor):
                    left = None if ends is None else max(0.0, ends - time.monotonic()) / (len(editor) - number)
                    asyncio.run(_run(name, plan, folder, settings, options, left, stopping))
                    if stopping.number is not None:
                        break
                _show(folder)
                if json_:
                    render.as_json(folder.results())
                if stopping.number is not None:
                    render.say(f"Stopped by {stopping.number.name}: the run is incomplete. The same command resumes.")
                stopping.end()
        except OSError as error:
            render.fail(f"The run has stopped: {error}.", "What was done is kept: the same command resumes it.")


async def _run(
    name: str,
    plan: "EvaluationPlan",
    folder: "Folder",
    settings: dict[str, Any],
    options: dict[str, Any],
    seconds: float | None,
    stopping: Interruption,
) -> None:
    from app.evaluation.journal import Journal
    from app.evaluation.run import run_candidate
    from app.evaluation.time_limit import TimeLimit

    mark = name.replace("/", "-")
    time_limit = TimeLimit(seconds)
    service = await started_service(read_settings({**settings, "store": f"sqlite:///{folder.path / mark}.db"}))
    folder.keep(options)  # kept only once the model is loaded: a mistyped run must not claim the folder
    results = folder.results()

    def keep(figures: list[dict[str, Any]]) -> None:
        results["candidates"][name] = figures
        results["held_out"], results["papers"] = len(plan.held_out), plan.papers
        results["machine"] = {"python": platform.python_version(), "processor": platform.machine()}
        folder.keep_results(results)

    try:
        with CountProgress() as counting:
            journal = Journal(folder.path / f"{mark}.jsonl")

            async def work() -> None:
                keep(await run_candidate(name, plan, service, journal, counting.on_step, keep, time_limit))

            await stopping.run(work())
    finally:
        await service.stop()


def _show(folder: "Folder") -> None:
    from app.evaluation import report
    from app.evaluation.folder import RESULTS
    from app.evaluation.plot import draw

    out = folder.path
    content = folder.results()
    results: Results = content["candidates"]
    results = {name: steps for name, steps in results.items() if steps}
    if not results:
        return
    for headings, rows in (
        *(report.rows_of(results, at) for at in report.last_steps(results)),
        report.slices_of(results),
    ):
        if not rows:
            continue
        table = Table(headings[0], box=None, pad_edge=False, header_style="bold")
        for name in headings[1:]:
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        render.out().print(table, "")
    for line in report.notes_of({name: steps[-1:] for name, steps in results.items()}):
        render.say(line)
    note = "" if content["held_out"] or content.get("papers") else f"\n{NONE_HELD_OUT}\n"
    (out / TABLES).write_text(report.markdown(results) + note, encoding="utf-8")
    render.say(f"{out / RESULTS} and {out / TABLES} hold the rest.")
    if content.get("papers"):
        return
    draw(results, out / PICTURE)
    render.say(f"{out / PICTURE} is the picture.")


def _pairs(where: list[str]) -> dict[str, str]:
    wrong = [each for each in where if "=" not in each]
    if wrong:
        render.fail(f"--where takes FIELD=VALUE, not {wrong[0]!r}.")
    return {name: value for name, _, value in (each.partition("=") for each in where)}


def _texts(text: Path | None) -> list[str]:
    from itertools import islice

    from app.bootstrap import generic_texts
    from app.editors.fitting.corpus import texts_of

    generic = generic_texts(read_settings({})) if text is None else texts_of(text)
    texts = list(islice((each for each in generic if len(each.split()) > 5), 50))
    if text is not None and not texts:
        render.fail(f"{text} holds no text of more than five words: there is nothing to take perplexity of.")
    return texts
