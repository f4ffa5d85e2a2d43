"""What a prompt asks, as a key: of the same in other words it lies near, of something else about the same farther.

Two signals of the base model at the prompt's last token, side by side: the state that its output embeddings read,
whitened by how paraphrases differ, and what it would say next, as a sketch of the square roots of the next token's
probabilities (between two of these, L2 is Hellinger's distance). The first says what kind of answer is wanted, the
second which.

Keys are calibrated on the generic questions that ship: in micro-steps, since that is a long pass over the model, and
once for all starts, since what comes of it is kept.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from app.editors.base import BankPrompt, Progress
from app.editors.fit_view import FitView
from app.editors.kept import Kept
from app.editors.whitening import SHRINKAGE, whitening

FALSE_HITS = 0.01
"""Share of the bank's same-subject, other-relation pairs that the default radius may let through."""
SKETCH, FOLDS = 256, 4
"""Places that the vocabulary is folded into, each token to one of each FOLDS-th of them, with a sign: inner products
stay what they were, nearly, and no two tokens are likely to meet in all."""
VERSION = "1"
"""Raised with every change of what calibration computes: what an older version kept is then computed again."""


class What:
    """keys (N, SKETCH + D) fp32, compared by L2; `radius` is the default one, for edits that name nobody.

    Without a bank keys are raw. `ids` are the bank's prompts in tokens.
    """

    def __init__(
        self,
        view: FitView,
        bank: Sequence[BankPrompt] = (),
        ids: Sequence[Sequence[int]] = (),
        kept: Kept | None = None,
    ) -> None:
        self._view, self._bank, self._ids, self._kept = view, bank, ids, kept or Kept()
        generator = torch.Generator().manual_seed(0)
        size = SKETCH // FOLDS
        places = torch.randint(size, (FOLDS, view.vocabulary), generator=generator)
        self._places = (places + size * torch.arange(FOLDS)[:, None]).to(view.device)
        signs = torch.randint(0, 2, (FOLDS, view.vocabulary), generator=generator) * 2.0 - 1
        self._signs = (signs / FOLDS**0.5).to(view.device)
        self._whiten = torch.eye(view.width, device=view.device)
        self._scale = torch.ones(2, device=view.device)
        self._radius = 1.0
        self._comparable = self._calibrated = not bank
        self._steps: Generator[Progress, None, None] | None = None

    def comparing(self) -> Generator[Progress, None, None]:
        """The micro-steps that are left until keys can be made. All who run them share them, and whoever needs a key
        before the last of them is done waits for it."""
        return self._until(lambda: self._comparable)

    def calibrating(self) -> Generator[Progress, None, None]:
        """The same, until the default radius is known too, by which scopes are learned."""
        return self._until(lambda: self._calibrated)

    def _until(self, reached: Callable[[], bool]) -> Generator[Progress, None, None]:
        while not reached():
            self._steps = self._steps or self._calibrate()
            try:
                told = next(self._steps, None)
            except BaseException:
                self._steps = None  # it ended there; whoever asks next begins anew
                raise
            if told is not None:
                yield told

    @property
    def radius(self) -> float:
        for _ in self.calibrating():
            pass
        return self._radius

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
        for _ in self.comparing():
            pass
        sketch, state = self._signals(states, logits)
        return torch.cat([sketch / self._scale[0], state / self._scale[1]], -1)

    def _signals(self, states: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        roots = logits.float().softmax(-1).sqrt()
        sketch = torch.zeros(len(roots), SKETCH, device=roots.device)
        for places, signs in zip(self._places, self._signs, strict=True):
            sketch.index_add_(1, places, roots * signs)
        return sketch, states.float() @ self._whiten

    def _calibrate(self) -> Generator[Progress, None, None]:
        held = self._kept.load("scope-keys", self._marks())
        if held is None:
            held = yield from self._measure()
            self._kept.store("scope-keys", self._marks(), held)
        self._compare_by(*(held[name].to(self._view.device) for name in ("whiten", "scale")))
        self._radius = held["radius"].item()
        self._calibrated, self._steps = True, None

    def _compare_by(self, whiten: Tensor, scale: Tensor) -> None:
        self._whiten, self._scale, self._comparable = whiten, scale, True

    def _marks(self) -> list[str]:
        """Everything beside the model that the result depends on."""
        asked = [
            (prompt.relation, prompt.subject, list(ids)) for prompt, ids in zip(self._bank, self._ids, strict=True)
        ]
        bank = hashlib.sha256(repr(asked).encode()).hexdigest()
        return [VERSION, str((SKETCH, FOLDS, FALSE_HITS, SHRINKAGE)), bank]

    def _measure(self) -> Generator[Progress, None, dict[str, Tensor]]:
        """Whitening from one half of the relations; scales and radius from the other, or they would be flattered.

        Questions that only the radius is taken from come last: what keys are made by is known before.
        """
        even, odd = self._halves()
        same = [(a, b) for asked in odd for rows in asked for a in rows for b in rows if a < b]
        other = [
            (a, b)
            for asked in odd
            for at, rows in enumerate(asked)
            for more in asked[at + 1 :]
            for a in rows
            for b in more
        ]
        first = sorted({at for rows in even for at in rows} | {at for pair in other for at in pair})
        states = torch.zeros(len(self._ids), self._view.width, device=self._view.device)
        sketches = torch.zeros(len(self._ids), SKETCH, device=self._view.device)
        yield from self._read(first, states, sketches)
        whiten = whitening(torch.cat([states[rows] - states[rows].mean(0) for rows in even]))  # how paraphrases differ
        white, scale, radius = states @ whiten, self._scale, self._radius
        if same and other:
            scale = torch.stack([_distances(each, other).mean() for each in (sketches, white)])
        self._compare_by(whiten, scale)
        if same and other:
            yield from self._read(sorted(set(range(len(self._ids))) - set(first)), states, sketches)
            keys = torch.cat([sketches / scale[0], states @ whiten / scale[1]], -1)
            strict = _distances(keys, other).quantile(FALSE_HITS).item()
            radius = min(strict, _distances(keys, same).quantile(0.995).item())
        return {"whiten": whiten, "scale": scale, "radius": torch.tensor(radius, dtype=torch.float64)}

    def _halves(self) -> tuple[list[list[int]], list[list[list[int]]]]:
        """The bank's places: of every other relation by subject and relation, of the others also by subject."""
        groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for at, prompt in enumerate(self._bank):
            groups[prompt.subject][prompt.relation].append(at)
        relations = sorted({prompt.relation for prompt in self._bank})
        even, odd = set(relations[::2]), set(relations[1::2])
        return (
            [rows for asked in groups.values() for relation, rows in asked.items() if relation in even],
            [[rows for relation, rows in asked.items() if relation in odd] for asked in groups.values()],
        )

    def _read(self, rows: Sequence[int], states: Tensor, sketches: Tensor) -> Generator[Progress, None, None]:
        """Fills these rows (of the bank) of states (N, D) and sketches (N, SKETCH), the shortest prompts first."""
        by_length = sorted(rows, key=lambda at: len(self._ids[at]))
        done = 0
        for found, logits in self._view.heads([self._ids[at] for at in by_length]):
            part = by_length[done : done + len(found)]
            states[part], sketches[part] = found.float(), self._signals(found, logits)[0]
            done += len(found)
            yield Progress(step=done, steps=len(by_length), loss=float("nan"))


def _distances(keys: Tensor, pairs: Iterable[tuple[int, int]]) -> Tensor:
    at = torch.tensor(list(pairs), device=keys.device)
    apart: Tensor = (keys[at[:, 0]] - keys[at[:, 1]]).norm(dim=-1)
    return apart
