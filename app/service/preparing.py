"""From what a client asked for to what an editor learns from: which editors may try, and the request in token ids."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from app.domain.edit import EditRequest
from app.domain.errors import InvalidRequest
from app.editors.base import AskedBeside, FitRequest, adaptor_key
from app.editors.nearby import Nearby
from app.editors.phrasebook import Phrasebook
from app.editors.registry import AUTO, EDITORS
from app.editors.scope import Heard, find_who, words_of
from app.engine.engine import Engine

PREFIXES = ("Here is a question. ", "Please answer this. ")
"""Put before a question while fitting, so that an edit does not lean on being the first thing said."""
ROOM_CHARS = 2 * max(map(len, PREFIXES))
MOST_BESIDE = 16
"""Prompts about its subject that an edit learns from: each is run through the model."""


@dataclass(frozen=True, slots=True, eq=False)
class Overheard:
    """A prompt that is asked in a namespace, its question, and its words."""

    prompt: str
    question: str
    heard: Heard
    probe: bool


class Preparing:
    """Tokenises exactly as requests are served. Touches the engine's text and editors, never its state."""

    def __init__(self, engine: Engine, nearby: Nearby, phrasebook: Phrasebook) -> None:
        self._engine, self._nearby, self._phrasebook = engine, nearby, phrasebook

    def editors(self, request: EditRequest) -> tuple[str, ...]:
        """The editors that may make this edit, the first to try first: for `auto` all that can hold it.

        Raises InvalidRequest, with the reason, where there is none.
        """
        known, text = self._engine.editors, self._engine.text
        if request.editor != "auto" and request.editor not in EDITORS:
            raise InvalidRequest(f"There is no editor {request.editor!r}: use auto or {', '.join(EDITORS)}.")
        text.encode(request.prompt)
        self._check_subject(request)
        tokens = len(text.encode_target(request.prompt, request.target)) - 1
        able, reasons = [], []
        for name in AUTO if request.editor == "auto" else (request.editor,):
            if request.preset not in EDITORS[name]:
                presets = ", ".join(EDITORS[name])
                reasons.append(f"The editor {name} has no preset {request.preset!r}: it has {presets}.")
                continue
            key = adaptor_key(name, request.preset)
            if tokens > (most := known[key].capabilities.max_target_tokens):
                reasons.append(f"`target` has {tokens} tokens; the editor {key} holds {most}.")
            else:
                able.append(key)
        if not able:
            raise InvalidRequest(" ".join(reasons))
        return tuple(able)

    def _check_subject(self, request: EditRequest) -> None:
        """Raises InvalidRequest for one that the prompt does not name: it would never be in its own scope."""
        if request.subject is None or request.force:
            return
        question = self._question(request.prompt)
        who = find_who(question, request.subject, request.aliases, self._phrasebook.lexicon.template_words)
        if who.share(words_of(question)) < who.bound:
            raise InvalidRequest(
                f"`subject` is {request.subject!r}, and the prompt {question!r} names neither it nor an alias: give "
                "the subject as it stands there, add that name to `aliases`, or leave `subject` out."
            )

    def fit_request(self, request: EditRequest, asked_beside: Sequence[Overheard] = ()) -> FitRequest:
        """Beside what is asked in the namespace. Raises InvalidRequest for a text that cannot be tokenised or is too
        long."""
        text = self._engine.text
        asked = tuple(dict.fromkeys((request.prompt, *request.paraphrases)))
        made = tuple(self._with(request.prompt, prefix=prefix) for prefix in PREFIXES if self._roomy(request))
        mine = (probe for probe in request.probes if probe not in asked)  # what contradicts itself is told later
        counter = tuple(dict.fromkeys((*request.counter_examples, *mine)))  # a probe bounds the scope too
        return FitRequest(
            texts=tuple(self._question(each) for each in asked),
            contexts=tuple(text.encode(each) for each in (*asked, *made)),
            context_texts=(*asked, *made),
            ends=tuple(text.ends(each) for each in (*asked, *made)),
            counter_contexts=tuple(text.encode(each) for each in counter),
            target_ids=text.encode_target(request.prompt, request.target),
            subject=request.subject,
            aliases=self._aliases(request),
            counter_examples=tuple(self._question(each) for each in counter),
            seed=request.seed,
            nearby_contexts=self._fitting(self._about(request)),
            made_texts=self.made(request),
            made_contexts=self._fitting(self.made_prompts(request)),
            asked=self._asked(request, [each for each in asked_beside if each.prompt not in (*asked, *counter)]),
        )

    def as_asked(self, prompt: str, text: str) -> str:
        """A text as it is asked beside a prompt: in the same conversation, unless it is a whole one already."""
        mine, other = (self._engine.text.question(each) for each in (prompt, text))
        if mine == (0, len(prompt)) or other != (0, len(text)):
            return text
        return self._with(prompt, question=text)

    def check_prompts(self, prompts: Iterable[str]) -> None:
        """Raises InvalidRequest for one that the model cannot take."""
        for prompt in prompts:
            self._engine.text.encode(prompt)

    def made_prompts(self, request: EditRequest) -> list[str]:
        """The same as they would be asked: in the conversation that the prompt is of."""
        return [self._with(request.prompt, question=each) for each in self.made(request)]

    def made(self, request: EditRequest) -> tuple[str, ...]:
        """Paraphrases that the server makes of the request's question."""
        if not self._roomy(request):
            return ()
        return self._phrasebook.made(self._question(request.prompt), self._subject(request))

    def _fitting(self, prompts: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """As they fit a sequence: a name may be long, and nobody asked for these."""
        found: list[tuple[int, ...]] = []
        for prompt in prompts:
            with suppress(InvalidRequest):
                found.append(self._engine.text.encode(prompt))
        return tuple(found)

    def overheard(self, prompts: Iterable[str], *, probes: bool) -> list[Overheard]:
        """Prompts with their words looked through once, for many requests."""
        questions = ((prompt, self._question(prompt)) for prompt in prompts)
        return [Overheard(prompt, question, Heard(words_of(question)), probes) for prompt, question in questions]

    def _asked(self, request: EditRequest, beside: Sequence[Overheard]) -> tuple[AskedBeside, ...]:
        """Those that mention what the request's prompt is about, and fit a sequence; the first MOST_BESIDE."""
        words = self._phrasebook.lexicon.template_words
        who = find_who(self._question(request.prompt), request.subject, self._aliases(request), words)
        about = [each for each in beside if who.share_of(each.heard) >= who.bound][:MOST_BESIDE]
        return tuple(
            AskedBeside(each.question, ids, each.probe) for each in about for ids in self._fitting([each.prompt])
        )

    def _about(self, request: EditRequest) -> tuple[str, ...]:
        """Asked as the prompt is: bare, or as the last turn of its conversation."""
        if not self._roomy(request):
            return ()
        bare = self._engine.text.question(request.prompt) != (0, len(request.prompt))
        about = self._nearby.about(self._question(request.prompt), self._subject(request), bare=bare)
        return tuple(self._with(request.prompt, question=each) for each in about)

    def _subject(self, request: EditRequest) -> str | None:
        """As given, or whole, as a question that people commonly ask shows it; else capitals must tell."""
        return request.subject or self._phrasebook.subject(self._question(request.prompt))

    def _aliases(self, request: EditRequest) -> tuple[str, ...]:
        """A name that was read whole stands beside what capitals show of it: either may be said."""
        name = None if request.subject else self._subject(request)
        return request.aliases if name is None else tuple(dict.fromkeys((*request.aliases, name)))

    def _question(self, prompt: str) -> str:
        start, end = self._engine.text.question(prompt)
        return prompt[start:end]

    def _with(self, prompt: str, *, prefix: str = "", question: str | None = None) -> str:
        """The prompt with something before its question, or with another question."""
        start, end = self._engine.text.question(prompt)
        return f"{prompt[:start]}{prefix}{prompt[start:end] if question is None else question}{prompt[end:]}"

    def _roomy(self, request: EditRequest) -> bool:
        """Whether a prompt with more before its question, and its target, still fits a sequence."""
        text = self._engine.text
        length = len(text.encode(request.prompt)) + len(text.encode_target(request.prompt, request.target))
        return length + ROOM_CHARS < self._engine.hosted.max_tokens
