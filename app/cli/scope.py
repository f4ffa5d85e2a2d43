"""`errata retune`, `probes`, `why`, `traffic` and `scope check`: the scope of edits, and the prompts that none may
change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from app.cli import render
from app.cli.client import Client, path_of
from app.cli.job_progress import carried_out
from app.cli.options import Aliases, CounterExamples, EditId, Json, Namespace, Paraphrases, Probes, Reason

AT_ONCE, SHOWN = 1000, 5


def retune(
    context: typer.Context,
    edit_id: EditId,
    widen: Annotated[
        float | None,
        typer.Option(help="Multiply the odds at which a question counts as the same: 2 reaches farther, 0.5 less far."),
    ] = None,
    paraphrase: Paraphrases = None,
    counter_example: CounterExamples = None,
    alias: Aliases = None,
    probe: Probes = None,
    reason: Reason = None,
    force: Annotated[bool, typer.Option("--force", help="Change it even if verification fails.")] = False,
    json_: Json = False,
) -> None:
    """Widen or narrow the scope of a live edit, as a new revision."""
    client: Client = context.obj
    body = {
        "widen": widen,
        "paraphrases": paraphrase or None,
        "counter_examples": counter_example or None,
        "aliases": alias or None,
        "probes": probe or None,
        "reason": reason,
        "force": force or None,
    }
    edit = carried_out(client, "PATCH", path_of("edits", client.whole_id(edit_id)), body, "change")
    render.as_json(edit) if json_ else render.changed([edit], edit["revision"])


def probes(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(help="Set them: a prompt a line, in place of those there are.", exists=True, dir_okay=False),
    ] = None,
    namespace: Namespace = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Ask them (with FILE: those in it) now, and show which ones edits change."),
    ] = False,
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """Show, set or ask the prompts whose answers no edit may change. --check exits with 1 if an edit changes one."""
    client: Client = context.obj
    if check:
        _check_probes(client, None if file is None else _lines(file), namespace, json_=json_)
        return
    if file is None:
        answer = client.get("/probes", namespace=namespace)
    else:
        prompts = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        answer = client.put("/probes", {"prompts": prompts, "namespace": namespace, "reason": reason})
    if json_:
        render.as_json(answer)
        return
    for prompt in answer["prompts"]:
        render.out().print(render.line(prompt))
    probes = render.numbered(len(answer["prompts"]), "probe")
    typer.echo(f"{probes} of the namespace {answer['namespace']}, revision {answer['revision']}")


def _check_probes(client: Client, prompts: list[str] | None, namespace: str | None, *, json_: bool) -> None:
    checked = client.post("/probes/check", {"prompts": prompts, "namespace": namespace})
    if json_:
        render.as_json(checked)
    else:
        for each in checked["probes"]:
            if each["changed"]:
                who = f" by {each['edit']}" if each["edit"] else ""
                text = f"{each['prompt']!r} is changed{who}: {each['base']!r} -> {each['now']!r}"
                render.out().print(render.line(text))
        counted = f"{checked['changed']} of {len(checked['probes'])} probes of the namespace {checked['namespace']}"
        typer.echo(f"{counted} are answered otherwise than without edits, revision {checked['revision']}")
    if checked["changed"]:
        raise typer.Exit(1)


def why(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help="The prompt, as it is asked.")],
    namespace: Namespace = None,
    json_: Json = False,
) -> None:
    """Show which edit answers a question, or which came nearest, and why."""
    client: Client = context.obj
    (decision,) = client.post("/scope", {"prompts": [question], "namespace": namespace})["decisions"]
    if json_:
        render.as_json(decision)
        return
    hit = decision["edit"] or decision["nearest"]
    if hit is None:
        typer.echo("The model answers: no edit is near.")
        return
    who = (
        f"The edit {hit['id']} answers" if decision["edit"] else f"The model answers; the edit {hit['id']} came nearest"
    )
    render.out().print(render.line(f"{who}: {hit['why'] or hit['signals']}."))
    page = "/help/scope#too-wide" if decision["edit"] else "/help/scope#too-narrow"
    render.say(f"If that is wrong, see {client.url}{page}")


def check(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Questions that no edit is about, one per line.", exists=True)],
    namespace: Namespace = None,
    most: Annotated[
        float | None,
        typer.Option(help="Share of them that edits may answer; by default the namespace's own.", min=0, max=1),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure how many of a log's questions edits would answer, and name these edits. Exits with 1 above the bound."""
    client: Client = context.obj
    questions = _lines(file)
    hits: dict[str, list[tuple[str, str]]] = {}
    bound = most
    for first in range(0, len(questions), AT_ONCE):
        answer = client.post("/scope", {"prompts": questions[first : first + AT_ONCE], "namespace": namespace})
        bound = answer["false_hits"] if bound is None else bound
        for each in answer["decisions"]:
            if each["edit"]:
                hits.setdefault(each["edit"]["id"], []).append((each["prompt"], each["edit"]["why"]))
    count = sum(map(len, hits.values()))
    rate = count / len(questions)
    assert bound is not None, "a file without questions was refused"
    if json_:
        render.as_json({"asked": len(questions), "answered": count, "rate": rate, "bound": bound, "edits": hits})
    else:
        _print_hits(hits)
        typer.echo(f"{count} of {len(questions)} questions are answered by edits: {rate:.4f}, the bound is {bound:g}.")
    if rate > bound:
        raise typer.Exit(1)


def _print_hits(hits: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Print the questions, each with the reason, by the id of the edit that answers them: the worst edit first."""
    for edit_id, those in sorted(hits.items(), key=lambda each: -len(each[1])):
        render.out().print(render.line(f"{edit_id} answers {len(those)}:"))
        for prompt, why in those[:SHOWN]:
            render.out().print(render.indented(f"{prompt!r}: {why}"))


def traffic(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Questions as they are asked, one per line.", exists=True)],
    namespace: Namespace = None,
    others: Annotated[
        bool, typer.Option("--others", help="No edit is to answer any of them: calibrate the bounds of edits on them.")
    ] = False,
    json_: Json = False,
) -> None:
    """Give the server other questions of a namespace: scopes are learned in contrast to them."""
    client: Client = context.obj
    questions = _lines(file)
    kept: dict[str, int] = {}
    for first in range(0, len(questions), AT_ONCE):
        some = {"prompts": questions[first : first + AT_ONCE], "namespace": namespace, "others": others}
        kept = client.post("/recent", some)["kept"]
    where = namespace or "default"
    count = kept.get(where, 0)
    summary = {"namespace": where, "kept": count}
    render.answer(summary, f"{count} prompts of the namespace {where} are kept.", json_=json_)


def _lines(file: Path) -> list[str]:
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines or render.fail(f"{file} holds no questions: write one per line.")
