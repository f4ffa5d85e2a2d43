"""The contexts of a batch of edits: prompts with their targets as padded rows, and which positions predict targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Contexts:
    """The contexts of all edits as right-padded rows. All pads come after what is read, so the causal mask suffices."""

    ids: Tensor
    """(R, T) the prompt, then the target without its last token."""
    owner: Tensor
    """(R,) the index of the edit that a row belongs to."""
    position: Tensor
    """(R, J) the position that predicts target token j."""
    target: Tensor
    """(R, J) token ids."""
    real: Tensor
    """(R, J) bool: false for pads."""

    def only(self, rows: Tensor | slice) -> "Contexts":
        """Return some of the rows, given as a mask (R,) bool, indices or a slice. Owners keep their indices."""
        return Contexts(*(each[rows] for each in (self.ids, self.owner, self.position, self.target, self.real)))


def collate(contexts: Sequence[Sequence[Sequence[int]]], targets: Sequence[Sequence[int]], device: Any) -> Contexts:
    """Return the contexts of each edit as rows: `contexts[e]` are prompts (ids) that `targets[e]` (ids) continues."""
    rows = [(edit, prompt, targets[edit]) for edit, prompts in enumerate(contexts) for prompt in prompts]
    length = max(len(prompt) + len(target) - 1 for _, prompt, target in rows)
    width = max(len(target) for _, _, target in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    position = torch.zeros(len(rows), width, dtype=torch.long)
    target_ids = torch.zeros(len(rows), width, dtype=torch.long)
    real = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (_, prompt, target) in enumerate(rows):
        fed = [*prompt, *target[:-1]]
        ids[row, : len(fed)] = torch.tensor(fed)
        position[row, : len(target)] = torch.arange(len(prompt) - 1, len(fed))
        target_ids[row, : len(target)] = torch.tensor(target)
        real[row, : len(target)] = True
    owner = torch.tensor([edit for edit, _, _ in rows])
    return Contexts(*(t.to(device) for t in (ids, owner, position, target_ids, real)))
