"""Answers wait for a micro-step of a fit, so that none may run many tokens through the model, however many edits there
are."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import pytest

from app.editors.fitting.sites import layers_of
from app.editors.fitting.view import MAX_CPU_TOKENS_PER_PASS
from app.editors.registry import EDITORS
from tests.rig import Rig

pytestmark = pytest.mark.slow
EDITS, PARAPHRASES = 4, 4
STEPS = 60
"""The first micro-steps, which compute what a fit reads of the model once, and begin to learn."""
MOST = 2 * MAX_CPU_TOKENS_PER_PASS
"""The most tokens of a micro-step: a pass over what comes before an edit's position, and one over the rest."""


@contextmanager
def counted(rig: Rig) -> Iterator[list[int]]:
    """The tokens that pass through the model's layers, each layer's counted, as the only item of a list."""
    count = [0]

    def add(_module: object, args: tuple, kwargs: dict) -> None:  # type: ignore[type-arg]
        hidden = args[0] if args else kwargs["hidden_states"]
        count[0] += hidden.shape[0] * hidden.shape[1]

    layers = layers_of(rig.hosted.model, rig.hosted.architecture)
    handles = [layer.register_forward_pre_hook(add, with_kwargs=True) for layer in layers]
    yield count
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("editor", EDITORS)
def test_a_micro_step_runs_few_tokens(editor: str) -> None:
    rig = Rig()
    layers = len(layers_of(rig.hosted.model, rig.hosted.architecture))
    ways = [f"Way {number} to ask for the ruler of {{}} in full:" for number in range(PARAPHRASES)]
    requests = [
        rig.fit_request(f"The ruler of land {name} is", "S", *(way.format(f"land {name}") for way in ways))
        for name in range(EDITS)
    ]
    most = 0
    with counted(rig) as count:
        for steps in (rig.editors[editor].prepare(), rig.editors[editor].fit(requests, None)):
            for _ in islice(steps, STEPS):
                most, count[0] = max(most, count[0]), 0
    assert 0 < most / layers <= MOST
