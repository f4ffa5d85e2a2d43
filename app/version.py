"""The version of what is installed."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """`unknown` in a copy of the source that no installer has seen."""
    try:
        return installed("errata")
    except PackageNotFoundError:
        return "unknown"
