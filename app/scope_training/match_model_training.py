"""Fits the weights of `match_model` on items that the pair scorer has not seen; `python -m app.scope_training` calls
it last.

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
from torch.nn.functional import binary_cross_entropy_with_logits

from app.domain.words import says, words_of
from app.scope.background import CompiledBackground
from app.scope.bank import load_bank, plain
from app.scope.closed_words import load_closed_words
from app.scope.encoder import Encoder
from app.scope.match_model import ENCODER, MatchFeatures
from app.scope.parsed_question import names_in
from app.scope.scorer import PairScorer
from app.scope_training.items import Item, held_out, read_intents, read_items

GIVEN = ((0, 0), (3, 3), (3, 0), (0, 3), (2, 2), (4, 0), (9, 0))
"""The numbers of paraphrases and counter-examples of an item's edit, in turn, as far as the item has them."""
BROAD = 3
"""The number of paraphrases from which on they show how broad an edit is."""
NEIGHBOURS = 14
"""The number of nearest utterances of other intents that are asked beside an intent's own."""
FIELDS = ("service", "utterances", "it", "work", "products", "life", "help")
"""The files of pairs whose texts serve as a namespace's traffic; all, in a folder that has none of these."""
MOST_TRAFFIC = 4_000
"""The most of their texts that a namespace keeps."""
ALIKE, USUAL = 8, 12
"""The numbers of nearest questions about others that are asked beside an item's own, without and with traffic."""
WRITTEN_ITEMS, BANK_ITEMS = 160, 60
POOL, STRANGERS = 400, 6
"""A namespace asks each of its edits about everything. So each item is also asked the questions that the pair scorer
takes most for its own among so many that have nothing to do with it."""
UNRELATED = 0.5
"""The cosine below which a question of another item certainly asks something else."""
RIDGE = 0.02
WEIGHT = {True: 1.5, False: 1.0}


@dataclass(frozen=True, slots=True)
class LabelledMatch:
    """The features of a question beside an edit, as serving computes them, and whether it asks the same."""

    figures: MatchFeatures
    same: bool
    weight: float


def fit_weights(encoder: Encoder, scorer: PairScorer, pairs: Path, out: Path) -> None:
    """Write the weights of every case, and the fingerprint of the encoder, as JSON."""
    rng = random.Random(0)
    written = [item for item in read_items(pairs) if held_out(item)]
    written = rng.sample(written, min(WRITTEN_ITEMS, len(written)))
    in_fields = [item for field in FIELDS for item in read_items(pairs, field)] or read_items(pairs)
    known = {item.same[0] for item in in_fields}
    broad = [*_intent_items(encoder, read_intents(pairs))]
    bank = _bank_items(rng)
    shipped = [plain(each) for each in load_bank()]
    quiet = _usual(encoder, shipped)
    texts = [text for item in in_fields for text in (*item.same, *item.other)]
    busy = _usual(encoder, shipped, rng.sample(texts, min(MOST_TRAFFIC, len(texts))))
    helped = _usual(encoder, shipped, [text for item in broad for text in item.same])
    asks = sorted({item.same[0] for item in read_items(pairs)} | {plain(each) for each in load_bank()})
    served = _Served(encoder, scorer, rng.sample(asks, min(POOL, len(asks))))
    seen = [
        *served.of([item for item in written if item.same[0] in known], [quiet, busy], 1.0, rng),
        *served.of([item for item in written if item.same[0] not in known], [quiet], 1.0, rng),
        *served.of(bank, [quiet, busy], 0.7, rng),
        *served.of(broad, [helped], 1.0, rng),
        *served.of(broad[::2], [quiet], 1.0, rng, least=BROAD),
    ]
    cases: dict[str, list[LabelledMatch]] = defaultdict(list)
    for each in seen:
        cases[each.figures.case].append(each)
    weights = {case: [round(value, 4) for value in logistic_weights(those)] for case, those in sorted(cases.items())}
    out.write_text(json.dumps({ENCODER: encoder.fingerprint, **weights}, indent=1), encoding="utf-8")


def _usual(encoder: Encoder, shipped: Sequence[str], traffic: Sequence[str] = ()) -> CompiledBackground:
    texts = tuple(dict.fromkeys((*shipped, *traffic)))
    return CompiledBackground(texts, encoder.vectors(texts), bool(traffic))


def _bank_items(rng: random.Random) -> list[Item]:
    """Items from the bank: questions about one subject and relation, beside others about the same subject or
    relation."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in load_bank():
        groups[each.relation, each.subject].append(plain(each))
    keys = sorted(key for key, texts in groups.items() if len(texts) > 2)
    items: list[Item] = []
    for relation, subject in rng.sample(keys, min(BANK_ITEMS, len(keys))):
        about = [texts[0] for key, texts in groups.items() if key[1] == subject and key[0] != relation]
        alike = [rng.choice(texts) for key, texts in groups.items() if key[0] == relation and key[1] != subject]
        other = (*rng.sample(alike, min(4, len(alike))), *rng.sample(about, min(4, len(about))))
        items.append(Item(tuple(groups[relation, subject][:6]), other))
    return items


def _intent_items(encoder: Encoder, intents: Sequence[tuple[str, tuple[str, ...]]]) -> Iterator[Item]:
    """Items from intents: an intent's utterances, beside the nearest of other intents in its field."""
    vectors = {texts: encoder.vectors(texts) for _, texts in intents}
    for field, texts in intents:
        others = [each for near, each in intents if near == field and each != texts]
        far = (torch.cat([vectors[each] for each in others]) @ vectors[texts].T).amax(1)
        utterances = [text for each in others for text in each]
        yield Item(texts, tuple(utterances[at] for at in far.topk(min(NEIGHBOURS, len(utterances))).indices.tolist()))


