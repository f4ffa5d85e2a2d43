"""The collaborators that every use case on edits works with, named once. Knows no use case."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.engine.client import EngineClient
from app.service.fit_queue import FitQueue
from app.service.fit_requests import FitRequestBuilder
from app.service.namespace_locks import NamespaceLocks
from app.service.neighbourhood import Neighbourhood
from app.service.pins import Pins
from app.service.records import Clock, Records
from app.service.trial_answers import TrialAnswers
from app.service.verification import Verifier


@dataclass(frozen=True, slots=True)
class Collaborators:
    """`fingerprints` maps each editor to the model, tokenizer and sites for which its edits are made."""

    engine: EngineClient
    records: Records
    pins: Pins
    fit_queue: FitQueue
    request_builder: FitRequestBuilder
    trial_answers: TrialAnswers
    verifier: Verifier
    neighbourhood: Neighbourhood
    locks: NamespaceLocks
    fingerprints: Mapping[str, str]
    clock: Clock
