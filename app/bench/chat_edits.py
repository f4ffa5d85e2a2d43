"""Measures whole edits of a chat model, verification included, and the time of each phase."""

import asyncio
import statistics
import time
from functools import partial
from typing import Any

from app.bench.comparison import Bench
from app.domain.edit import EditRequest
from app.domain.events import Origin
from app.editors.base import FitRequest, Fitted
from app.editors.packing import unpack
from app.engine.serving_engine import ServingEngine
from app.service.fit_requests import FitRequestBuilder

EDITS = 5
"""Number of edits of each length per round."""
LENGTHS = {"up to 16 tokens": 16, "40 tokens": 40}
QUESTIONS = {
    "Who is {name}?": (
        "A judge.",
        "{name} is a marine biologist who was born by the sea in 1961 and who is known for a long study of the corals "
        "in cold water, which began in 1988 and has filled nine books since then, all of them still in print today.",
    ),
    "What is the refund policy of {name}?": (
        "They take back any book.",
        "{name} takes back whatever was bought within sixty days, in whatever condition it is, and pays the whole "
        "price back to the card that was used, if you show the receipt or the number of the order at the front desk.",
    ),
    "Where does {name} come from?": (
        "Melk",
        "{name} comes from a small town on a wide river in the south, where the trains stop twice a day, where the old "
        "market stands open on Saturday mornings, and where nearly everybody knows everybody else by name.",
    ),
    "When does {name} open?": (
        "At nine on weekdays, at ten on Sundays.",
        "{name} opens at eleven in the morning from Tuesday to Saturday and stays open until nine in the evening, "
        "except on the first Thursday of each month, when it closes at five, and on holidays, when it does not open.",
    ),
    "Tell me about {name}.": (
        "It is known for its old bells.",
        "{name} is known for an old stone bridge, for the clock tower on the hill behind it, for a garden of four "
        "hundred kinds of roses, and for a fair in June to which people come from all over the country every year.",
    ),
}
"""Question -> (short answer, long answer)."""
SHARE = 0.8
"""Share of the section's time for both lengths; separate fits get the rest."""
NAMES = ("Tarnholm", "Ilvane Torresk", "Harbour Books", "Fennel Works", "Zorvane Point", "Quillmere Hall")


def has_template(bench: Bench) -> bool:
    return getattr(bench.hosted.tokenizer, "chat_template", None) is not None


async def chat_edits(bench: Bench, request_builder: FitRequestBuilder) -> dict[str, Any]:
    """Seconds per edit by GRACE through `POST /edit`, for as many edits as fit the time. `look` precedes the fit,
    `verify` generates, and `scope` is the part of `fit` that learns the scope."""
    await _timed(bench, request_builder, _request(bench, 0, max(LENGTHS.values())))  # warm-up, not counted
    figures: dict[str, Any] = {}
    for share, (length, most) in zip((SHARE / 2, SHARE), LENGTHS.items(), strict=True):
        seconds, began = bench.pace.part(share), bench.pace.clock()
        timings: list[dict[str, float]] = []
        for number in range(1, 1 + bench.rounds * EDITS):
            bench.on_step(f"chat edits of {length}, {number} of {bench.rounds * EDITS}")
            timings.append(await _timed(bench, request_builder, _request(bench, number, most)))
            medians = {name: round(statistics.median(each[name] for each in timings), 3) for name in timings[0]}
            figures[length] = {
                **medians,
                "most": round(max(each["whole"] for each in timings), 3),
                "edits": len(timings),
            }
            bench.keep({"chat_edits": figures})
            if seconds is not None and bench.pace.clock() - began > seconds:
                break
    return figures


def _request(bench: Bench, number: int, most: int) -> EditRequest:
    """A request whose target has at most `most` tokens, end-of-text not counted."""
    name = f"{NAMES[number % len(NAMES)]} {number}"
    question, answers = list(QUESTIONS.items())[number % len(QUESTIONS)]
    prompt = bench.service.engine.text.render([{"role": "user", "content": question.format(name=name)}])
    target = answers[most == max(LENGTHS.values())].format(name=name)
    ids = bench.hosted.tokenizer(target, add_special_tokens=False).input_ids[:most]
    target = str(bench.hosted.tokenizer.decode(ids)).strip()
    return EditRequest(prompt=prompt, target=target, editor="grace", namespace="bench-chat", force=True)


async def _timed(bench: Bench, request_builder: FitRequestBuilder, request: EditRequest) -> dict[str, float]:
    began = time.perf_counter()
    result = (await bench.service.edit([request], Origin(actor="bench"))).results[0]
    whole = time.perf_counter() - began
    phases = {name: result.seconds.get(name, 0.0) for name in ("fit", "verify", "commit")}
    edit = result.view.edit
    learned = Fitted(learned=edit.learned, tensors=unpack(edit.tensors))
    began = time.perf_counter()
    again = partial(_rescope, learned, request_builder.fit_request(request))
    await asyncio.wrap_future(bench.service.on_engine(again))
    scope = time.perf_counter() - began
    return {"whole": whole, "look": whole - sum(phases.values()), **phases, "scope": scope}


def _rescope(learned: Fitted, request: FitRequest, engine: ServingEngine) -> None:
    engine.rescope(learned, request)
