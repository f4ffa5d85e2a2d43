"""`errata serve`: settings, an address, a model, a server. Imports torch late; knows no route."""

import asyncio
import errno
import ipaddress
import logging
import math
import socket
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli import render
from app.cli.exits import Exit
from app.cli.options import Json
from app.cli.settings import read_settings, setting
from app.cli.shutdown import Shutdown, farewell
from app.cli.start_progress import StartProgress
from app.domain.errors import ErrataError, InvalidRequest
from app.domain.progress import OnStep

if TYPE_CHECKING:
    from app.config import Settings
    from app.service.service import Service
    from app.service.views import Status

_log = logging.getLogger(__name__)
DROP_S = 2.0
"""The time after the end of all work, in seconds, at which connections still open are closed: their clients do not
read."""
LAST_RESORT_S = 10
"""The further time, in seconds, after which uvicorn stops waiting."""


def serve(
    model: Annotated[str | None, setting("model", "A folder, GGUF file or hub name, `smollm2` or `demo`.")] = None,
    served_model_name: Annotated[
        str | None,
        setting("served_model_name", "The name by which clients call the model.", default="the last part of --model"),
    ] = None,
    host: Annotated[str | None, setting("host", "Address to listen on.")] = None,
    port: Annotated[int | None, setting("port", "Port to listen on; 0 takes a free one.")] = None,
    store: Annotated[str | None, setting("store", "URL of the log; memory:// keeps nothing.")] = None,
    engine: Annotated[str | None, setting("engine", "transformers, or vllm in an environment of its own.")] = None,
    vllm_url: Annotated[str | None, setting("vllm_url", "Address of a vLLM that runs already.")] = None,
    device: Annotated[str | None, setting("device", "cpu, cuda, cuda:1 or auto.")] = None,
    dtype: Annotated[str | None, setting("dtype", "float32, bfloat16, float16 or auto.")] = None,
    site_layer: Annotated[
        int | None, setting("site_layer", "The layer that is edited.", default="the architecture's")
    ] = None,
    slots: Annotated[int | None, setting("slots", "Sequences that may run at once.")] = None,
    log_level: Annotated[str | None, setting("log_level", "debug, info, warning or error.")] = None,
    log_format: Annotated[
        str | None, setting("log_format", "console, json, or auto: console on a terminal, JSON elsewhere.")
    ] = None,
    stop_grace_s: Annotated[
        float | None, setting("stop_grace_s", "Seconds that running answers and edits get to end after a stop signal.")
    ] = None,
    json_: Json = False,
) -> None:
    """Serve a model. `errata settings` lists more settings; each may come from an ERRATA_* variable, `.env` or
    errata.toml. Ctrl-C lets running work end first, for `--stop-grace-s` seconds at most; a second one stops at
    once."""
    given = {
        "model": model, "served_model_name": served_model_name, "host": host, "port": port, "store": store,
        "engine": engine, "vllm_url": vllm_url, "device": device, "dtype": dtype, "site_layer": site_layer,
        "slots": slots, "log_level": log_level, "log_format": "json" if json_ else log_format,
        "stop_grace_s": stop_grace_s,
    }  # fmt: skip
    settings = read_settings({name: value for name, value in given.items() if value is not None})
    # first, so that a port that is taken is reported before a model is loaded
    listener = listen(settings.host, settings.port)
    starting = StartProgress(render.out(), note=_note if json_ else None)

    def doing() -> str:
        starting.stop()  # its bar would be drawn over the next message
        return starting.doing

    with listener, Shutdown(doing) as shutdown:
        try:
            with starting:
                service = build(settings, starting.on_step)
                asyncio.run(_run(service, settings, listener, starting, shutdown))
        except (KeyboardInterrupt, asyncio.CancelledError):
            if shutdown.number is None:
                raise
            shutdown.say()
            raise typer.Exit(shutdown.code) from None
        except ErrataError as error:
            render.fail(error.message, title="Cannot serve")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                _in_use(settings.host, settings.port)
            render.fail(str(error), title="Cannot serve")
        except typer.Exit:
            raise
        except Exception as error:
            _log.critical("The server ends because of an internal error", exc_info=error)
            raise typer.Exit(int(Exit.FAILED)) from None


def _note(what: str, done: int, of: int) -> None:
    """Log what a start is doing, for programs."""
    _log.info("Starting: %s", what, extra={"kind": "start", **({"done": done, "of": of} if of else {})})


