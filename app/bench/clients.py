"""Clients in a separate process: `python -m app.bench.clients` reads its work from stdin and prints the times.

The process is deliberately light and imports no torch, so that clients take no more from the server's cores than real
ones would. Events are not parsed: each occurrence of `marker` counts as a token, and the last event is searched for the
usage.
"""

import asyncio
import json
import re
import sys
import time
from typing import Any

import httpx

USAGE = re.compile(rb'"completion_tokens": ?(\d+)')
LAST_BYTES = 2000
"""Number of bytes kept of an answer's end, which contains its usage."""


async def ask(
    client: httpx.AsyncClient, room: asyncio.Semaphore, work: dict[str, Any], body: dict[str, Any]
) -> dict[str, Any]:
    marker = work["marker"].encode()
    async with room:
        began, times, last = time.perf_counter(), [], b""
        async with client.stream("POST", work["path"], json=body) as answer:
            if answer.status_code != 200:
                raise SystemExit(f"{answer.status_code}: {(await answer.aread()).decode()}")
            async for chunk in answer.aiter_raw():
                times += [time.perf_counter()] * chunk.count(marker)
                last = (last + chunk)[-LAST_BYTES:]
    usage = USAGE.findall(last)
    return {"began": began, "tokens": times, "answered": int(usage[-1]) if usage else len(times)}


async def main(work: dict[str, Any]) -> dict[str, Any]:
    room = asyncio.Semaphore(work["at_once"])
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=work["url"], timeout=None, limits=limits, trust_env=False) as client:
        await client.get("/")
        began = time.perf_counter()
        requests = await asyncio.gather(*(ask(client, room, work, body) for body in work["bodies"]))
        return {"seconds": time.perf_counter() - began, "requests": requests}


if __name__ == "__main__":
    json.dump(asyncio.run(main(json.load(sys.stdin))), sys.stdout)
