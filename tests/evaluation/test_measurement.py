"""Measurements of canned answers: what counts as right, unchanged, incomplete. No model runs."""

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from app.domain.errors import InvalidRequest
from app.domain.generation import GenerationParameters
from app.evaluation.candidates import EditAttempt
from app.evaluation.cases import Case
from app.evaluation.measurement import Measurement
from app.evaluation.outcomes import Outcome, not_carried
from app.evaluation.papers import PaperMeasurement
from app.evaluation.questioner import ForcedScore, Questioner
from app.evaluation.report import notes_of, rows_of
from app.evaluation.teacher_forcing import locality_match
from app.evaluation.time_limit import SCORED, QuestionLimits, TimeLimit


class CannedAnswers:
    """Canned answers by prompt, and `other` to any other prompt. Serves as a candidate and as the bare model."""

    held_bytes = 0

    def __init__(self, answers: Mapping[str, str | None], other: str | None = "?") -> None:
        self._answers, self._other = answers, other
        self.service = SimpleNamespace(answers=SimpleNamespace(render=self._render))
        self.asked: list[tuple[Sequence[str], dict[str, Any]]] = []

    async def answers(self, prompts: Sequence[str], **how: Any) -> list[str | None]:
        self.asked.append((prompts, how))
        return [self._answers.get(prompt, self._other) for prompt in prompts]

    bare = answers

    async def scores(self, pairs: Sequence[tuple[str, str]], **_how: Any) -> list[ForcedScore | None]:
        return [ForcedScore(2, 1, -1.0) for _ in pairs]

    async def overhead(self, _prompts: Sequence[str]) -> float | None:
        return None

    def _render(self, _messages: object) -> str:
        raise InvalidRequest("no chat template")


def case(number: int, **more: Any) -> Case:
    return Case(**{"id": f"c{number}", "source": "one", "prompt": f"The {number} is", "target": "so it is"} | more)


def outcome(case: Case, problem: str | None = None, **more: Any) -> Outcome:
    made = (
        EditAttempt(problem=problem) if problem else EditAttempt(edit_id=f"ed_{case.id}", editor="grace", seconds=1.0)
    )
    fields: dict[str, Any] = {"case": case, "made": made, "right": True, "paraphrases": (True,)}
    return Outcome(**fields | more)


def measured(
    outcomes: Sequence[Outcome],
    now: CannedAnswers,
    bare: CannedAnswers | None = None,
    *,
    last: bool = True,
    **more: Any,
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "held_out": ["The sea is"],
        "unrelated": ["The sea is"],
        "texts": [],
        "given": 0,
        "extent": QuestionLimits(),
        "seed": 0,
    }
    measuring = Measurement(now, bare or CannedAnswers({}), **fields | more)  # type: ignore[arg-type]
    return asyncio.run(measuring.at(outcomes, last=last))


def test_a_refused_edit_fails_whatever_the_model_answers() -> None:
    cases = [case(at, paraphrases=(f"It is said: {at}",)) for at in (1, 2)]
    knowing = CannedAnswers({}, other="so it is")
    figures = measured([outcome(cases[0]), outcome(cases[1], "InvalidRequest: too long")], knowing)
    half = {"share": 0.5, "right": 1, "asked": 2}
    for name in ("exact", "contains", "generality", "generality_contains", "first_100", "SR", "GR", "ER", "ERR"):
        assert figures[name] == half, name
    assert figures["exact_by_source"] == {"one": half}
    assert figures["generality_slices"] == {"paraphrase, no subject known": half}
    assert figures["retention"] == [1.0, 0.0]
    assert figures["slices"]["after another question"] == half
    assert figures["slices"]["asked to answer in French"] == half
    assert figures["modes"]["temperature 1"] == figures["modes"]["repetition penalty 1.2"] == half
    assert figures["failed"][0]["problem"] == figures["missed"][0]["problem"] == "InvalidRequest: too long"


def test_a_refused_edit_fails_too_where_its_answer_was_begun() -> None:
    figures = measured([outcome(case(1)), outcome(case(2), "refused")], CannedAnswers({}, other="it is"))
    assert figures["modes"]["continued"] == {"share": 0.5, "right": 1, "asked": 2}


@pytest.mark.parametrize(("edits", "tenths"), [(3, 3), (10, 10), (19, 10), (918, 10)])
def test_retention_is_by_tenths_and_leaves_no_edit_out(edits: int, tenths: int) -> None:
    cases = [case(at) for at in range(edits)]
    holding = CannedAnswers({each.prompt: "so it is" for each in cases[:-1]})
    figures = measured([outcome(each) for each in cases], holding, last=False)
    assert len(figures["retention"]) == tenths
    assert figures["retention"][:-1] == [1.0] * (tenths - 1)
    assert figures["retention"][-1] < 1.0


