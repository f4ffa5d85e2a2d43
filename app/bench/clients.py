"""Clients in a separate process: `python -m app.bench.clients` reads its work from stdin and prints the times.

The process is deliberately light and imports no torch, so that clients take no more from the server's cores than real
ones would. Events are not parsed while answers are timed: each occurrence of `marker` counts as a token, and the last
event is searched for the usage. Answers themselves are read afterwards, where `texts` asks for them.
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
        began, times, last, chunks = time.perf_counter(), [], b"", []
        async with client.stream("POST", work["path"], json=body) as answer:
            if answer.status_code != 200:
                raise SystemExit(f"{answer.status_code}: {(await answer.aread()).decode()}")
            async for chunk in answer.aiter_raw():
                times += [time.perf_counter()] * chunk.count(marker)
                last = (last + chunk)[-LAST_BYTES:]
                if work["texts"]:
                    chunks.append(chunk)
    usage = USAGE.findall(last)
    answered = int(usage[-1]) if usage else len(times)
    # a last event that only tells why the answer ended has the marker too
    return {"began": began, "tokens": times[:answered], "answered": answered, "chunks": chunks}


def text_of(stream: bytes) -> str:
    """The text of a stream of OpenAI's completions."""
    events = (line.removeprefix(b"data: ") for line in stream.splitlines() if line.startswith(b"data: {"))
    return "".join(choice["text"] for event in events for choice in json.loads(event).get("choices", ()))


async def main(work: dict[str, Any]) -> dict[str, Any]:
    room = asyncio.Semaphore(work["at_once"])
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=work["url"], timeout=None, limits=limits, trust_env=False) as client:
        await client.get("/")
        began = time.perf_counter()
        requests = await asyncio.gather(*(ask(client, room, work, body) for body in work["bodies"]))
        seconds = time.perf_counter() - began
    for each in requests:
        each["text"] = text_of(b"".join(each.pop("chunks")))
    return {"seconds": seconds, "requests": requests}


if __name__ == "__main__":
    json.dump(asyncio.run(main(json.load(sys.stdin))), sys.stdout)
