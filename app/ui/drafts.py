"""A correction before its publication: the fields, ticks and border of its form, and the edit request made from
them."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from app.domain.edit import MOST_WIDEN, EditRequest, State, check_widen
from app.domain.errors import InvalidRequest
from app.ui import words
from app.ui.forms import Form, seconds_until
from app.ui.question import AskedQuestion
from app.ui.visit import Visit

if TYPE_CHECKING:
    from app.service.jobs import Job

MOST_KEPT = 500
MOST_TEXTS = 100
MOST_TARGET_CHARS = 10_000
LEAST_MOVED = 0.05
"""The least that the border is moved by, as a difference of logits: the slider's step, to which browsers round."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The contents of the correction form. Texts are questions as written, without a chat template. `until` is a
    day."""

    question: AskedQuestion
    target: str = ""
    reason: str | None = None
    until: str = ""
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
    def of_request(cls, visit: Visit, request: EditRequest, ends_s: float | None, proposal: str = "") -> "Draft":
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
    def of(cls, visit: Visit, form: Form) -> "Draft":
        """The contents of a submitted form. Raises InvalidRequest for contents that cannot be accepted."""
        names = ("q", "how", "namespace")
        draft = cls(
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
        if not draft.question.text:
            raise InvalidRequest("The question is empty: write the question whose answer is wrong.")
        if not draft.target:
            raise InvalidRequest("The right answer is empty: write the answer that the question should have.")
        if len(draft.target) > MOST_TARGET_CHARS:
            raise InvalidRequest(f"The right answer is too long: at most {MOST_TARGET_CHARS} characters are taken.")
        if len(draft.more) > MOST_TEXTS or len(draft.keep) > MOST_TEXTS:
            raise InvalidRequest(f"There are too many lines: at most {MOST_TEXTS} of each kind are taken.")
        if visit.service.reason_required and not draft.reason:
            raise InvalidRequest("The reason is missing: this server wants to know why, for the audit trail.")
        return draft

    def ticked(self, form: Form, bound: float | None, tried: float) -> "Draft":
        """The draft with the ticks and the border of a preview's form: `t-N` are the texts, `a-N` whether they should
        change. `bound` is the share that questions had to reach in the preview, which `tried` this `widen`."""
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
        return min(MOST_WIDEN, max(1 / MOST_WIDEN, tried * factor)) if moved and bound is not None else self.widen

    def typed(self) -> "Draft":
        """The draft with its ticked paraphrases moved into the typed lines."""
        return replace(self, more=(*self.more, *self.change_ticks), change_ticks=())

    def request(self, visit: Visit, now_s: float) -> EditRequest:
        """The edit request. Raises InvalidRequest."""

        def asked(texts: Sequence[str]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(self.question.prompt(visit, text) for text in texts))

        prompt = self.question.prompt(visit)
        ways = tuple(each for each in asked((*self.more, *self.change_ticks)) if each != prompt)
        return EditRequest(
            prompt=prompt,
            target=self.target,
            subject=self.subject or None,
            paraphrases=ways,
            counter_examples=tuple(each for each in asked(self.keep_ticks) if each != prompt and each not in ways),
            probes=asked(self.keep),
            namespace=self.question.namespace,
            reason=self.reason,
            expires_in_s=seconds_until(self.until, now_s),
            supersede=self.supersede,
            widen=None if self.widen == 1 else self.widen,
        )


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
    found = visit.service.records.ledger.approval.proposals.get(proposal_id)
    if found is None:
        return ()
    visit.check_reach(*found.namespaces)
    texts = found.edits[0].request.counter_examples
    return tuple(map(visit.service.answers.question, texts))


@dataclass(slots=True)
class Preview:
    """A correction that is tried by a job, and the state of its publication."""

    id: str
    draft: Draft
    job_id: str
    tried: float = 1.0
    """The `widen` that it was tried with."""
    publishing: str | None = None
    """The id of the job that publishes it."""
    requests: dict[str, EditRequest] = field(default_factory=dict)
    """Maps the mark of a form to the request that it published."""


class Previews:
    """The newest previews, in this server's memory. A draft outlives its job, so that no typed text is lost."""

    def __init__(self) -> None:
        self._previews: OrderedDict[str, Preview] = OrderedDict()

    def get(self, preview_id: str) -> Preview:
        """The preview with this id. Raises InvalidRequest if it is no longer kept."""
        if preview_id not in self._previews:
            raise InvalidRequest(
                "This preview is no longer kept: the server was restarted, or many others came after it. "
                "What was published is under Edits; make the preview again from the question."
            )
        return self._previews[preview_id]

    def find(self, preview_id: str) -> Preview | None:
        return self._previews.get(preview_id)

    def keep(self, preview: Preview) -> None:
        self._previews[preview.id] = preview
        if len(self._previews) > MOST_KEPT:
            self._previews.popitem(last=False)