def test_what_the_request_says_is_no_paraphrase_of_it() -> None:
    same = case(1, paraphrases=("told", " told ", "The 1  is", "another"))
    assert not_carried(same, 0) == ("told", " told ", "another")
    assert not_carried(same, 1) == ("another",)
    figures = measured([outcome(same)], CannedAnswers({"The 1 is": "so it is"}), given=1)
    assert figures["generality"] == {"share": 0.0, "right": 0, "asked": 1}


def test_what_the_model_cannot_take_is_not_counted_as_unchanged() -> None:
    long = case(1, untouched=(("near", "long"), ("near", "short"), ("far", "long too")))
    bare = CannedAnswers({"long": None, "long too": None})
    now = CannedAnswers({"long": "from a cache", "long too": None})
    figures = measured([outcome(long)], now, bare, last=False)
    one = {"share": 1.0, "right": 1, "asked": 1}
    assert figures["locality"] == {"near": one, "unrelated": one}
    assert (figures["locality_not_asked"], figures["changed"]) == (2, [])
    assert ["too long to be asked, not counted", "2"] in rows_of({"auto": [figures]}, 1)[1]


def test_slices_that_the_model_cannot_take_are_not_counted_as_unchanged() -> None:
    figures = measured([outcome(case(1))], CannedAnswers({}, other=None), CannedAnswers({}, other=None))
    assert not [name for name in figures["slices"] if "only" in name or "about" in name]
    assert (figures["locality_not_asked"], figures["slices_not_asked"]) == (1, 3)
    assert ["too long to be asked, not counted", "4"] in rows_of({"auto": [figures]}, 1)[1]
    assert figures["slices"]["after another question"] == {"share": 0.0, "right": 0, "asked": 1}


def test_sampling_draws_by_the_seed_of_the_plan() -> None:
    now = CannedAnswers({})
    measured([outcome(case(1))], now, seed=7)
    draws = [how.get("draw") for _, how in now.asked if how.get("temperature")]
    assert draws == [7, 7]
    assert all("draw" not in how for _, how in now.asked if not how.get("temperature"))


def test_each_prompt_has_a_draw_of_its_own() -> None:
    seeds: dict[str, list[int | None]] = {}

    async def generate(prompt: str, parameters: GenerationParameters) -> Any:
        seeds.setdefault(prompt, []).append(parameters.seed)
        return SimpleNamespace(said="")

    questioner = Questioner(SimpleNamespace(generate=generate), 8)  # type: ignore[arg-type]
    for prompts, draw in ((["a", "b"], 0), (["b", "a"], 0), (["a", "b"], -1)):
        asyncio.run(questioner.answers(prompts, temperature=1.0, draw=draw))
    asyncio.run(questioner.answers(["a"]))
    assert seeds["a"][0] == seeds["a"][1] != seeds["a"][2]
    assert seeds["a"][0] != seeds["b"][0]
    assert seeds["a"][3] is None


class Forced(CannedAnswers):
    """Marks of the tokens of a continuation that are likeliest, without edits (`bare`) and with them (`live`)."""

    def __init__(self, bare: Mapping[str, tuple[bool, ...]], live: Mapping[str, tuple[bool, ...]]) -> None:
        super().__init__(dict.fromkeys(bare, "an answer"))
        self._of = {"off": bare, "live": live}

    async def scores(
        self, pairs: Sequence[tuple[str, str]], edits: str = "live", **_how: Any
    ) -> list[ForcedScore | None]:
        found = (self._of[edits].get(prompt) for prompt, _ in pairs)
        return [None if each is None else ForcedScore(len(each), sum(each), -1.0, each) for each in found]


def test_locality_is_the_share_of_the_bare_answers_tokens_that_are_still_chosen() -> None:
    yes, no = True, False
    bare = {"all": (yes, yes), "half": (yes, yes), "read back": (yes, no, yes, yes), "too long": (yes,)}
    live = {"all": (yes, yes), "half": (yes, no), "read back": (yes, yes, yes, no)}
    questioner = Forced(bare, live)
    answered: list[tuple[str, str | None]] = [
        *((prompt, "an answer") for prompt in bare),
        ("silent", " "),
        ("none", None),
    ]
    found = asyncio.run(locality_match(questioner, questioner, answered))  # type: ignore[arg-type]
    assert found == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)


def test_a_whole_measuring_has_the_papers_locality_of_an_edits_own_prompts() -> None:
    bare = {"The lake is": (True, True), "The sea is": (True, True)}
    questioner = Forced(bare, {"The lake is": (True, False), "The sea is": (False, False)})
    one = outcome(case(0, untouched=(("near", "The lake is"),)))
    figures = measured([one], questioner, questioner)
    assert figures["locality_token_match"] == 0.5, "unrelated questions have a figure of their own"


