"""The trained models of the scope, loaded together: an encoder, and the models that were trained on its states.

Those of the default encoder ship in this folder. Another encoder has its own in its folder, under the same names, where
`python -m app.scope_training --encoder FOLDER` writes them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from app.domain.errors import InvalidRequest
from app.scope.closed_words import ClosedWords
from app.scope.decision import ScopeDecider
from app.scope.encoded_keys import EncodedKeys
from app.scope.encoder import MINILM, Encoder, find_encoder, fingerprint_of
from app.scope.match_model import MATCH_WEIGHTS, MatchModel, load_match_model
from app.scope.scorer import WEIGHTS, PairScorer, load_scorer

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class ScopeModels:
    """The models that read questions: the encoder, tuned as its scorer says, and all that was trained with it."""

    encoder: Encoder
    scorer: PairScorer
    match_model: MatchModel

    def decider(self, keys: EncodedKeys, closed: ClosedWords) -> ScopeDecider:
        """A decider that compares questions with the texts that `keys` encodes."""
        return ScopeDecider(self.encoder, keys, self.scorer, self.match_model, closed)


def load_models(encoder: str = MINILM, make: type[Encoder] = Encoder) -> ScopeModels:
    """Load an encoder, named as in ERRATA_ENCODER, as an instance of `make`, and the models that belong to it. They
    are those in its folder, or those that ship if it has none and they were trained with the very same encoder.

    Raises InvalidRequest, with advice, where they are missing, cannot be read, or belong to another encoder.
    """
    folder = find_encoder(encoder)
    fingerprint = fingerprint_of(folder)
    own = (folder / WEIGHTS.name).is_file()
    home = folder if own else WEIGHTS.parent
    scorer = _loaded(load_scorer, home / WEIGHTS.name, folder)
    if scorer.encoder != fingerprint:  # before its tuning is merged into layers of perhaps another width
        raise _untrained(
            f"The pair scorer {home / WEIGHTS.name} was trained with another encoder"
            if own
            else f"No pair scorer was trained with this encoder: {folder} has no {WEIGHTS.name}",
            folder,
        )
    match_model = _loaded(load_match_model, home / MATCH_WEIGHTS.name, folder)
    if match_model.encoder not in ("", fingerprint):
        raise _untrained(f"The match model's weights {home / MATCH_WEIGHTS.name} belong to another encoder", folder)
    return ScopeModels(make(folder, scorer.learned), scorer, match_model)


def _loaded(load: Callable[[Path], T], file: Path, folder: Path) -> T:
    try:
        return load(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise _untrained(f"{file} cannot be read ({error})", folder) from error


def _untrained(problem: str, folder: Path) -> InvalidRequest:
    return InvalidRequest(
        f"{problem}. Train the scope's models with `python -m app.scope_training --encoder {folder}`, or leave "
        f"ERRATA_ENCODER at `{MINILM}`."
    )
