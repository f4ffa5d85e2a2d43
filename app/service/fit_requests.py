"""An editor's input is made of a request: the editors that may try, and the request in token ids."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from app.domain.edit import EditRequest
from app.domain.errors import InvalidRequest
from app.domain.scope import ScopeRequest, Turns
from app.domain.words import says, words_of
from app.editors.base import FitRequest, Fitted, editor_key
from app.editors.registry import AUTO, EDITORS
from app.engine.client import EngineClient
from app.engine.frames import FRAMES, other_frames, stem_of
from app.scope.phrasebook import Phrasebook

PREFIXES = ("Here is a question. ", "Please answer this. ")
"""Texts put before a question while fitting, so that an edit does not depend on standing at the beginning."""
MADE_CONTEXTS = 2
"""The most made paraphrases that an edit is fitted on; it is verified on all. Each costs as much as the prompt."""
ROOM_CHARS = 2 * max(map(len, PREFIXES))


class FitRequestBuilder:
    """The preparation of requests, which tokenises as serving does."""

    def __init__(self, engine: EngineClient, phrasebook: Phrasebook) -> None:
        self._engine, self._phrasebook = engine, phrasebook

    def editors(self, request: EditRequest) -> tuple[str, ...]:
        """The editors that may make this edit, in the order of trying; for `auto` all that can hold it.

        Raises InvalidRequest, with the reasons, if there is none.
        """
        known, text = tuple(self._engine.editors()), self._engine.text
        if request.editor != "auto" and request.editor not in EDITORS:
            raise InvalidRequest(f"There is no editor {request.editor!r}: use auto or {', '.join(EDITORS)}.")
        text.encode(request.prompt)
        self._check_subject(request)
        if (name := text.controls.named_in(request.target)) is not None:
            raise InvalidRequest(
                f"`target` holds {name!r}, a control token of this model's, which no answer can have: give the answer "
                "as plain text. Its end is learned without being told."
            )
        tokens = len(text.encode_target(request.prompt, request.target)) - 1
        able, reasons = [], []
        for name in AUTO if request.editor == "auto" else (request.editor,):
            if request.preset not in EDITORS[name]:
                presets = ", ".join(EDITORS[name])
                reasons.append(f"The editor {name} has no preset {request.preset!r}: it has {presets}.")
                continue
            key = editor_key(name, request.preset)
            if key not in known:
                reasons.append(f"The editor {key} is not served by this server's engine; {', '.join(known)} is.")
                reasons.extend(filter(None, [self._engine.why_not_served(key)]))
            elif tokens > (most := self._engine.capabilities(key).max_target_tokens):
                reasons.append(f"`target` has {tokens} tokens; the editor {key} holds {most}.")
            elif request.widen is not None and not self._engine.capabilities(key).scoped:
                reasons.append(f"The editor {key} decides by its own measure, which has no bound to `widen`.")
            else:
                able.append(key)
        if not able:
            raise InvalidRequest(" ".join((*reasons, "See /help/editors#choosing-an-editor.")))
        return tuple(able)

    def _check_subject(self, request: EditRequest) -> None:
        """Raises InvalidRequest for a subject that the prompt does not name: the prompt would not be in its own
        scope."""
        if request.subject is None or request.force:
            return
        question = self.question(request.prompt)
        words = words_of(" ".join(self._engine.text.turns(request.prompt)))
        if not any(says(words, tuple(words_of(name))) for name in (request.subject, *request.aliases)):
            raise InvalidRequest(
                f"`subject` is {request.subject!r}, and the prompt {question!r} names neither it nor an alias: give "
                "the subject as it is written there, add that name to `aliases`, or leave `subject` out. See "
                "/help/scope#vetoes."
            )

    def fit_request(self, request: EditRequest, probes: Sequence[str] = ()) -> FitRequest:
        """The editor's input. `probes` are those of the namespace. Raises InvalidRequest for a text that cannot be
        tokenised or is too long."""
        text = self._engine.text
        own = tuple(dict.fromkeys(stem_of(each, text) for each in (request.prompt, *request.paraphrases)))
        prefixed = tuple(self._with(own[0], prefix=prefix) for prefix in PREFIXES if self._roomy(request))
        counter = self._counter(request)
        return FitRequest(
            scope=self.scope_request(request, probes),
            contexts=tuple(text.encode(each) for each in (*own, *prefixed)),
            given=len(own) - 1,
            context_texts=(*own, *prefixed),
            ends=tuple(text.ends(each) for each in (*own, *prefixed)),
            counter_contexts=tuple(text.encode(each) for each in counter),
            target_ids=text.encode_target(own[0], request.target),
            subject=request.subject or self._engine.scope.name_in(text.turns(request.prompt)),
            seed=request.seed,
            made_contexts=self._fitting((*self.made_prompts(request)[:MADE_CONTEXTS], *self._reframed(request, own))),
        )

    def frames(self, request: EditRequest) -> dict[str, tuple[str, ...]]:
        """The request's question in other frames than its own, by their names."""
        return other_frames(request.prompt, self._engine.text) if self._roomy(request) else {}

    def _reframed(self, request: EditRequest, own: Collection[str]) -> list[str]:
        """The prompts of a bare question in the other frames of bare text, which the edit learns too."""
        return [
            prompt
            for name, prompts in self.frames(request).items()
            if name in FRAMES and not self._engine.text.is_chat(request.prompt)
            for prompt in prompts
            if prompt not in own
        ]

    def take_lora(self, request: EditRequest, folder: Path) -> Fitted:
        """A LoRA in PEFT's format as the fit of the request's edit. Raises InvalidRequest."""
        key, fit_request = editor_key(request.editor, request.preset), self.fit_request(request)
        return self._engine.with_scope(key, self._engine.read_adapter(key, fit_request, folder), fit_request)

    def scope_request(self, request: EditRequest, probes: Sequence[str] = ()) -> ScopeRequest:
        """The scope's input. `probes` are those of the namespace."""
        own = dict.fromkeys((request.prompt, *request.paraphrases))
        counter = dict.fromkeys((*self._counter(request), *(each for each in probes if each not in own)))
        return ScopeRequest(
            keys=tuple(map(self._turns, own)),
            made=tuple(map(self._turns, self.made_prompts(request))),
            counter=tuple(map(self._turns, counter)),
            subject=request.subject,
            aliases=request.aliases,
            namespace=request.namespace,
            widen=1.0 if request.widen is None else request.widen,
        )

    def _counter(self, request: EditRequest) -> tuple[str, ...]:
        """The request's counter-examples and probes without those that it also asks for; the contradiction is reported
        later."""
        own = (request.prompt, *request.paraphrases)
        mine = (probe for probe in request.probes if probe not in own)
        return tuple(dict.fromkeys((*request.counter_examples, *mine)))

    def _turns(self, prompt: str) -> Turns:
        return self._engine.text.turns(prompt)

    def framed_like(self, prompt: str, text: str) -> str:
        """A text as it is asked beside a prompt: in the same conversation, unless it is a whole conversation
        already."""
        mine, other = (self._engine.text.question(each) for each in (prompt, text))
        if mine == (0, len(prompt)) or other != (0, len(text)):
            return text
        return self._with(prompt, question=text)

    def check_prompts(self, prompts: Iterable[str]) -> None:
        """Raises InvalidRequest for a prompt that the model cannot take."""
        for prompt in prompts:
            self._engine.text.encode(prompt)

    def made_prompts(self, request: EditRequest) -> list[str]:
        """Made paraphrases as prompts, within the conversation of the request's prompt."""
        return [self._with(request.prompt, question=each) for each in self.paraphrases(request)]

    def near_misses(self, request: EditRequest) -> list[str]:
        """Questions made from the request's that ask something else, as prompts. Blocks for milliseconds."""
        if not self._roomy(request):
            return []
        besides = (request.subject or "", *request.aliases, *request.paraphrases)
        misses = self._engine.scope.near_misses(self._turns(request.prompt), besides)
        return [self._with(request.prompt, question=miss.text) for miss in misses]

    def paraphrases(self, request: EditRequest) -> tuple[str, ...]:
        """Paraphrases that the server makes of the request's question."""
        if not self._roomy(request):
            return ()
        return self._phrasebook.paraphrases(self.question(request.prompt), request.subject)

    def _fitting(self, prompts: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """The token ids of the prompts that fit a sequence: a name may be long, and nobody asked for these prompts."""
        rows: list[tuple[int, ...]] = []
        for prompt in prompts:
            with suppress(InvalidRequest):
                rows.append(self._engine.text.encode(prompt))
        return tuple(rows)

    def question(self, prompt: str) -> str:
        """The last turn of a conversation; any other prompt is a question as a whole."""
        start, end = self._engine.text.question(prompt)
        return self._engine.text.controls.plain(prompt[start:end])

    def _with(self, prompt: str, *, prefix: str = "", question: str | None = None) -> str:
        """The prompt with a prefix before its question, or with another question."""
        start, end = self._engine.text.question(prompt)
        if question is not None and (start, end) != (0, len(prompt)):
            question = self._engine.text.controls.as_text(question)
        return f"{prompt[:start]}{prefix}{prompt[start:end] if question is None else question}{prompt[end:]}"

    def _roomy(self, request: EditRequest) -> bool:
        """True if a prompt with a prefix before its question, and its target, still fits a sequence."""
        text = self._engine.text
        length = len(text.encode(request.prompt)) + len(text.encode_target(request.prompt, request.target))
        return length + ROOM_CHARS < self._engine.max_tokens
