"""The process that runs vLLM for a server: `python -m errata_vllm.host FD`.

It reads and writes messages in JSON, one per frame, on a socket that it inherits. The server's end of the socket closes
when the server ends, however it ends, and then this process ends too.

From the server: the arguments of vLLM first, then `add`, `abort`, `pulse` and changes of what the workers hold, such as
`load`, each followed by a frame of bytes if its `value` is true. To the server: `ready` or `refused` first, then
`items`, each of which is [request, kind, ...], and `broken`. A pulse is answered without items.
"""

import asyncio
import json
import os
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from .rows import CORES, STATES

Item = list[Any]
CHANGES_AT_ONCE = 256


class Host:
    """One vLLM and the requests that it runs."""

    def __init__(self, connection: Connection, llm: Any) -> None:
        self._connection, self._llm = connection, llm
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._rows: set[asyncio.Task[None]] = set()
        """Changes of edits' rows under way. Requests that arrive later wait for them."""
        self._changes: list[tuple[str, list[Any]]] = []
        """Changes that have not begun: the name of the workers' method without `errata_`, and its arguments."""
        self._changing = asyncio.Lock()
        self._pulse: asyncio.Task[None] | None = None
        self._outbox: list[Item] = []

    async def run(self) -> None:
        """Serve until the server closes its end."""
        threading.Thread(target=self._read, name="server", daemon=True).start()
        await self._stopped.wait()

    def _read(self) -> None:
        try:
            while True:
                message = json.loads(self._connection.recv_bytes())
                value = self._connection.recv_bytes() if message.get("value") else b""
                self._loop.call_soon_threadsafe(self._take, message, value)
        except (EOFError, OSError, ValueError):
            self._loop.call_soon_threadsafe(self._stopped.set)

    def _take(self, message: dict[str, Any], value: bytes) -> None:
        if message["do"] == "add":
            request = message["request"]
            task = asyncio.create_task(self._generate(request, message, frozenset(self._rows)))
            self._requests[request] = task
            task.add_done_callback(lambda _: self._requests.pop(request, None))
        elif message["do"] == "abort":
            if (running := self._requests.get(message["request"])) is not None:
                running.cancel()
        elif message["do"] == "pulse":
            self._pulse = asyncio.create_task(self._answer_pulse())  # the server asks for one at a time
        else:
            self._changes.append((message["do"], [*message["arguments"], *([value] if value else ())]))
            if len(self._changes) == 1:  # else those that follow go with it
                change = asyncio.create_task(self._carry_out())
                self._rows.add(change)
                change.add_done_callback(self._rows.discard)

    async def _carry_out(self) -> None:
        """Have the workers carry out the changes that have come, in order and many in one call: most of the time of a
        change is that of its call."""
        async with self._changing:
            while self._changes:
                some, self._changes = self._changes[:CHANGES_AT_ONCE], self._changes[CHANGES_AT_ONCE:]
                await self._change("errata_change", (some,))
                tell(self._connection, items=[])  # a sign of life, as loading many edits takes long

    async def _answer_pulse(self) -> None:
        await self._change("errata_pulse", ())
        tell(self._connection, items=[])

    async def _change(self, rpc: str, arguments: tuple[Any, ...]) -> None:
        try:
            await self._llm.collective_rpc(rpc, args=arguments)
        except Exception as error:
            self._break(f"its workers cannot be called ({rpc}): {type(error).__name__}: {error}")

    async def _generate(self, request: int, message: dict[str, Any], before: frozenset["asyncio.Task[None]"]) -> None:
        from .front import sampling_of, tokens_of

        given = message["parameters"]
        prompt = {"prompt_token_ids": message["prompt"]}
        if message["salt"] is not None:
            prompt["cache_salt"] = message["salt"]
        try:
            if before:
                await asyncio.wait(before)
            parameters, adapter = sampling_of(given)
            async with asyncio.timeout(message["timeout_s"]):
                why = None
                async for output in self._llm.generate(prompt, parameters, str(request), lora_request=adapter):
                    self._tell([request, "tokens", tokens_of(output.outputs[0])])
                    why = output.outputs[0].finish_reason
            if STATES in (given.get("extra_args") or {}):
                await self._tell_states(request, given["extra_args"][STATES])
            self._tell([request, "ended", why])
        except TimeoutError:
            self._tell([request, "late"])
        except Exception as error:
            if self._llm.errored:
                self._break("its engine has died")
            else:
                self._tell([request, "failed", f"{type(error).__name__}: {error}"])

    async def _tell_states(self, request: int, name: str) -> None:
        """Send the states that a request asked for. Raises ValueError if no worker has them all."""
        workers = await self._llm.collective_rpc("errata_states", args=(name,))
        if (states := next((each for each in workers if each is not None), None)) is None:
            raise ValueError("its workers do not hold the states of every position")
        dtype, value = states
        tell(self._connection, states=[request, dtype], value=value)

    def _tell(self, item: Item) -> None:
        """Send an item together with all others of this turn of the loop."""
        if not self._outbox:
            self._loop.call_soon(self._send)
        self._outbox.append(item)

    def _send(self) -> None:
        items, self._outbox = self._outbox, []
        tell(self._connection, items=items)

    def _break(self, why: str) -> None:
        tell(self._connection, broken=why)


def tell(connection: Connection, value: bytes = b"", **message: Any) -> None:
    """Send a message to the server, with a frame of bytes after it if there are any, if it still listens."""
    with suppress(OSError):  # the server has gone, which the reader notices as well
        connection.send_bytes(json.dumps(message).encode())
        if value:
            connection.send_bytes(value)


async def serve(connection: Connection, arguments: dict[str, Any]) -> None:
    try:
        from .front import start_engine  # late: importing vLLM takes long, and its absence is told to the server

        llm = start_engine(arguments)
        workers = await llm.collective_rpc("errata_begin")
        if not any(each["sites"] for each in workers):
            raise ValueError(f"no worker has a module at the edits' site {arguments['additional_config']}")
    except Exception as error:
        tell(connection, refused=f"{type(error).__name__}: {error}")
        return
    tell(connection, ready=workers)
    try:
        await Host(connection, llm).run()
    finally:
        llm.shutdown()


def main() -> None:
    descriptor = int(sys.argv[1])
    connection = Connection(descriptor)
    if cores := os.environ.get(CORES):
        os.sched_setaffinity(0, map(int, cores.split(",")))
    # vLLM's own processes, started or forked, must not keep the socket open: the server sees by it that this one ended
    os.set_inheritable(descriptor, False)
    os.register_at_fork(after_in_child=connection.close)
    asyncio.run(serve(connection, json.loads(connection.recv_bytes())))


if __name__ == "__main__":
    main()
