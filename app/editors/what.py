"""What a prompt asks, as a key: of the same in other words it lies near, of something else about the same farther.

Two signals of the base model at the prompt's last token, side by side: the state that its output embeddings read,
whitened by how paraphrases differ, and what it would say next, as a sketch of the square roots of the next token's
probabilities (between two of these, L2 is Hellinger's distance). The first says what kind of answer is wanted, the
second which. Calibrated once, on the generic questions that ship.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from app.editors.base import BankPrompt
from app.editors.fit_view import KEYS_AT_ONCE, FitView
from app.editors.whitening import whitening

FALSE_HITS = 0.01
"""Share of the bank's same-subject, other-relation pairs that the default radius may let through."""
SKETCH, FOLDS = 256, 4
"""Places that the vocabulary is folded into, each token to one of each FOLDS-th of them, with a sign: inner products
stay what they were, nearly, and no two tokens are likely to meet in all."""


class What:
    """keys (N, SKETCH + D) fp32, compared by L2; `radius` is the default one, for edits that name nobody."""

    def __init__(self, view: FitView, bank: Sequence[BankPrompt] = (), ids: Sequence[Sequence[int]] = ()) -> None:
        self._view = view
        generator = torch.Generator().manual_seed(0)
        size = SKETCH // FOLDS
        places = torch.randint(size, (FOLDS, view.vocabulary), generator=generator)
        self._places = (places + size * torch.arange(FOLDS)[:, None]).to(view.device)
        signs = torch.randint(0, 2, (FOLDS, view.vocabulary), generator=generator) * 2.0 - 1
        self._signs = (signs / FOLDS**0.5).to(view.device)
        self._whiten = torch.eye(view.width, device=view.device)
        self._scale = torch.ones(2, device=view.device)
        self.radius = 1.0
        if bank:
            self._calibrate(bank, ids)

    @property
    def width(self) -> int:
        return SKETCH + self._view.width

    def of(self, contexts: Sequence[Sequence[int]]) -> Tensor:
        """Prompts (ids) -> (N, SKETCH + D)."""
        return torch.cat(list(self.parts_of(contexts)))

    def parts_of(self, contexts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """The same, some prompts at a time."""
        for states, logits in self._view.heads(contexts):
            yield self.key(states, logits)

    def key(self, states: Tensor, logits: Tensor) -> Tensor:
        """(N, D), (N, V) -> (N, SKETCH + D)."""
        sketch, state = self._signals(states, logits)
        return torch.cat([sketch / self._scale[0], state / self._scale[1]], -1)

    def _signals(self, states: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        roots = logits.float().softmax(-1).sqrt()
        sketch = torch.zeros(len(roots), SKETCH, device=roots.device)
        for places, signs in zip(self._places, self._signs, strict=True):
            sketch.index_add_(1, places, roots * signs)
        return sketch, states.float() @ self._whiten

    def _calibrate(self, bank: Sequence[BankPrompt], ids: Sequence[Sequence[int]]) -> None:
        """Whitening from one half of the relations; scales and radius from the other, or they would be flattered."""
        groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        order = {relation: at for at, relation in enumerate(sorted({prompt.relation for prompt in bank}))}
        for at, prompt in enumerate(bank):
            groups[prompt.subject][prompt.relation].append(at)
        even = [rows for asked in groups.values() for r, rows in asked.items() if order[r] % 2 == 0]
        found = [
            (states.float(), self._signals(states, logits)[0]) for states, logits in self._view.heads(ids, KEYS_AT_ONCE)
        ]
        states, sketches = torch.cat([s for s, _ in found]), torch.cat([k for _, k in found])
        about_their_mean = [states[rows] - states[rows].mean(0) for rows in even]  # how paraphrases differ
        self._whiten = whitening(torch.cat(about_their_mean))
        white = states @ self._whiten
        same: list[tuple[int, int]] = []
        other: list[tuple[int, int]] = []
        for asked in groups.values():
            odd = [rows for relation, rows in asked.items() if order[relation] % 2 == 1]
            for at, rows in enumerate(odd):
                same.extend((a, b) for a in rows for b in rows if a < b)
                other.extend((a, b) for more in odd[at + 1 :] for a in rows for b in more)
        if not same or not other:
            return
        self._scale = torch.stack([_distances(each, other).mean() for each in (sketches, white)])
        keys = torch.cat([sketches / self._scale[0], white / self._scale[1]], -1)
        strict = _distances(keys, other).quantile(FALSE_HITS).item()
        self.radius = min(strict, _distances(keys, same).quantile(0.995).item())


def _distances(keys: Tensor, pairs: Iterable[tuple[int, int]]) -> Tensor:
    at = torch.tensor(list(pairs), device=keys.device)
    apart: Tensor = (keys[at[:, 0]] - keys[at[:, 1]]).norm(dim=-1)
    return apart
