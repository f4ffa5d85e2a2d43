"""The sections of a run, by name."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from app.bench import comparing
from app.bench.comparing import Bench
from app.bench.fitting import fits

SECTIONS: Mapping[str, Callable[[Bench], Awaitable[dict[str, Any]]]] = MappingProxyType(
    {
        "peers": comparing.peers,
        "decode": comparing.decode_step,
        "concurrency": comparing.concurrency,
        "http": comparing.over_http,
        "edits": comparing.live_edits,
        "editing": comparing.while_editing,
        "fits": fits,
        "roofline": comparing.roofline,
    }
)