class _Served:
    """Computes from items the features that serving would see."""

    def __init__(self, encoder: Encoder, scorer: PairScorer, pool: Sequence[str]) -> None:
        """`pool` holds questions about everything."""
        self._encoder, self._scorer, self._closed = encoder, scorer, load_closed_words()
        self._pool = encoder.encode(pool)

    def of(
        self,
        items: Sequence[Item],
        backgrounds: Sequence[CompiledBackground],
        weight: float,
        rng: random.Random,
        least: int = 0,
    ) -> Iterator[LabelledMatch]:
        """The labelled matches beside each of `backgrounds`, of edits with at least `least` paraphrases."""
        asks = [item.same[0] for item in items]
        vectors = self._encoder.vectors(asks)
        for at, item in enumerate(items):
            near = (vectors @ vectors[at]).index_fill(0, torch.tensor(at), -1.0).topk(min(ALIKE, len(asks) - 1)).indices
            strange = [*(asks[other] for other in near.tolist()), *self._strangers(item)]
            for each in self._of(item, strange, backgrounds, weight, rng, own_traffic=at % 2 == 0):
                if each.figures.paraphrases >= least:
                    yield each

    def _strangers(self, item: Item) -> list[str]:
        """Questions of the pool that are unrelated to an item, the likeliest for the pair scorer."""
        question = self._encoder.encode(item.same[:1])[0]
        others = [each for each in self._pool if float(each.vector @ question.vector) < UNRELATED]
        logits = self._scorer.score(question, others)
        return [others[at].text for at in logits.topk(min(STRANGERS, len(others))).indices.tolist()]

    def _of(
        self,
        item: Item,
        strange: Sequence[str],
        backgrounds: Sequence[CompiledBackground],
        weight: float,
        rng: random.Random,
        *,
        own_traffic: bool,
    ) -> Iterator[LabelledMatch]:
        """The labelled matches of one item. With `own_traffic` the item's own texts stay in the background, if they are
        there."""
        names = names_in(item.same[0], self._closed)
        keys = self._encoder.encode([*item.same, *item.other])
        place = {text.text: at for at, text in enumerate(keys)}
        stacked = torch.stack([key.vector for key in keys])
        table = self._scorer.table(keys, keys)
        among = table.clone().fill_diagonal_(-torch.inf)
        for background in backgrounds:
            others = (background.vectors @ stacked.T).amax(1) < 1 - 1e-4
            more = list(strange)
            if background.traffic:
                near = (background.vectors @ stacked[0]).masked_fill(~others, -1.0).topk(USUAL).indices
                more += [background.texts[at] for at in near.tolist()]
            nearby = (
                background if own_traffic else CompiledBackground((), background.vectors[others], background.traffic)
            )
            encoded = self._encoder.encode(more)
            logits = dict(zip(more, self._scorer.table(encoded, keys), strict=True))
            logits |= {text: table[at] for text, at in place.items()}
            vectors = {each.text: each.vector for each in (*keys, *encoded)}
            contrasts = {text: nearby.near(vector[None]) for text, vector in vectors.items()}
            for paraphrases, counters in GIVEN:
                if paraphrases + 2 > len(item.same):
                    continue
                same, other = list(item.same[1:]), list(item.other)
                rng.shuffle(same)
                rng.shuffle(other)
                own = [place[text] for text in (item.same[0], *same[:paraphrases])]
                against = [place[text] for text in other[:counters]]
                cohesion = float(among[own][:, own].amax(1).mean()) if len(own) > 1 else 0.0
                questions = [(text, True) for text in same[paraphrases:]]
                questions += [(text, False) for text in (*other[counters:], *more)]
                for text, is_same in questions:
                    cosines, logit = stacked @ vectors[text], logits[text]
                    figures = MatchFeatures.of(
                        logit[own],
                        cosines[own],
                        logit[against],
                        cosines[against],
                        contrast=contrasts[text].contrast(stacked[own]),
                        traffic=background.traffic,
                        cohesion=cohesion,
                        unnamed=bool(names) and not any(says(words_of(text), span) for span in names),
                    )
                    yield LabelledMatch(figures, is_same, weight * WEIGHT[is_same])


def logistic_weights(seen: Sequence[LabelledMatch]) -> list[float]:
    """The weights in the order of `MatchFeatures.values`, then the constant; figures are not standardised, but
    the ridge penalises the weights that they would have if they were."""
    values = torch.tensor([each.figures.values() for each in seen], dtype=torch.float64)
    wanted = torch.tensor([float(each.same) for each in seen], dtype=torch.float64)
    importance = torch.tensor([each.weight for each in seen], dtype=torch.float64)
    mean, spread = values.mean(0), values.std(0)
    spread = torch.where(spread < 1e-6, torch.ones_like(spread), spread)
    scaled = (values - mean) / spread
    weights = torch.zeros(values.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        logits = scaled @ weights[:-1] + weights[-1]
        loss = binary_cross_entropy_with_logits(logits, wanted, importance) + RIDGE * weights[:-1].pow(2).mean()
        torch.autograd.backward(loss)
        return loss.item()

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    learned = weights.detach()
    plain_weights = learned[:-1] / spread
    return [*plain_weights.tolist(), float(learned[-1] - (plain_weights * mean).sum())]