def listen(host: str, port: int) -> socket.socket:
    """A socket that holds the address but accepts no connection: until the model is loaded, clients are refused."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        render.fail(f"Cannot listen on {host}: {error.strerror}.", "Choose another with --host.")
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            _in_use(host, port)
        render.fail(f"Cannot listen on {host}, port {port}: {error.strerror}.", "Choose others with --host and --port.")
    return listener


def _in_use(host: str, port: int) -> None:
    render.fail(
        f"Port {port} of {host} is in use.", "Stop what listens there, or choose another with --port (0: any free one)."
    )


def build(settings: "Settings", on_step: OnStep) -> "Service":
    """The service with its model loaded. Raises the errors of the model or the store."""
    from app.cli.log_format import configure, take_over_libraries

    configure(settings.log_level, settings.log_format)
    on_step("importing libraries", 0, 0)
    from transformers.utils.logging import disable_progress_bar

    from app.bootstrap import build_service

    take_over_libraries()
    disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar for reading weights would break the lines of the log
    return build_service(settings, on_step=on_step)


async def started_service(settings: "Settings") -> "Service":
    """Build a service and start it, without HTTP."""
    with StartProgress(Console(stderr=True, highlight=False)) as starting:
        service = build(settings, starting.on_step)
        await service.start(starting.on_step)
        if not service.examined_judge.known:
            starting.on_step("the judge sits its exam", 0, 0)
            await service.examined_judge.settled()  # the same judge must decide all measurements
    return service


async def _run(
    service: "Service", settings: "Settings", listener: socket.socket, starting: StartProgress, shutdown: Shutdown
) -> None:
    import uvicorn

    from app.api.app import create_app
    from app.api.patience import Patience
    from app.api.server import Server
    from app.bootstrap import settle
    from app.cli.log_format import as_json
    from app.ui.app import pages

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    leaving = asyncio.Event()
    app = create_app(
        service,
        max_body_bytes=settings.max_body_bytes,
        rate_limit=settings.rate_limit,
        cors_origins=settings.cors_origins,
        allowed_hosts=(*settings.allowed_hosts, settings.host),
        trusted_proxies=settings.trusted_proxies,
        starting=starting.on_step,
        started=settle,
        pages=partial(pages, leaving=leaving),
    )
    grace_s, programs = settings.stop_grace_s, as_json(settings.log_format)

    def report_stop(message: str, **fields: float) -> None:
        _log.info(message, extra={"kind": "stop", **fields}) if programs else render.say(message)

    config = uvicorn.Config(
        app,
        http=Patience,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(grace_s + DROP_S) + LAST_RESORT_S,
    )
    server = Server(config)

    def stop_starting() -> None:
        assert task is not None
        shutdown.end_loading()
        task.cancel()

    def leave() -> None:
        leaving.set()  # otherwise streams without an end of their own would delay the stop
        server.leave()
        counts = service.work_in_progress.count("answer"), service.work_in_progress.count("edit"), server.open_requests
        message = farewell(*counts, grace_s, shutdown.number)
        report_stop(message, **dict(zip(("answers", "edits", "requests"), counts, strict=True)), seconds=grace_s)
        loop.call_later(grace_s, service.cut_short)
        loop.call_later(grace_s + DROP_S, server.drop_connections)

    shutdown.on_loop(stop_starting)
    # the app's lifespan is entered here and not by uvicorn, so that a failed start shows an error, not a traceback
    async with app.router.lifespan_context(app):
        starting.stop()
        if not (_is_loopback(listener) or service.records.ledger.keys or settings.allow_anonymous):
            raise InvalidRequest(
                f"Anyone who reaches {settings.host} could edit the model: make a key first (errata keys create --role "
                f"admin --name you), or set ERRATA_ALLOW_ANONYMOUS=true if something else keeps strangers out."
            )
        shutdown.on_loop(leave)
        _greet(service.status(), listener, starting.seconds)
        await server.serve(sockets=[listener])


def _greet(status: "Status", listener: socket.socket, seconds: float) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if render.AS_JSON.get():
        render.as_json(
            {"address": address, "seconds": round(seconds, 1), **asdict(status), "extra": dict(status.extra)}
        )
        return
    parameters = status.extra.get("parameters")
    size = f" ({parameters / 1e6:,.1f} M parameters)" if isinstance(parameters, int) else ""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in (
        ("model", f"{status.model}{size}"),
        ("device", f"{status.device}, {status.dtype}"),
        ("site", status.site),
        ("store", f"{status.store} ({'durable' if status.durable else 'NOT durable: edits are lost at the end'})"),
        (
            "edits",
            f"{status.live_edits} live, revision {status.revision}"
            f"{render.switched_off(status.switched_on, status.switched_off)}",
        ),
        *([] if status.judge.state == "off" else [("judge", f"{status.judge.judge}, {_exam_of(status)}")]),
        ("address", f"{address} (in a browser; docs at /docs)"),
        ("ready", f"in {seconds:.1f} s"),
    ):
        grid.add_row(name, Text(value))
    render.out().print(grid)


def _exam_of(status: "Status") -> str:
    judge = status.judge
    return "has passed its exam" if judge.state == "serving" else f"not used: {judge.why_not} (errata scope exam)"


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
