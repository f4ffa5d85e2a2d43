"""Which of many live edits a prompt asks for: who it is about, read from its words, and what is asked, from its key.

A prompt is in an edit's scope where it mentions the edit's subject (`scope`) and its key (`what`) lies within a radius
of one of the edit's own: its prompt's, its paraphrases', and its prompt's after other sentences. Each edit has its own
radius: other questions about its subject, made from generic ones, must lie outside. Knows nothing of what an edit then
does.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.editors.base import AskedBeside, Decision, FitRequest, Progress, PromptView
from app.editors.codebook import Codebook
from app.editors.frames import framed
from app.editors.mentions import MentionIndex
from app.editors.said import OUTSIDE, PARTLY, Asked, Said, asked_of, said_in, said_of
from app.editors.scope import Who, surface, who_of, words_of
from app.editors.tail import alike_first
from app.editors.what import What
from app.editors.wording import Lexicon

SHORTLIST = 8
"""Nearest keys by matrix product whose distance is then computed exactly: the product form loses digits."""
WITHIN = 0.97
"""Of the way to the next other question: generic ones are not all that may be asked."""
READ = 256
"""Edits of a subject whose words are read, the nearest: of thousands about one subject the others go by distance."""
READ_WORDS = 16_384
"""Words that are read for one decision at most, over all the subjects that a prompt mentions: a long text that names
hundreds would hold up everyone."""
MAY_ASK_THE_SAME, MAY_IN_ITS_FRAME = 18, 12
"""Of the generic questions about an edit's subject: so many may ask what it asks in other words, or nearly; fewer in a
frame that is not the bank's, where all stand in it."""
HALF_WAY = 0.5
"""To the next question, where they all lie near one another; and half of that where nobody is named."""
DEEPEST = 99.0
"""Radii that are told of a prompt that lies farther: of a radius of nothing it may be any number."""
CLOSE = 0.25
"""Of the radius: a context no farther from a key than this needs none of its own."""


class Scoped(BaseModel):
    """What a stored edit must have learned of its scope. It is read from a log that others may write to."""

    model_config = ConfigDict(strict=True, frozen=True)

    reach: float = Field(ge=0, allow_inf_nan=False)
    bound: float = Field(ge=0, le=1)
    who: list[list[list[str]]]
    target_ids: list[int]
    widened: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How much farther than learned it was told to reach."""
    cap: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Half the way to the nearest counter-example, or nearly to another question that is asked: no farther, whatever it
    was told."""
    named: bool = True
    wordings: list[str] = []
    unlike: list[str] = []
    relations: list[str] = []
    wholes: list[str] = []

    @property
    def radius(self) -> float:
        reach = self.reach * self.widened
        return reach if self.cap is None else min(reach, self.cap)


@dataclass(frozen=True, slots=True)
class ScopePart:
    """What an edition sees of the index: live rows -> effective radius and place in its age, oldest first.

    `nameless` are the rows that are found by key alone, `first_keys` (N,) where the first key of each stands.
    """

    radii: Mapping[int, float]
    places: Mapping[int, int]
    nameless: Sequence[int]
    first_keys: Tensor


