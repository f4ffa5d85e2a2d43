"""A correction before its publication: the fields, ticks and border of its form, and the edit request made from
them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.domain.edit import MOST_WIDEN, EditRequest, State, check_widen
from app.domain.errors import InvalidRequest
from app.ui import words
from app.ui.forms import Form, seconds_until
from app.ui.question import AskedQuestion, how_of
from app.ui.visit import Visit

MOST_TEXTS = 100
MOST_TARGET_CHARS = 10_000
LEAST_MOVED = 0.05
"""The least that the border is moved by, as a difference of logits: the slider's step, to which browsers round."""


@dataclass(frozen=True, slots=True)
class Correction:
    """The contents of the correction form. Texts are questions as written, without a chat template."""

    question: AskedQuestion
    target: str = ""
    reason: str | None = None
    until: str = ""
    """The day on which the edit ends, as the form has it."""
    subject: str = ""
    more: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    change_ticks: tuple[str, ...] = ()
    keep_ticks: tuple[str, ...] = ()
    supersede: tuple[str, ...] = ()
    proposal: str = ""
    """The proposal that it revises; empty for none."""
    widen: float = 1.0
    """The factor on the odds of its scope, which a person sets by dragging the border."""

    @classmethod
    def of_request(cls, visit: Visit, request: EditRequest, ends_s: float | None, proposal: str = "") -> "Correction":
        """The form's contents for an earlier request, which ends at `ends_s`, Unix time in seconds."""
        question = visit.service.answers.question
        text = question(request.prompt)
        return cls(
            question=AskedQuestion(text, how_of(visit, request.prompt, text), request.namespace),
            target=request.target,
            reason=request.reason,
            until="" if ends_s is None else words.day(ends_s - 1.0),
            subject=request.subject or "",
            keep=tuple(map(question, request.probes)),
            change_ticks=tuple(map(question, request.paraphrases)),
            keep_ticks=tuple(map(question, request.counter_examples)),
            supersede=request.supersede,
            proposal=proposal,
            widen=1.0 if request.widen is None else request.widen,
        )

    @classmethod
    def of(cls, visit: Visit, form: Form) -> "Correction":
        """The contents of a submitted form. Raises InvalidRequest for contents that cannot be accepted."""
        names = ("q", "how", "namespace")
        correction = cls(
            question=AskedQuestion.of(visit, {name: form.get(name) for name in names}),
            target=form.get("target"),
            reason=form.reason(),
            until=form.get("until"),
            subject=form.get("subject"),
            more=form.lines("more"),
            keep=form.lines("keep"),
            supersede=form.all("supersede"),
            proposal=form.get("proposal"),
            keep_ticks=_left_alone(visit, form.get("proposal")),
            widen=_factor(form.get("widen")),
        )
        if not correction.question.text:
            raise InvalidRequest("The question is empty: write the question whose answer is wrong.")
        if not correction.target:
            raise InvalidRequest("The right answer is empty: write the answer that the question should have.")
        if len(correction.target) > MOST_TARGET_CHARS:
            raise InvalidRequest(f"The right answer is too long: at most {MOST_TARGET_CHARS} characters are allowed.")
        if len(correction.more) > MOST_TEXTS or len(correction.keep) > MOST_TEXTS:
            raise InvalidRequest(f"There are too many lines: at most {MOST_TEXTS} of each kind are allowed.")
        if visit.service.reason_required and not correction.reason:
            raise InvalidRequest("The reason is missing: this server wants to know why, for the audit trail.")
        return correction

    def ticked(self, form: Form, bound: float | None, tried: float) -> "Correction":
        """The correction with the ticks and the border of a preview's form: `t-N` are the texts, `a-N` whether they
        should change. `bound` is the probability that questions had to reach in the preview, which `tried` this
        `widen`."""
        texts = {name[2:]: value for name, value in form.pairs if name.startswith("t-")}
        wanted = {name[2:]: value for name, value in form.pairs if name.startswith("a-")}
        change = tuple(text for at, text in texts.items() if wanted.get(at) == "change")
        keep = tuple(text for at, text in texts.items() if wanted.get(at) == "keep")
        return replace(
            self,
            change_ticks=change[:MOST_TEXTS],
            keep_ticks=keep[:MOST_TEXTS],
            supersede=form.all("supersede"),
            widen=self._dragged(form, bound, tried),
        )

    def _dragged(self, form: Form, bound: float | None, tried: float) -> float:
        """The factor on the odds with the border where the form has it, as a logit."""
        try:
            border, shown = float(form.get("border")), float(form.get("border-was"))
            moved = abs(border - shown) >= LEAST_MOVED
            factor = math.exp(words.logit(bound or 0.5) - max(-8.0, min(8.0, border)))
        except ValueError:  # a preview without a border, or a border that is no number
            return self.widen
        return _allowed(tried * factor) if moved and bound is not None else self.widen

    def typed(self) -> "Correction":
        """The correction as the form can hold it: its ticked paraphrases are among the typed lines, and the scope of a
        promoted edit, which may be wider than that of a new one, is as wide as a new one's may be."""
        return replace(self, more=(*self.more, *self.change_ticks), change_ticks=(), widen=_allowed(self.widen))

    def request(self, visit: Visit, now_s: float) -> EditRequest:
        """The edit request. Raises InvalidRequest."""

        def prompts_of(texts: Sequence[str]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(self.question.prompt(visit, text) for text in texts))

        prompt = self.question.prompt(visit)
        ways = tuple(each for each in prompts_of((*self.more, *self.change_ticks)) if each != prompt)
        return EditRequest(
            prompt=prompt,
            target=self.target,
            subject=self.subject or None,
            paraphrases=ways,
            counter_examples=tuple(each for each in prompts_of(self.keep_ticks) if each != prompt and each not in ways),
            probes=prompts_of(self.keep),
            namespace=self.question.namespace,
            reason=self.reason,
            expires_in_s=seconds_until(self.until, now_s),
            supersede=self.supersede,
            widen=None if self.widen == 1 else self.widen,
        )


def _allowed(factor: float) -> float:
    """The nearest factor that a new edit may have."""
    return min(MOST_WIDEN, max(1 / MOST_WIDEN, factor))


def _factor(text: str) -> float:
    try:
        factor = float(text or 1.0)
        check_widen(factor)
    except (ValueError, InvalidRequest):
        return 1.0
    return factor


def _left_alone(visit: Visit, proposal_id: str) -> tuple[str, ...]:
    """The counter-examples of the proposal that is revised, for which the form has no field. Raises Forbidden for a
    proposal that the visitor may not reach."""
    proposal = visit.service.records.ledger.approval.proposals.get(proposal_id)
    if proposal is None:
        return ()
    visit.check_reach(*proposal.namespaces)
    texts = proposal.edits[0].request.counter_examples
    return tuple(map(visit.service.answers.question, texts))


def replaced_by(visit: Visit, correction: Correction, prompt: str | None = None) -> tuple[str, ...]:
    """The ids of the edits that would be replaced: those of the correction's question, or of a `prompt`."""
    ledger, known_prompt = visit.service.records.ledger, prompt or correction.question.prompt(visit)
    return tuple(ledger.with_prompt(correction.question.namespace, known_prompt, State.LIVE, State.DISABLED))
