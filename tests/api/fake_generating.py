"""The generating half of the service without a model: answers that are looked up, word by word."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from app.domain.errors import RequestCancelled
from app.domain.generation import Generation, GenerationParameters, Hit, Signal, Token
from app.service.feedback import Feedback
from app.service.records import Records
from app.store.memory import MemoryLog
from tests.api.fake_answering import ranked

NEAREST = Hit("ed_near", "grace", {"depth": Signal(1.5, 1.0)})
NOW_S = 1_700_000_000.0
UNCERTAIN = "perhaps"
"""A prompt whose scope is uncertain begins with this."""


class FakeLikeness:
    """Questions are as alike as the words that they share, of all that they say."""

    def vector(self, prompt: str) -> frozenset[str]:
        return frozenset(re.findall(r"\w+", prompt.casefold()))

    def nearest(self, vector: frozenset[str], others: Sequence[frozenset[str]]) -> tuple[int, float]:
        alike = [len(vector & other) / max(1, len(vector | other)) for other in others]
        return max(enumerate(alike), key=lambda each: each[1])


class FakeGenerating:
    """`fails` is raised by the next use case; `slow_s` passes before each token; `breaks_after` tokens it fails."""

    def __init__(self) -> None:
        self.records = Records(MemoryLog(), clock=lambda: NOW_S)
        self.now_s = NOW_S
        self.feedback = Feedback(10, FakeLikeness(), lambda: self.now_s)
        self.cancelled = 0
        self.fails: Exception | None = None
        self.breaks_after: tuple[int, Exception] | None = None
        self.slow_s = 0.0
        self.logprob = -0.5
        self.why_not: str | None = None
        self.asked: list[GenerationParameters] = []
        self.canned: dict[str, str] = {}
        self.says: str | None = None
        """The answer that is given in an edit's scope in place of its target."""

    @property
    def revision(self) -> int:
        return self.records.revision

    async def generate_all(
        self, prompts: Sequence[str], parameters: GenerationParameters, n: int = 1
    ) -> list[Generation]:
        async with aclosing(self.stream(prompts, parameters, n)) as items:  # type: ignore[type-var]
            return [item async for _, item in items if isinstance(item, Generation)]

    async def stream(
        self, prompts: Sequence[str], parameters: GenerationParameters, n: int = 1
    ) -> AsyncIterator[tuple[int, Token | Generation]]:
        for at, prompt in enumerate(each for each in prompts for _ in range(n)):
            async with aclosing(self._stream(prompt, parameters)) as items:  # type: ignore[type-var]
                async for item in items:
                    if isinstance(item, Generation):
                        self.feedback.remember(prompt, at, parameters, item)
                    yield at, item

    async def _stream(self, prompt: str, parameters: GenerationParameters) -> AsyncIterator[Token | Generation]:
        self._fail()
        self.asked.append(parameters)
        text, hits = self._answer(prompt, parameters)
        missed: tuple[Hit, ...] = ()
        if hits and self.says is not None:
            text, hits, missed = self.says, (), hits
            self.records.hits.count_not_given(hit.edit_id for hit in missed)
        elif parameters.counted:
            self.records.count_hits([hit.edit_id for hit in hits], NOW_S)
        words = re.findall(r"\s*\S+", text)[: parameters.max_new_tokens]
        begins = [sum(map(len, words[:i])) for i in range(len(words))]
        tokens = [
            Token(i, word, -0.5, False, begins=at, own=word, ranked=ranked(i, word, parameters, self.logprob))
            for i, (word, at) in enumerate(zip(words, begins, strict=True))
        ]
        ended = len(tokens) < parameters.max_new_tokens
        if ended:
            tokens.append(Token(99, "", -0.1, True, ends=True, ranked=ranked(99, "<|endoftext|>", parameters)))
        done = False
        try:
            for i, token in enumerate(tokens):
                await asyncio.sleep(self.slow_s)
                if self.breaks_after is not None and i == self.breaks_after[0]:
                    raise self.breaks_after[1]
                yield token
            done = True
            yield Generation(
                text="".join(words),
                finish_reason="eos_token" if ended else "length",
                prompt_tokens=len(prompt.split()),
                tokens=tuple(tokens),
                seed=parameters.seed,
                revision=self.revision if parameters.revision is None else parameters.revision,
                hits=hits,
                not_given=missed,
                nearest=NEAREST if parameters.explain and not hits and not missed else None,
                uncertain=prompt.startswith(UNCERTAIN),
            )
        finally:
            if not done:
                self.cancelled += 1

    def _answer(self, prompt: str, parameters: GenerationParameters) -> tuple[str, tuple[Hit, ...]]:
        if parameters.edits == "live":
            for edit in reversed(self.records.ledger.live(parameters.namespace, parameters.revision)):
                if edit.request.prompt == prompt and edit.id not in parameters.exclude:
                    return edit.request.target, (
                        Hit(edit.id, "grace", {"same": Signal(0.9, 0.5)}, "nearest to its prompt"),
                    )
        return self.canned.get(prompt, "base answer here"), ()

    def _fail(self) -> None:
        if self.why_not is not None:
            raise RequestCancelled(f"The server is {self.why_not}: ask again later.", retry_after_s=1)
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error
