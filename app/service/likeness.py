"""How alike two questions are: by the sentence encoder of the scope."""

from collections.abc import Sequence

import torch
from torch import Tensor

from app.engine.engine import Engine


class QuestionLikeness:
    """Of prompts, by what their last turn asks. Nothing of them is kept on a disk."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def vector(self, prompt: str) -> Tensor:
        """(E,) fp32 of length 1."""
        return self._engine.scope.vectors([self._engine.text.turns(prompt)[-1]])[0]

    def nearest(self, vector: Tensor, others: Sequence[Tensor]) -> tuple[int, float]:
        value, place = (torch.stack(list(others)) @ vector).max(0)
        return int(place), float(value)
