"""The messages between the server and its fitter, one pickle per frame. Both run the same code."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from torch import Tensor

from app.domain.errors import ErrataError, RequestCancelled
from app.editors.base import FitProgress, FitRequest, Fitted


class FitterDied(RequestCancelled):
    """The process that fits edits ended before a fit was done. The request can be made again."""


class FitFailed(ErrataError):
    """A fit failed: the server's fault, not the request's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitterPlan:
    """The model that a fitter loads, as `load_model` takes it, and what its editors are built from."""

    model: str
    model_revision: str | None
    device: str
    dtype: str
    site_layer: int | None
    """The layer of the shared site, or None for the middle layer."""
    bank_ids: Sequence[Sequence[int]]
    """Token ids of generic questions."""
    threads: int | None
    """CPU threads for torch; None: torch's default."""
    asks_for_states: bool
    """True if the server answers `StatesWanted`. The fitter then holds nothing of the layers below the site."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The fitter has loaded its part of the model, `weight_bytes` large."""

    weight_bytes: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The fitter cannot load the model, and ends."""

    error: ErrataError


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a fit."""

    fit: int
    editor: str
    requests: Sequence[FitRequest]


@dataclass(frozen=True, slots=True)
class Stop:
    """Abandon a fit."""

    fit: int


@dataclass(frozen=True, slots=True)
class FitOutcome:
    """The end of a fit: what it learned, or why it failed."""

    fit: int
    result: list[Fitted] | ErrataError


@dataclass(frozen=True, slots=True)
class Progress:
    """A micro-step of a fit is done."""

    fit: int
    progress: FitProgress


@dataclass(frozen=True, slots=True)
class StatesWanted:
    """The fitter needs the base model's states that enter the site's layer, for rows of token ids."""

    rows: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class States:
    """The answer to `StatesWanted`: for each row (T, D), or why there are none."""

    states: Sequence[Tensor] | ErrataError


def send(connection: Connection, message: Any) -> None:
    """Send a message. Raises OSError if the other end has gone."""
    connection.send_bytes(pickle.dumps(message))


def receive(connection: Connection) -> Any:
    """Wait for a message. Raises EOFError or OSError if the other end has gone."""
    return pickle.loads(connection.recv_bytes())