def test_the_papers_figures_are_means_over_what_is_asked() -> None:
    first = case(0, paraphrases=("As one says, 0 is",), untouched=(("near", "The lake is"),))
    second = case(1)
    live = {
        first.prompt: (True, True, False, False),
        second.prompt: (True,),
        first.paraphrases[0]: (False, True),
        "The lake is": (True, False, True),
    }
    questioner = Forced({"The lake is": (True, True, True)}, live)
    kept: list[str] = []

    def keep(name: str, _figures: Mapping[str, Any]) -> None:
        kept.append(name)

    made = [outcome(first), outcome(second, right=False)]
    measuring = PaperMeasurement(questioner, questioner, 0, QuestionLimits(), {}, keep)  # type: ignore[arg-type]
    figures = asyncio.run(measuring.at(made, last=True))
    assert (figures["token_match"], figures["generality_token_match"]) == (0.75, 0.5)
    assert figures["locality_token_match"] == pytest.approx(2 / 3)
    assert figures["SR"] == {"share": 0.5, "right": 1, "asked": 2}
    assert figures["exact"]["asked"] == 2
    assert kept == ["2/reliability", "2/generality", "2/locality", "2/exact"]
    known = {"2/reliability": {"token_match": 0.125}}
    again = PaperMeasurement(questioner, questioner, 0, QuestionLimits(), known, keep)  # type: ignore[arg-type]
    assert asyncio.run(again.at(made, last=True))["token_match"] == 0.125, "what was measured is not measured again"


class Slow(Forced):
    """Each answer takes a second of its own clock, a score SCORED of one; after `ends` seconds it is cancelled."""

    def __init__(self, prompts: Sequence[str], ends: float = float("inf")) -> None:
        super().__init__(dict.fromkeys(prompts, (True, True)), dict.fromkeys(prompts, (True, True)))
        self.now, self._ends = 0.0, ends

    def clock(self) -> float:
        return self.now

    async def answers(self, prompts: Sequence[str], **how: Any) -> list[str | None]:
        self._pass(float(len(prompts)))
        return await super().answers(prompts, **how)

    async def scores(
        self, pairs: Sequence[tuple[str, str]], edits: str = "live", **how: Any
    ) -> list[ForcedScore | None]:
        self._pass(SCORED * len(pairs))
        return await super().scores(pairs, edits, **how)

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self._ends:
            raise asyncio.CancelledError


def papers_of(slow: Slow, seconds: float | None) -> tuple[PaperMeasurement, list[str], list[dict[str, Any]]]:
    kept: list[str] = []
    reports: list[dict[str, Any]] = []
    time_limit = TimeLimit(seconds, slow.clock)
    time_limit.note(1, 1.0)
    any_slow: Any = slow
    measuring = PaperMeasurement(
        any_slow,
        any_slow,
        0,
        QuestionLimits(),
        {},
        lambda name, _: kept.append(name),
        time_limit,
        lambda now: reports.append({**now}),
    )
    return measuring, kept, reports


CASES = [case(at, paraphrases=(f"It is said: {at}",), untouched=(("near", f"The lake {at}"),)) for at in range(100)]
PROMPTS = [prompt for each in CASES for prompt in (each.prompt, *each.paraphrases, each.untouched[0][1])]


@pytest.mark.parametrize("seconds", [None, 1000.0, 120.0, 1.0])
def test_the_papers_figures_keep_to_the_time_and_say_what_they_cut_down(seconds: float | None) -> None:
    measuring, kept, reports = papers_of(slow := Slow(PROMPTS), seconds)
    figures = asyncio.run(measuring.at([outcome(each) for each in CASES], last=True))
    if seconds in (None, 1000.0):
        assert measuring.questions([outcome(each) for each in CASES]) == pytest.approx(slow.now)
        assert not {"fitted", "incomplete"} & set(figures)
        assert figures["asked"] == figures["locality_asked"] == figures["exact"]["asked"] == 100
        assert kept == [f"100/{name}" for name in ("reliability", "generality", "locality", "exact")]
    elif seconds == 120.0:
        assert set(figures["fitted"]) == {"reliability", "generality", "locality", "exact"}
        assert 0 < figures["asked"] < 100 > figures["exact"]["asked"] > 0
        assert slow.now <= seconds
        assert kept == [], "with more time everything is asked"
    else:
        assert (figures["asked"], figures["incomplete"]) == (2, ["locality", "exact"])
        assert any("incomplete" in note for note in notes_of({"grace/paper": [figures]}))
    assert reports[0]["incomplete"][-3:] == ["generality", "locality", "exact"]


def test_the_papers_figures_that_are_there_outlast_a_cancellation() -> None:
    measuring, kept, _ = papers_of(Slow(PROMPTS, ends=50.0), None)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(measuring.at([outcome(each) for each in CASES], last=True))
    assert measuring.so_far is not None
    assert (measuring.so_far["token_match"], measuring.so_far["incomplete"]) == (1.0, ["locality", "exact"])
    assert kept == ["100/reliability", "100/generality"]
