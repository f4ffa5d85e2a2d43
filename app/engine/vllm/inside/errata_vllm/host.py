"""The process that runs vLLM for a server: `python -m errata_vllm.host FD`.

It reads and writes messages in JSON, one a frame, on a socket that it inherits. The server's end of the socket closes
when the server ends, however it ends, and then this process ends too.

From the server: the arguments of vLLM first, then `add`, `abort`, `load` (followed by a frame with the value's bytes)
and `drop`. To the server: `ready` or `refused` first, then `items`, each of which is [request, kind, ...], and
`broken`.
"""

import asyncio
import json
import os
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

Item = list[Any]
PULSE_S = 5
"""The time between two questions to idle workers, in seconds."""


class Host:
    """One vLLM and the requests that it runs."""

    def __init__(self, connection: Connection, llm: Any) -> None:
        self._connection, self._llm = connection, llm
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._rows: set[asyncio.Task[None]] = set()
        """Changes of edits' rows under way. Requests that arrive later wait for them."""
        self._outbox: list[Item] = []

    async def run(self) -> None:
        """Serve until the server closes its end. While no request would notice that a worker has died, ask them."""
        threading.Thread(target=self._read, name="server", daemon=True).start()
        stopped = asyncio.create_task(self._stopped.wait())
        while not stopped.done():
            await asyncio.wait([stopped], timeout=PULSE_S)
            if not self._requests and not stopped.done():
                pulse = asyncio.create_task(self._change("errata_pulse", ()))
                await asyncio.wait([stopped, pulse], return_when=asyncio.FIRST_COMPLETED)  # a worker may hang

    def _read(self) -> None:
        try:
            while True:
                message = json.loads(self._connection.recv_bytes())
                value = self._connection.recv_bytes() if message["do"] == "load" else b""
                self._loop.call_soon_threadsafe(self._take, message, value)
        except (EOFError, OSError):
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
        else:
            rpc = f"errata_{message['do']}"
            change = asyncio.create_task(self._change(rpc, (*message["arguments"], *([value] if value else ()))))
            self._rows.add(change)
            change.add_done_callback(self._rows.discard)

    async def _change(self, rpc: str, arguments: tuple[Any, ...]) -> None:
        try:
            await self._llm.collective_rpc(rpc, args=arguments)
        except Exception as error:
            self._break(f"its workers cannot be called ({rpc}): {type(error).__name__}: {error}")

    async def _generate(self, request: int, message: dict[str, Any], before: frozenset["asyncio.Task[None]"]) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        given = message["parameters"]
        given["logit_bias"] = dict(given.pop("logit_bias", ())) or None
        prompt = {"prompt_token_ids": message["prompt"]}
        if message["salt"] is not None:
            prompt["cache_salt"] = message["salt"]
        try:
            if before:
                await asyncio.wait(before)
            parameters = SamplingParams(**given, detokenize=False, output_kind=RequestOutputKind.DELTA)
            async with asyncio.timeout(message["timeout_s"]):
                why = None
                async for output in self._llm.generate(prompt, parameters, str(request)):
                    self._tell_tokens(request, output.outputs[0])
                    why = output.outputs[0].finish_reason
            self._tell([request, "ended", why])
        except TimeoutError:
            self._tell([request, "late"])
        except Exception as error:
            self._tell([request, "failed", f"{type(error).__name__}: {error}"])
            if self._llm.errored:
                self._break("its engine has died")

    def _tell_tokens(self, request: int, output: Any) -> None:
        """Tell [token id, log probability, rank, [[id, log probability] of the likeliest]] for each new token."""
        tokens = []
        for token_id, ranked in zip(output.token_ids, output.logprobs, strict=True):
            chosen = ranked[token_id]
            others = sorted(ranked.items(), key=lambda each: each[1].rank)
            tokens.append([token_id, chosen.logprob, chosen.rank, [[each, it.logprob] for each, it in others]])
        self._tell([request, "tokens", tokens])

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


def tell(connection: Connection, **message: Any) -> None:
    """Send a message to the server, if it still listens."""
    with suppress(OSError):  # the server has gone, which the reader notices as well
        connection.send_bytes(json.dumps(message).encode())


async def serve(connection: Connection, arguments: dict[str, Any]) -> None:
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        from .inner import LOAD_FORMAT

        ours = {
            "load_format": LOAD_FORMAT,
            "worker_extension_cls": "errata_vllm.extension.EditRows",
            "async_scheduling": False,
        }
        llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**{**arguments, **ours}))
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
    # vLLM's own processes, started or forked, must not keep the socket open: the server sees by it that this one ended
    os.set_inheritable(descriptor, False)
    os.register_at_fork(after_in_child=connection.close)
    asyncio.run(serve(connection, json.loads(connection.recv_bytes())))


if __name__ == "__main__":
    main()
