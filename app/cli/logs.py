"""What a running server logs, and how: lines for people on a terminal, JSON for programs. Knows no event."""

import logging
import sys

import structlog
from structlog.typing import Processor


def configure(level: str) -> None:
    """Sends every library's log lines to stderr in one form. For `serve` alone: nothing else owns the process."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[Processor] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, stamp]
    if sys.stderr.isatty():
        final: list[Processor] = [structlog.dev.ConsoleRenderer()]
    else:
        final = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "urllib3", "filelock", "huggingface_hub"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # its start and stop are told in our own words; its errors are not
    logging.getLogger("uvicorn").setLevel(max(logging.getLogger().level, logging.WARNING))