def how_of(visit: Visit, prompt: str, question: str) -> str:
    """The way in which a question with this prompt is asked: `chat`, through the template, or `text`, as it is."""
    return "text" if question == prompt or not visit.service.answers.chats else "chat"


def border_of(bound: float, draft: Draft, preview: Preview) -> float:
    """The border as a logit: the bound of the preview unless it was dragged since."""
    return words.logit(bound) - math.log(draft.widen / preview.tried)


def replaced_by(visit: Visit, draft: Draft, prompt: str | None = None) -> tuple[str, ...]:
    """The ids of the edits that would be replaced: those of the draft's question, or of a `prompt`."""
    ledger, known_prompt = visit.service.records.ledger, prompt or draft.question.prompt(visit)
    return tuple(ledger.with_prompt(draft.question.namespace, known_prompt, State.LIVE, State.DISABLED))


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """A question of the preview with its tick; `wanted` is `change`, `keep` or empty."""

    text: str
    answer: str
    value: float | None
    bound: float | None
    reached: bool
    wanted: str
    diff: list[dict[str, str]] = field(default_factory=list)

    @property
    def place(self) -> float:
        """The position on the strip, from 0 to 100."""
        return 0.0 if self.value is None else round((words.logit(self.value) + 6) / 12 * 100, 2)


def rows_of(visit: Visit, draft: Draft, report: Any, *, decided: bool = False) -> dict[str, list[PreviewRow]]:
    """The questions by kind, nearest first. If `decided`, the choice is final and nothing is ticked by default."""
    question, before = visit.service.answers.question, decided or draft.change_ticks or draft.keep_ticks
    found: dict[str, list[PreviewRow]] = {}
    for each in report.get("asked", []):
        text, same = question(each["prompt"]), each["same"]
        wanted = {"made": "change" if each["reached"] else "", "near_miss": "keep"}.get(each["kind"], "")
        if before:
            wanted = "change" if text in draft.change_ticks else "keep" if text in draft.keep_ticks else ""
        kind = each["kind"]
        if kind == "paraphrase" and text in draft.change_ticks:
            kind, wanted = "made", "change"
        if kind == "counter_example" and text in draft.keep_ticks:
            kind, wanted = "near_miss", "keep"
        row = PreviewRow(text, each["answer"], same and same["value"], same and same["bound"], each["reached"], wanted)
        found.setdefault(kind, []).append(row)
    for each in (report.get("recent") or {}).get("shown", []):
        same = each["signals"].get("same")
        text = question(each["prompt"])
        if text == draft.question.text:  # the question that was just asked to see its wrong answer
            continue
        wanted = "change" if text in draft.change_ticks else "keep" if text in draft.keep_ticks else ""
        diff = [{"op": "delete", "text": each["before"]}, {"op": "insert", "text": each["now"]}]
        row = PreviewRow(text, each["now"], same and same["value"], same and same["bound"], True, wanted, diff)
        found.setdefault("recent", []).append(row)
    return {kind: sorted(rows, key=lambda row: -(row.value or 0.0)) for kind, rows in found.items()}


def bound_of(job: "Job") -> float | None:
    """The probability that a question must reach, from a finished preview; None without one."""
    if job.result is None:
        return None
    return bound_in(job.result[0].results[0].view.edit.report)


def bound_in(report: Any) -> float | None:
    bound = report.get("bound") or (report.get("scope") or {}).get("bound")
    return None if bound is None else float(bound)