class ScopeIndex:
    """Keys as `what` makes them, several an edit."""

    def __init__(self, what: What, lexicon: Lexicon, device: torch.device) -> None:
        self._what, self._lexicon, self._device = what, lexicon, device
        self.comparing, self.calibrating = what.comparing, what.calibrating
        self._book = Codebook(device)
        self._said: dict[int, Said] = {}
        self._index = MentionIndex()

    @property
    def held_bytes(self) -> int:
        return self._book.held_bytes

    @property
    def width(self) -> int:
        """Of a key."""
        return self._what.width

    # -- learning

    def learn(self, request: FitRequest) -> tuple[dict[str, Any], Tensor]:
        """The scalars of an edit's scope, and its keys (K, width)."""
        steps = self.learning(request, Progress(step=0, steps=0, loss=float("nan")))
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                learned: tuple[dict[str, Any], Tensor] = stop.value
                return learned

    def learning(self, request: FitRequest, told: Progress) -> Generator[Progress, None, tuple[dict[str, Any], Tensor]]:
        """The same, in micro-steps; `told` is how far the fit has come that it ends."""
        yield from self.calibrating()
        who = who_of(request.texts, request.subject, request.aliases, self._lexicon.template_words)
        words = said_of(request.texts, request.made_texts, request.counter_examples, who, self._lexicon)
        asked = self._asking_otherwise(request.asked, said_in(who, words))
        mine = {*request.contexts, *request.made_contexts}  # a generic question may be the edit's own, word for word
        others = [each for each in request.nearby_contexts if each not in mine]
        groups = (
            *(request.contexts, request.made_contexts, others, request.counter_contexts),
            [each.ids for each in asked],
        )
        contexts = [context for group in groups for context in group]
        order = alike_first(contexts)
        parts: list[Tensor] = []
        for part in self._what.parts_of([contexts[at] for at in order]):
            parts.append(part)
            yield told
        found = torch.empty(len(contexts), self.width, device=self._device)
        found[order] = torch.cat(parts)
        own, made, nearby, counter, beside = torch.split(found, [len(group) for group in groups])
        own = torch.cat([own, self._telling(made, own, nearby)])
        reach = self._reach(own, nearby, _may_ask_the_same(request, who), named=who.named)
        near = zip(request.counter_examples, _nearest(counter, own).tolist(), strict=True)
        caps = [0.5 * distance for text, distance in near if who.share(words_of(text)) >= who.bound]
        # nearer than that the model takes it for the same question: verification tells
        same = min(reach, self._what.radius)
        caps += [WITHIN * apart for apart in _nearest(beside, own).tolist() if apart > same]
        caps += [] if request.cap is None else [request.cap]
        learned = {
            "reach": reach,
            "cap": min(caps, default=None),
            "who": [[list(span) for span in spans] for spans in who.alternatives],
            "bound": who.bound,
            "named": who.named,
            **words,
            "target_ids": list(request.target_ids),
        }
        return learned, _covering(own, CLOSE * min([reach, *caps]))

    def _asking_otherwise(self, asked: Sequence[AskedBeside], said: Said) -> list[AskedBeside]:
        """Those about the edit's subject whose words ask for something else: of a probe any that do not suffice, of a
        recent prompt only those that are known to, for whoever made the edit may have asked it."""
        return [
            each
            for each in asked
            if said.who.share(words_of(each.text)) >= said.who.bound
            and said.alike(asked_of(each.text, said.who), self._lexicon) < (said.bound if each.probe else 0.0)
        ]

    def _telling(self, made: Tensor, own: Tensor, nearby: Tensor) -> Tensor:
        """Those of the made paraphrases that the model tells from other questions about the subject, as it tells the
        edit's own: what it takes for the same as one of them stands for too much."""
        others = nearby[_nearest(nearby, own) > self._what.radius]
        kept = [key for key in made if not len(others) or float(_nearest(others, key[None]).min()) > self._what.radius]
        return torch.stack(kept) if kept else made[:0]

    def _reach(self, own: Tensor, nearby: Tensor, may: int, *, named: bool = True) -> float:
        """As far as the next generic question that asks something else. Without any, the default radius.

        Of those that are about the subject so many `may` lie within the default radius; none of those about others.
        Where more do, keys do not tell what is asked, and words decide: the radius ends well before all of them.
        """
        apart, default = _nearest(nearby, own).sort().values, self._what.radius
        within = int((apart <= default).sum())
        if within > may:
            return (HALF_WAY if may and named else HALF_WAY / 2) * float(apart[0])
        return max(default, WITHIN * float(apart[within])) if may and within < len(apart) else default

    @staticmethod
    def read(edit_id: str, learned: Mapping[str, Any]) -> Scoped:
        """Raises IncompatibleEdit for scalars that cannot be read."""
        try:
            return Scoped.model_validate({name: learned[name] for name in Scoped.model_fields if name in learned})
        except ValidationError as error:
            raise IncompatibleEdit(f"What the edit {edit_id} learned cannot be read: {error}") from error

    # -- rows

    def load(self, edit_id: str, scoped: Scoped, keys: Tensor | None) -> None:
        """Raises IncompatibleEdit for keys of another width."""
        if keys is None or keys.ndim != 2 or not len(keys) or keys.shape[1] != self._what.width:
            raise IncompatibleEdit(f"The edit {edit_id} has no keys of this model's width, {self._what.width}.")
        target = tuple(scoped.target_ids)
        alternatives = tuple(tuple(tuple(span) for span in spans) for spans in scoped.who)
        who = Who(alternatives, bound=scoped.bound, named=scoped.named)
        rivals = [row for row in self._index.overlapping(who) if self._book.target(row) != target]
        row = self._book.add(
            edit_id,
            keys=keys.float().to(self._device),
            radius=scoped.radius,
            target=target,
            rivals=rivals,
        )
        self._index.add(row, who)
        self._said[row] = said_in(who, vars(scoped))

    def drop(self, edit_id: str) -> None:
        row = self._book.remove(edit_id)
        self._index.remove(row)
        del self._said[row]

    def target(self, edit_id: str) -> tuple[int, ...]:
        return self._book.target(self._book.row(edit_id))

    def compile(self, edit_ids: Sequence[str]) -> ScopePart:
        rows = [self._book.row(edit_id) for edit_id in edit_ids]
        radii = self._book.radii(rows)
        places = {row: place for place, row in enumerate(rows)}
        nameless = [row for row in self._index.nameless if row in radii]
        return ScopePart(radii, places, nameless, self._book.first_keys(nameless))

    def compile_after(self, part: ScopePart, added: Sequence[str], removed: Sequence[str]) -> ScopePart:
        """What `compile` makes of the edits of a part, less some, and then others that are newer than all of them."""
        new, gone = ([self._book.row(edit_id) for edit_id in ids] for ids in (added, removed))
        places = dict(part.places)
        for row in gone:
            del places[row]
        newest = next(reversed(places.values()), -1)
        places.update((row, newest + 1 + at) for at, row in enumerate(new))
        radii = self._book.radii_after(part.radii, places, new, gone)
        nameless = [row for row in self._index.nameless if row in radii]
        return ScopePart(radii, places, nameless, self._book.first_keys(nameless))

    def near(self, request: FitRequest) -> list[str]:
        """Edits whose subject may be meant where the request's is."""
        who = who_of(request.texts, request.subject, request.aliases, self._lexicon.template_words)
        return [self._book.edit_id(row) for row in sorted(self._index.overlapping(who))]

    def decide(self, prompt: PromptView, part: ScopePart, editor: str) -> Decision | None:
        """The live edit, of those whose subject is mentioned, in whose radius the prompt lies deepest."""
        found = self.nearest(prompt, part, editor)
        return found if found is not None and found.margin >= 0 else None

    def continued(self, prompt: PromptView, part: ScopePart, editor: str) -> Decision | None:
        """The live edit whose target the prompt has begun to answer with, in its own tokens, after a question that is
        the edit's by its words; `part` is how many. The newest, if there are several."""
        mentioned = self._index.mentioned(words_of(prompt.text))
        for row in sorted((row for row in mentioned if row in part.radii), key=lambda row: -part.places[row]):
            target = self._book.target(row)
            said = _begun(prompt.ids, target)
            if not said:
                continue
            asked = asked_of(prompt.without_last(said), self._said[row].who)
            alike = self._said[row].alike(asked, self._lexicon)
            if alike >= self._said[row].bound:
                signals = {
                    "wording": Signal(alike, self._said[row].bound),
                    "subject": Signal(mentioned[row], self._index.bound(row)),
                    "answer_begun": Signal(said, 1),
                }
                return Decision(edit_id=self._book.edit_id(row), editor=editor, margin=0.0, signals=signals, part=said)
        return None

    def nearest(self, prompt: PromptView, part: ScopePart, editor: str) -> Decision | None:
        """The same, or, where the prompt lies in no radius, the edit it lies nearest to. Of equally deep ones, the
        newest."""
        if not part.radii:
            return None
        words = words_of(prompt.text)
        shares = self._index.mentioned(words, PARTLY)
        rows = [row for row in shares if row in part.radii]
        if not rows and not part.nameless:
            return None
        query = self._what.key(prompt.state[None], prompt.logits[None])[0]
        rows.extend(self._book.shortlist(query, part.nameless, part.first_keys, SHORTLIST))
        distances = dict(zip(rows, self._book.distances(query, rows), strict=True))
        most = min(READ, max(SHORTLIST, READ_WORDS // (1 + len(words))))
        read = self._read(prompt.text, sorted(rows, key=distances.__getitem__)[:most])
        near = {
            row: self._said[row].near(
                read.get(row),
                distances[row],
                part.radii[row],
                shares.get(row, 1.0),
                self._lexicon,
                self._book.radius(row),
            )
            for row in rows
        }
        depth = {row: each.depth for row, each in near.items()}
        for row in self._overshadowed(rows, words):
            depth[row] += 0 if near[row].alike >= self._said[row].bound else OUTSIDE
        # rounded: two edits of one prompt differ by rounding only, and then the newest is to win
        row = min(depth, key=lambda row: (round(depth[row], 4), -part.places[row]))
        signals = {
            "distance": Signal(distances[row], part.radii[row]),
            "wording": Signal(near[row].alike, self._said[row].bound),
            "subject": Signal(shares.get(row, 1.0), self._index.bound(row)),
            "depth": Signal(min(depth[row], DEEPEST), 1.0),  # what decides: the others, taken together
        }
        return Decision(edit_id=self._book.edit_id(row), editor=editor, margin=1 - depth[row], signals=signals)

    def _overshadowed(self, rows: Sequence[int], words: Sequence[str]) -> set[int]:
        """Rows whose name stands only inside the longer names of others, as Helsinki in the University of Helsinki, and
        whose own prompts do not say the longer name too: they answer only where their words suffice."""
        inside = self._index.inside_longer_names(rows, words)
        return {row for row, beyond in inside.items() if not self._said[row].told(beyond)}

    def _read(self, text: str, rows: Sequence[int]) -> dict[int, Asked]:
        """What the text asks of each row's subject; it is read once for each subject."""
        asked = {who: asked_of(text, who) for who in {self._said[row].who for row in rows}}
        return {row: asked[self._said[row].who] for row in rows}


def _may_ask_the_same(request: FitRequest, who: Who) -> int:
    """How many of the other questions; none where they are about others, for then it says no words that they could."""
    if not who.alternatives or not (who.named or surface(request.texts[0], who)):
        return 0
    return MAY_IN_ITS_FRAME if framed(request.texts[0]).unlike_bank else MAY_ASK_THE_SAME


def _begun(ids: Sequence[int], target: Sequence[int]) -> int:
    """How many of a target's tokens, at most all but the last, the ids end with."""
    ends = (n for n in range(min(len(target) - 1, len(ids)), 0, -1) if target[n - 1] == ids[-1])
    return next((n for n in ends if tuple(ids[-n:]) == tuple(target[:n])), 0)


def _nearest(keys: Tensor, own: Tensor) -> Tensor:
    """(N, D), (K, D) -> (N,): how far each lies from the nearest of an edit's own, by differences."""
    if not len(keys):
        return torch.zeros(0)
    return torch.stack([(keys - each).norm(dim=-1) for each in own]).amin(0)


def _covering(own: Tensor, close: float) -> Tensor:
    """The first, and of the others so many that none lies farther than `close` from one that is kept."""
    kept = [0]
    while (farthest := _nearest(own, own[kept])).max().item() > close and len(kept) < len(own):
        kept.append(int(farthest.argmax()))
    return own[kept].cpu()
