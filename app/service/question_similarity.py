"""The similarity of two questions, measured by the scope's sentence encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor

from app.engine.client import EngineClient


class QuestionSimilarity:
    """The similarity of prompts by the question of their last turn. Nothing about them is stored on disk."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine

    def vector(self, prompt: str) -> Tensor:
        """The question's embedding: (E,) fp32 of length 1."""
        return self._engine.scope.vectors([self._engine.text.turns(prompt)[-1]])[0]

    def nearest(self, vector: Tensor, others: Sequence[Tensor]) -> tuple[int, float]:
        value, place = (torch.stack(list(others)) @ vector).max(0)
        return int(place), float(value)
