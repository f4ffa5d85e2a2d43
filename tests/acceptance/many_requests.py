"""A hundred thousand requests of all kinds, 64 at a time: memory stays what it was, and who asks among others is
answered as alone.

`python -m tests.acceptance.many_requests --requests 100000`. Some prompts are answered by edits, some are sampled, one
in fifty clients goes away while it waits. Memory is read at each twentieth; a sample of the greedy answers is asked
again at the end, one by one.
"""

import argparse
import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.bootstrap import build_service, settle
from app.config import Settings
from app.demo.facts import load_relations
from app.domain.edit import EditRequest
from app.domain.events import Origin
from app.domain.generation import GenerationParameters
from app.service.service import Service

AT_ONCE = 64
EDITS = 20
AGAIN = 500
"""Greedy answers that are asked again alone."""
GOES_AWAY, NEW, SAMPLED = 0.02, 0.3, 0.5
"""Shares of the requests: whose client leaves; whose prompt no other has; that are sampled."""


@dataclass
class Load:
    requests: int
    prompts: list[str]
    asked: int = 0
    left: int = 0
    greedy: dict[tuple[str, int], str] = field(default_factory=dict)
    memory: list[tuple[int, float]] = field(default_factory=list)

    async def client(self, service: Service, rng: random.Random) -> None:
        while self.asked < self.requests:
            self.asked += 1
            if self.asked % max(1, self.requests // 20) == 0:
                self.memory.append((self.asked, _resident_mib()))
            prompt = rng.choice(self.prompts)
            if rng.random() < NEW:
                prompt = f"{rng.randrange(10**9)} {prompt}"
            sampled = rng.random() < SAMPLED
            how = GenerationParameters(
                max_new_tokens=rng.choice((1, 2, 4, 8)), temperature=1.0 if sampled else None, seed=self.asked
            )
            answer = asyncio.create_task(service.generate(prompt, how))
            if rng.random() < GOES_AWAY:
                self.left += 1
                await asyncio.sleep(0.05 * rng.random())
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)
                continue
            text = (await answer).text
            if not sampled and len(self.greedy) < AGAIN:
                self.greedy[prompt, how.max_new_tokens] = text


async def run(requests: int) -> dict[str, Any]:
    service = build_service(Settings(store="memory://"))
    await service.start()
    settle()
    try:
        facts = [(relation, fact) for relation in load_relations() for fact in relation.facts]
        rng = random.Random(0)
        for relation, fact in rng.sample([each for each in facts if each[1].now], EDITS):
            edit = EditRequest(prompt=relation.built_prompts(fact.subject)[0], target=fact.now or "", force=True)
            await service.edit([edit], Origin(actor="load"), batch=False)
        load = Load(requests, [p for relation, fact in facts for p in relation.built_prompts(fact.subject)[:2]])
        began = time.monotonic()
        await asyncio.gather(*(load.client(service, random.Random(seed)) for seed in range(AT_ONCE)))
        took_s = time.monotonic() - began
        wrong = [
            prompt
            for (prompt, tokens), text in load.greedy.items()
            if (await service.generate(prompt, GenerationParameters(max_new_tokens=tokens))).text != text
        ]
        return {
            "requests": load.asked,
            "clients_gone": load.left,
            "a_second": round(load.asked / took_s),
            "asked_again_alone": len(load.greedy),
            "answered_otherwise": wrong,
            "memory_mib": {str(asked): round(mib) for asked, mib in load.memory},
        }
    finally:
        await service.stop()


def _resident_mib() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(fields["VmRSS"].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    print(json.dumps(asyncio.run(run(parser.parse_args().requests)), indent=1))


if __name__ == "__main__":
    main()
