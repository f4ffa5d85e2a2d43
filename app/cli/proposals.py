"""`errata proposals` and `errata policy`: the edits that wait for a second person, and whether one is required."""

from typing import Annotated, Any

import typer
from rich.text import Text

from app.cli import render
from app.cli.client import Client, path_of
from app.cli.events import event_table
from app.cli.options import Json, Reason
from app.cli.tables import Column, print_table

proposals = typer.Typer(help="Edits that wait for a second person, newest first.", invoke_without_command=True)
ProposalId = Annotated[
    str, typer.Argument(metavar="ID", help="The proposal: its id, or a beginning of it that no other has.")
]
Revision = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="The revision at which you read it, which `errata proposals show` prints: if it has changed, nothing "
        "happens. If left out, its newest.",
    ),
]
COLUMNS = (
    Column(name="ID"),
    Column(name="STATE", drop=1),
    Column(name="PROMPT", least=14),
    Column(name="TARGET", least=8),
    Column(name="BY", least=6, drop=2),
    Column(name="PROPOSED (UTC)", drop=3),
)
PAGE = 500
"""The most proposals that the server returns in one answer."""


@proposals.callback()
def listing(
    context: typer.Context,
    state: Annotated[
        str | None, typer.Option(help="pending, returned, withdrawn, published, superseded or expired.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Only of this namespace.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only of this person, or of the key with this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE, help="The most to show.")] = 50,
    json_: Json = False,
) -> None:
    """List proposals, newest first."""
    if context.invoked_subcommand is not None:
        return
    client: Client = context.obj
    page = client.get("/proposals", state=state, namespace=namespace, actor=actor, limit=limit)
    if json_:
        render.as_json(page["proposals"])
    elif page["proposals"]:
        print_table(render.out(), COLUMNS, [_cells(each) for each in page["proposals"]])
        render.say(f"{page['pending']} in all wait for a second person.")
    else:
        typer.echo("No proposals.")


@proposals.command("show")
def show(context: typer.Context, proposal_id: ProposalId, json_: Json = False) -> None:
    """Show one proposal in full: what it asks for, what its preview found, and its history."""
    shown = context.obj.get(path_of("proposals", _whole_id(context.obj, proposal_id)))
    if json_:
        render.as_json(shown)
        return
    proposal(shown)
    for edit in shown["edits"]:
        for line in render.report_lines(edit["report"]):
            render.say(line)
    event_table(shown["history"])


@proposals.command()
def approve(
    context: typer.Context,
    proposal_id: ProposalId,
    revision: Revision = None,
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """Publish somebody's proposal: it is verified again and goes live."""
    client: Client = context.obj
    path = path_of("proposals", _whole_id(client, proposal_id))
    answer = client.post(f"{path}/approve", {"reason": reason}, if_match=_read(client, path, revision))
    if json_:
        render.as_json(answer)
        return
    for edit in answer.get("edits", [answer]):
        render.print_edit(edit)


@proposals.command("return")
def send_back(
    context: typer.Context,
    proposal_id: ProposalId,
    reason: Annotated[str, typer.Option(help="Why: its proposer sees it.")],
    revision: Revision = None,
    json_: Json = False,
) -> None:
    """Send a proposal back to its proposer, who can revise it."""
    client: Client = context.obj
    path = path_of("proposals", _whole_id(client, proposal_id))
    answer = client.post(f"{path}/return", {"reason": reason}, if_match=_read(client, path, revision))
    render.as_json(answer) if json_ else proposal(answer)


@proposals.command()
def withdraw(context: typer.Context, proposal_id: ProposalId, reason: Reason = None, json_: Json = False) -> None:
    """Withdraw your own proposal."""
    client: Client = context.obj
    answer = client.post(path_of("proposals", _whole_id(client, proposal_id), "withdraw"), {"reason": reason})
    render.as_json(answer) if json_ else proposal(answer)


def policy(
    context: typer.Context,
    namespace: Annotated[str, typer.Argument(help="The namespace.")] = "default",
    second_person: Annotated[
        bool | None,
        typer.Option("--second-person/--one-person", help="Set whether its edits need one; if left out, it is shown."),
    ] = None,
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """Show, or set, whether each edit of a namespace needs a second person, who approves it."""
    client: Client = context.obj
    if second_person is None:
        answer = client.get("/policy", namespace=namespace)
    else:
        answer = client.put("/policy", {"namespace": namespace, "second_person": second_person, "reason": reason})
    needs = "need a second person" if answer["second_person"] else "need no second person"
    render.answer(answer, f"Edits of the namespace {namespace} {needs}; revision {answer['revision']}", json_=json_)


def print_made(answer: dict[str, Any]) -> None:
    """Print the answer of POST /edit: an edit, or a proposal in its place."""
    if not is_proposal(answer):
        render.print_edit(answer)
        return
    proposal(answer)
    render.say(f"  It waits for a second person: errata proposals approve {answer['id']}")


def is_proposal(answer: dict[str, Any]) -> bool:
    return "proposed_at" in answer


def proposal(body: dict[str, Any]) -> None:
    """Print the edits that a proposal asks for, and its state."""
    console = render.out()
    for edit in body["edits"]:
        console.print(render.line(edit["prompt"]), style="bold")
        before = render.line(edit["before"]) or Text("(nothing)")
        console.print(Text.assemble("  ", before, (" -> ", "bold"), (render.line(edit["after"]).plain, "green")))
    text = f"  {body['id']} is {body['state']}, proposed by {body['actor']}, revision {body['revision']}"
    console.print(render.line(text))


def _read(client: Client, path: str, revision: int | None) -> int:
    """The revision that a decision is about: the one that was given, otherwise the proposal's newest."""
    return int(client.get(path)["revision"]) if revision is None else revision


def _whole_id(client: Client, given: str) -> str:
    """The id of the only proposal whose id begins with `given`; the prefix `pr_` may be left out."""
    beginning = given if given.startswith("pr_") else f"pr_{given}"
    ids = [each["id"] for each in client.get("/proposals", limit=PAGE)["proposals"]]
    return render.only_id(ids, beginning, "proposal")


def _cells(body: dict[str, Any]) -> tuple[str | Text, ...]:
    first, more = body["edits"][0], len(body["edits"]) - 1
    return (
        body["id"],
        body["state"],
        render.line(first["prompt"] + (f" (and {more} more)" if more else "")),
        render.line(first["target"]),
        render.line(body["actor"]),
        render.moment(body["proposed_at"]),
    )
