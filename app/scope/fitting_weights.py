"""Fits what `weighing` weighs by, on items that the pair scorer has not seen: `python -m app.scope.training` calls it.

Each item is an edit: its question is the prompt, some of what asks the same its paraphrases, some of the others its
counter-examples; the rest is asked. Questions of the bank are items too, so that close rewordings count beside distant
ones. For namespaces that keep what is asked, contrast is taken to the texts of other items of the same fields.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from app.domain.words import says, words_of
from app.scope.background import NEAREST, SAME, Contrast
from app.scope.bank import load_bank, plain
from app.scope.closed import load_closed_words
from app.scope.encoder import Encoded, Encoder
from app.scope.items import Item, held_out, read_items
from app.scope.reading import names_in
from app.scope.scorer import PairScorer
from app.scope.weighing import FAR, NAMES, Figures

GIVEN = ((0, 0), (3, 3), (3, 0), (0, 3), (2, 2), (4, 0))
"""Paraphrases and counter-examples that an item's edit has, by turns."""
FIELDS = ("service", "utterances", "it", "work", "products", "life")
"""Files of pairs whose texts stand for the traffic of a namespace."""
ALIKE, USUAL = 8, 24
"""Questions about others that are asked beside an item's own, the nearest; and, where a namespace keeps what is asked,
the nearest of these."""
BANK_ITEMS = 130
RIDGE = 0.02
WEIGHT = {True: 1.5, False: 1.0}


@dataclass(frozen=True, slots=True)
class Seen:
    """A question beside an edit, as serving sees it, and whether it asks the same."""

    figures: Figures
    same: bool
    weight: float


def fit_weights(encoder: Encoder, scorer: PairScorer, pairs: Path, out: Path) -> None:
    """Writes the weights of every case as JSON."""
    rng = random.Random(0)
    written = [item for item in read_items(pairs) if held_out(item)]
    shipped = [plain(each) for each in load_bank()]
    background = encoder.vectors(shipped)
    served = _Served(encoder, scorer, background)
    bank = _bank_items(rng)
    usual = [item for field in FIELDS for item in read_items(pairs, field)]
    asked = list(dict.fromkeys(text for item in usual for text in (*item.same, *item.other)))
    traffic = encoder.vectors(asked)
    known = {item.same[0] for item in usual}
    seen = [*served.of(written, 1.0, rng), *served.of(bank, 0.7, rng)]
    within = _Served(encoder, scorer, torch.cat([background, traffic]), [*shipped, *asked])
    seen += [*within.of([item for item in written if item.same[0] in known], 1.0, rng), *within.of(bank, 0.7, rng)]
    cases: dict[str, list[Seen]] = defaultdict(list)
    for each in seen:
        cases[each.figures.case].append(each)
    weights = {case: [round(value, 4) for value in _logistic(those)] for case, those in sorted(cases.items())}
    out.write_text(json.dumps(weights, indent=1), encoding="utf-8")


def _bank_items(rng: random.Random) -> list[Item]:
    """Questions of the bank about one subject and relation; others about the same subject, or of the same relation."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in load_bank():
        groups[each.relation, each.subject].append(plain(each))
    keys = sorted(key for key, texts in groups.items() if len(texts) > 2)
    found: list[Item] = []
    for relation, subject in rng.sample(keys, min(BANK_ITEMS, len(keys))):
        about = [texts[0] for key, texts in groups.items() if key[1] == subject and key[0] != relation]
        alike = [rng.choice(texts) for key, texts in groups.items() if key[0] == relation and key[1] != subject]
        other = (*rng.sample(alike, min(4, len(alike))), *rng.sample(about, min(4, len(about))))
        found.append(Item(tuple(groups[relation, subject][:6]), other))
    return found


class _Served:
    """Makes of items what serving would see of them."""

    def __init__(self, encoder: Encoder, scorer: PairScorer, background: Tensor, usual: Sequence[str] = ()) -> None:
        """`usual` are the texts of the background where they are a namespace's traffic."""
        self._encoder, self._scorer, self._closed = encoder, scorer, load_closed_words()
        self._background, self._usual = background, usual

    def of(self, items: Sequence[Item], weight: float, rng: random.Random) -> Iterator[Seen]:
        asks = [item.same[0] for item in items]
        vectors = self._encoder.vectors(asks)
        for at, item in enumerate(items):
            near = (vectors @ vectors[at]).index_fill(0, torch.tensor(at), -1.0).topk(min(ALIKE, len(asks) - 1)).indices
            yield from self._of(item, [asks[other] for other in near.tolist()], weight, rng)

    def _of(self, item: Item, strange: Sequence[str], weight: float, rng: random.Random) -> Iterator[Seen]:
        names = names_in(item.same[0], self._closed)
        keys = self._encoder.encode([*item.same, *item.other])
        place = {text.text: at for at, text in enumerate(keys)}
        stacked = torch.stack([key.vector for key in keys])
        others = (self._background @ stacked.T).amax(1) < 1 - 1e-4  # the item's own texts may be part of it
        if self._usual:
            near = (self._background @ stacked[0]).masked_fill(~others, -1.0).topk(USUAL).indices
            strange = [*strange, *(self._usual[at] for at in near.tolist())]
        asked = {each.text: each for each in self._encoder.encode([*item.same[1:], *item.other, *strange])}
        logits = {text: self._scorer.score(each, keys) for text, each in asked.items()}
        beside = {text: self._contrast(each, others) for text, each in asked.items()}
        for paraphrases, counters in GIVEN:
            same, other = list(item.same[1:]), list(item.other)
            rng.shuffle(same)
            rng.shuffle(other)
            own = [place[text] for text in (item.same[0], *same[:paraphrases])]
            against = [place[text] for text in other[:counters]]
            questions = [(text, True) for text in same[paraphrases:]]
            questions += [(text, False) for text in (*other[counters:], *strange)]
            for text, is_same in questions:
                cosines, logit = stacked @ asked[text].vector, logits[text]
                unnamed = bool(names) and not any(says(words_of(text), span) for span in names)
                figures = Figures.of(logit[own], cosines[own], logit[against], cosines[against], beside[text], unnamed)
                yield Seen(figures, is_same, weight * WEIGHT[is_same])

    def _contrast(self, question: Encoded, others: Tensor) -> Contrast:
        near = self._background @ question.vector
        near = near[(near < SAME) & others]
        return Contrast(float(near.topk(NEAREST).values.mean()), bool(self._usual))


def _logistic(seen: Sequence[Seen]) -> list[float]:
    """Weights in the order of `Figures.values`, then the constant, of figures as they are; with a ridge on what they
    weigh when standardised."""
    values = torch.tensor([each.figures.values() for each in seen], dtype=torch.float64)
    wanted = torch.tensor([float(each.same) for each in seen], dtype=torch.float64)
    importance = torch.tensor([each.weight for each in seen], dtype=torch.float64)
    mean, spread = values.mean(0), values.std(0)
    spread = torch.where(spread < 1e-6, torch.ones_like(spread), spread)
    scaled = (values - mean) / spread
    weights = torch.zeros(len(NAMES) + len(FAR) + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        logits = scaled @ weights[:-1] + weights[-1]
        loss = binary_cross_entropy_with_logits(logits, wanted, importance) + RIDGE * weights[:-1].pow(2).mean()
        torch.autograd.backward(loss)
        return loss.item()

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    found = weights.detach()
    plain_weights = found[:-1] / spread
    return [*plain_weights.tolist(), float(found[-1] - (plain_weights * mean).sum())]
