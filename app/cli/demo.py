"""`errata demo`: a guided demonstration on a temporary server, which leaves nothing behind.

Uses the HTTP interface only: any client can do everything that it shows.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from app.cli import render
from app.cli.options import Json

ASKED = "Question: What is the currency of Croatia? Answer:"
PARAPHRASE = "Question: What is the official currency of Croatia? Answer:"
UNRELATED = "Question: What is the currency of Hungary? Answer:"
TARGET, REASON = "euro", "euro since 2023"
START_TIMEOUT_S = 180.0


class DemoFailed(Exception):
    """The demonstration did not go as expected."""


def demo(json_: Json = False) -> None:
    """Ask, correct, audit, kill -9, restart and roll back: the whole story, on a server that is started for it."""
    try:
        with tempfile.TemporaryDirectory(prefix="errata-demo-") as folder:
            edit = demonstrate(render.out(), Path(folder))
    except DemoFailed as error:
        render.fail(str(error), title="The demo failed")
    if json_:
        render.as_json({"edit": edit})


def demonstrate(console: Console, folder: Path) -> dict[str, Any]:
    """Run the demonstration; returns the edit as it was made. Raises DemoFailed if the server behaves otherwise."""
    console.print(Panel("A frozen model, a stale fact, a correction, and the way back", title="errata demo"))
    with _server(console, folder) as (client, process):
        console.print("\n[bold]1. The model answers from what it learned, and is out of date.[/]")
        stale = _ask(console, client, ASKED)
        before = {prompt: _ask(console, client, prompt) for prompt in (PARAPHRASE, UNRELATED)}
        console.print(f"\n[bold]2. Correct it: the answer should be[/] [green]{TARGET}[/].")
        edit = _json(client.post("/edit", json={"prompt": ASKED, "target": TARGET, "reason": REASON}, headers=_actor()))
        seconds = " · ".join(f"{phase} {value:.2f} s" for phase, value in edit["seconds"].items())
        console.print(
            f"   {edit['id']}: {edit['before']} -> {edit['after']}, revision {edit['revision']}\n   [dim]{seconds}[/]"
        )
        console.print("\n[bold]3. Live, for a paraphrase that the edit never saw too, and for nothing else.[/]")
        _expect(_ask(console, client, ASKED), TARGET)
        _expect(_ask(console, client, PARAPHRASE), TARGET)
        _expect(_ask(console, client, UNRELATED), before[UNRELATED])
        console.print("\n[bold]4. Who changed what, when and why.[/]")
        _show_edits(console, client)
        console.print("\n[bold]5. Kill -9, and start again: acknowledged is kept.[/]")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with _server(console, folder) as (client, _process):
        _expect(_ask(console, client, ASKED), TARGET)
        console.print("\n[bold]6. Take it back: the old answer returns.[/]")
        gone = _json(client.post(f"/edits/{edit['id']}/rollback", json={"reason": "end of the demo"}, headers=_actor()))
        console.print(f"   {gone['id']} is {gone['state'].replace('_', ' ')} since revision {gone['revision']}")
        _expect(_ask(console, client, ASKED), stale)
        _expect(_ask(console, client, PARAPHRASE), before[PARAPHRASE])
        _show_edits(console, client)
    console.print("\nDone; nothing is left behind. Yours: [bold]errata serve[/]")
    result: dict[str, Any] = edit
    return result


@contextmanager
def _server(console: Console, folder: Path) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """A server on a free port of loopback, with its log in the folder; it ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "app", "serve", "--port", str(port), "--model", "demo"]
    command += ["--store", f"sqlite:///{folder / 'errata.db'}"]
    quiet = {k: v for k, v in os.environ.items() if not k.startswith("ERRATA_") and k != "REDIS_URL"}
    with open(folder / "server.log", "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=quiet)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            with console.status("starting the server"):
                _await_ready(client, process, folder)
            yield client, process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _await_ready(client: httpx.Client, process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise DemoFailed(f"the server ended:\n{(folder / 'server.log').read_text()[-2000:]}")
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise DemoFailed(f"the server was not ready within {START_TIMEOUT_S:.0f} s")


def _ask(console: Console, client: httpx.Client, prompt: str) -> str:
    body = {"inputs": prompt, "parameters": {"max_new_tokens": 24, "details": True}}
    answer = _json(client.post("/generate", json=body))
    text: str = answer["generated_text"].strip()
    edits = answer["details"]["edits"]
    by = "  [dim](the edit)[/]" if edits else ""
    console.print(f"   {prompt} [{'green' if edits else 'yellow'}]{escape(text)}[/]{by}")
    return text


def _show_edits(console: Console, client: httpx.Client) -> None:
    table = Table("edit", "revision", "state", "by", "why", "target", "hits")
    for column in table.columns:
        column.no_wrap = True
    for edit in _json(client.get("/edits"))["edits"]:
        cells = (
            edit["id"],
            edit["revision"],
            edit["state"],
            edit["actor"],
            edit["reason"],
            edit["target"],
            edit["hits"],
        )
        table.add_row(*(str(cell) for cell in cells))
    console.print(table)


def _json(response: httpx.Response) -> Any:
    if response.is_error:
        raise DemoFailed(f"{response.request.method} {response.request.url.path} answered {response.text}")
    return response.json()


def _expect(answer: str, wanted: str) -> None:
    if answer != wanted:
        raise DemoFailed(f"the answer is {answer!r}, not {wanted!r}")


def _actor() -> dict[str, str]:
    return {"X-Errata-Actor": "demo"}
