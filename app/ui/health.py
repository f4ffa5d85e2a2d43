"""Health: the model, the log, running and waiting work, memory and latencies."""

import asyncio
import resource

from starlette.responses import Response
from starlette.routing import Route

from app.domain.keys import Right
from app.ui.desk import Desk
from app.ui.visit import Visit


def routes(desk: Desk) -> list[Route]:
    return [desk.route("/health", Right.READ, get=show)]


async def show(visit: Visit) -> Response:
    return visit.page(
        "health.html",
        title="Health",
        health=visit.service.status(),
        editors=await asyncio.to_thread(visit.service.editors),
        latencies=visit.desk.metrics.latencies(),
        resident_bytes=resident_bytes(),
        recent=visit.service.recent.counts(),
        most_recent=visit.service.recent.most,
    )


def resident_bytes() -> int:
    """The resident bytes of this process now, or, if the system does not tell, their maximum so far."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
