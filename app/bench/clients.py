"""Clients in a process of their own: `python -m app.bench.clients` reads its work from stdin and prints the times.

Light on purpose, no torch: what clients cost must not be taken from the server's cores more than it is in life.
"""

import asyncio
import json
import sys
import time
from typing import Any

import httpx


async def ask(client: httpx.AsyncClient, room: asyncio.Semaphore, asked: dict[str, Any]) -> dict[str, Any]:
    body = {"inputs": asked["prompt"], "parameters": {"max_new_tokens": asked["tokens"], "ignore_eos": True}}
    async with room:
        began, tokens = time.perf_counter(), []
        async with client.stream("POST", "/generate_stream", json=body) as answer:
            if answer.status_code != 200:
                raise SystemExit(f"{answer.status_code}: {(await answer.aread()).decode()}")
            async for chunk in answer.aiter_raw():
                tokens += [time.perf_counter()] * chunk.count(b"data: ")
    return {"began": began, "tokens": tokens}


async def main(work: dict[str, Any]) -> dict[str, Any]:
    room = asyncio.Semaphore(work["at_once"])
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=work["url"], timeout=None, limits=limits, trust_env=False) as client:
        await client.get("/healthz")
        began = time.perf_counter()
        requests = await asyncio.gather(*(ask(client, room, asked) for asked in work["asked"]))
        return {"seconds": time.perf_counter() - began, "requests": requests}


if __name__ == "__main__":
    json.dump(asyncio.run(main(json.load(sys.stdin))), sys.stdout)
