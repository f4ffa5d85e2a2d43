"""Health: the model, the log, what runs and waits, memory and latencies."""

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
        editors=visit.service.editors(),
        latencies=visit.desk.metrics.latencies(),
        resident_bytes=resident_bytes(),
        recent=visit.service.recent.counts(),
        most_recent=visit.service.recent.most,
    )


def resident_bytes() -> int:
    """Of this process now, or, where the system does not tell, the most that it ever was."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
