"""A small engine around a tiny random model, driven step by step on the test's own thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from app.domain.errors import ErrataError
from app.domain.generation import Generation, GenerationParameters, Token
from app.domain.scope import ScopeRequest
from app.editors.base import Editor, FitRequest, Fitted
from app.editors.fitting.corpus import Corpus, Statistics
from app.editors.fitting.foundation import Foundation
from app.editors.fitting.hooks import SiteHooks
from app.editors.grace.paper import GraceOptions
from app.editors.patcher.paper import PatcherOptions
from app.editors.registry import make_editors
from app.engine.editions import Edition
from app.engine.engine import Engine
from app.engine.fits import RunningFit
from app.engine.graphs import Record
from app.engine.model import HostedModel
from app.scope.background import Background
from app.scope.closed_words import load_closed_words
from app.scope.encoded_keys import EncodedKeys
from app.scope.encoder import Encoder
from app.scope.index import ScopeIndex
from app.scope.models import ScopeModels, load_models
from app.scope.vectors import Vectors
from tests.models import tiny

CORPUS = [
    f"The {a} of the {b} {c} {d}."
    for a in ("colour", "price", "end")
    for b in ("river", "old book", "ship")
    for c in ("is", "was never", "may be")
    for d in ("blue", "42", "known to all", "Quite Unlike Any Other")
]
NOTHING = Edition("default", 0, ())


@cache
def shipped_models() -> ScopeModels:
    """Read once for all tests of a process."""
    return load_models()


def an_encoder() -> Encoder:
    return shipped_models().encoder


def a_scope(shipped: Sequence[str] = ()) -> ScopeIndex:
    """A scope index whose background is what the test names. The bank that ships, as a server has it, is left out: each
    process would first encode its 1,776 questions, and the bounds of a test's edits would change with them.
    `scope/test_served.py` has the bank, the processes of `tests/server.py` have all that a server has, and
    `scope/test_scope_learner.py` holds the calibration, with backgrounds of a few questions."""
    models, closed = shipped_models(), load_closed_words()
    vectors, decider = Vectors(models.encoder), models.decider(EncodedKeys(models.encoder), closed)
    return ScopeIndex(models.encoder, decider, closed, vectors, Background(vectors, shipped))


@dataclass
class Outcome:
    """The items that a request emitted, in order."""

    items: list[Any] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return [item.id for item in self.items if isinstance(item, Token)]

    @property
    def logprobs(self) -> list[float]:
        return [item.logprob for item in self.items if isinstance(item, Token)]

    @property
    def end(self) -> Any:
        assert not isinstance(self.items[-1], Token), "no terminal event"
        assert sum(not isinstance(item, Token) for item in self.items) == 1, "more than one terminal event"
        return self.items[-1]

    @property
    def generation(self) -> Generation:
        assert isinstance(self.end, Generation), self.end
        return self.end


class Rig:
    """Engine, editors and hooks over one model."""

    def __init__(
        self,
        kind: str = "llama",
        *,
        hosted: HostedModel | None = None,
        slots: int = 4,
        chunk_tokens: int = 256,
        batch_tokens: int = 2048,
        queue_limit: int = 1024,
        room_tokens: int | None = None,
        grace_options: GraceOptions = GraceOptions(),  # noqa: B008
        record: Record | None = None,
    ) -> None:
        self.hosted = hosted or tiny(kind)
        self.hooks = SiteHooks(self.hosted.model)
        documents = [self.hosted.tokenizer(text).input_ids for text in CORPUS]
        self.foundation = foundation = Foundation(
            model=self.hosted.model,
            architecture=self.hosted.architecture,
            hooks=self.hooks,
            site_layer=None,
            options={"grace/paper": grace_options, "patcher/paper": PatcherOptions(max_steps=500)},
            statistics=Statistics(self.hosted.model, self.hooks, Corpus(name="rig", documents=lambda: documents)),
        )
        self.editors: dict[str, Editor] = make_editors(foundation)
        self.engine = Engine(
            self.hosted,
            self.hooks,
            self.editors,
            slots=slots,
            chunk_tokens=chunk_tokens,
            batch_tokens=batch_tokens,
            queue_limit=queue_limit,
            room_tokens=room_tokens,
            fit_share=0.5,
            record=record,
            scope=a_scope(),
        )

    def add(
        self, prompt: str, edition: Edition = NOTHING, count: int = 8, began: float | None = None, **parameters: Any
    ) -> Outcome:
        outcome = Outcome()
        settings = GenerationParameters(max_new_tokens=count, **parameters)
        self.engine.add(prompt, settings, edition, edition.revision, outcome.items.append, began=began)
        return outcome

    def run(self) -> None:
        while not self.engine.idle:
            self.engine.step()

    def ask(
        self, prompts: Sequence[str], edition: Edition = NOTHING, count: int = 8, **parameters: Any
    ) -> list[Outcome]:
        """All at once, in one batch as far as slots allow."""
        outcomes = [self.add(prompt, edition, count, **parameters) for prompt in prompts]
        self.run()
        return outcomes

    def fit_request(self, prompt: str, target: str, *paraphrases: str, **more: Any) -> FitRequest:
        text = self.engine.text
        return FitRequest(
            scope=ScopeRequest(keys=(text.turns(prompt),), subject=more.get("subject")),
            contexts=tuple(map(text.encode, (prompt, *paraphrases))),
            given=len(paraphrases),
            counter_contexts=(),
            target_ids=text.encode_target(prompt, target),
            subject=more.get("subject") or self.engine.scope.name_in(text.turns(prompt)),
            seed=0,
            context_texts=(prompt, *paraphrases),
            ends=tuple(map(text.ends, (prompt, *paraphrases))),
        )

    def fit(self, editor: str, requests: Sequence[FitRequest], beside: Edition = NOTHING) -> list[Fitted]:
        found: list[Any] = []
        self.engine.add_fit(RunningFit(self.engine.fit(editor, requests, beside), found.append))
        self.run()
        if isinstance(found[0], BaseException):
            raise found[0]
        return [self.engine.with_scope(editor, *each) for each in zip(found[0], requests, strict=True)]

    def load(self, editor: str, edit_id: str, fitted: Fitted) -> None:
        self.engine.load(edit_id, editor, fitted)

    def learn(self, editor: str, edits: Sequence[tuple[str, str, str]]) -> None:
        """(id, prompt, target) each, fitted as one batch and loaded."""
        fitted = self.fit(editor, [self.fit_request(prompt, target) for _, prompt, target in edits])
        for (edit_id, *_), each in zip(edits, fitted, strict=True):
            self.load(editor, edit_id, each)


def without_cache(hosted: HostedModel, prompt: str, count: int) -> list[int]:
    """The reference: no cache, no batch, no hooks; the whole sequence again for every token."""
    ids = list(hosted.tokenizer(prompt).input_ids)
    start = len(ids)
    while len(ids) - start < count:
        with torch.inference_mode():
            logits = hosted.model(
                input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), use_cache=False
            ).logits
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] in hosted.eos_ids:
            break
    return ids[start:]


Emit = Callable[[Token | Generation | ErrataError], None]
