"""A run edits, asks and measures; interrupted anywhere it goes on where it stopped, and ends with the same figures."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.domain.errors import EditRejected, InvalidRequest, ScopeConflict
from app.evaluation.candidates import RequestContents, ServedEditor, known_candidates
from app.evaluation.cases import Case
from app.evaluation.journal import Journal
from app.evaluation.report import markdown, notes_of
from app.evaluation.run import EvaluationPlan, make_candidate, run_candidate
from app.evaluation.slices import french_questions, slices_of
from app.evaluation.time_limit import QuestionLimits, TimeLimit
from app.scope.phrasebook import load_phrasebook
from app.store.sqlite import SqliteLog
from tests.service.conftest import serving

pytestmark = pytest.mark.slow

CASES = (
    Case(
        id="a",
        source="one",
        prompt="The capital of Ruritania is",
        target="Strelsau",
        subject="Ruritania",
        paraphrases=("Ruritania has the capital",),
        untouched=(("neighbour", "The capital of Graustark is"),),
    ),
    Case(id="b", source="one", prompt="The king of Zenda was", target="Rudolf V", subject="Zenda", old="Michael"),
    Case(id="c", source="two", prompt="The seat of Ruritania is", target="Hofbau", overwrites="a", subject="Ruritania"),
    Case(id="d", source="two", prompt="The river of Zenda is the", target="Elphberg", subject="Zenda"),
)
TIMES = {"seconds_median", "seconds_mean", "fit_seconds_mean", "overhead", "stored_bytes"}
"""An entry of the log tells when it was made, in as many digits as that takes."""


def plan(**more: Any) -> EvaluationPlan:
    fields: dict[str, Any] = {
        "cases": CASES,
        "held_out": ("The queen of Graustark was", "The lake of Evallonia is"),
        "texts": ("One two three four five six seven eight nine ten eleven twelve",),
        "steps": (1, 2),
        "extent": QuestionLimits(texts=1),
    }
    return EvaluationPlan(**fields | more)


def run(
    folder: Path, name: str = "grace", how: EvaluationPlan | None = None, stop_after: int | None = None, **more: Any
) -> list[Any]:
    told = 0

    class Stop(Exception): ...

    def on_step(what: str, done: int, total: int) -> None:
        nonlocal told
        told += 1
        if stop_after is not None and told > stop_after:
            raise Stop

    async def whole() -> list[Any]:
        async with serving(SqliteLog(folder / "log.db")) as service:
            return await run_candidate(name, how or plan(), service, Journal(folder / "run.jsonl"), on_step, **more)

    try:
        return asyncio.run(whole())
    except Stop:
        return []


def timeless(figures: list[Any]) -> list[Any]:
    return [{name: value for name, value in each.items() if name not in TIMES} for each in figures]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return run(tmp_path_factory.mktemp("whole"))


def test_edits_hold_and_everything_is_measured(expected: list[Any]) -> None:
    first, second, last = expected
    assert [each["edits"] for each in (first, second, last)] == [1, 2, 4]
    assert first["exact"] == {"share": 1.0, "right": 1, "asked": 1}
    assert last["superseded"] == 1
    assert last["exact"]["asked"] == 3
    assert last["exact"]["share"] == 1.0
    assert last["token_match"] == 1.0
    assert last["contains"]["share"] == 1.0
    assert set(last["exact_by_source"]) == {"one", "two"}
    assert last["SR"]["asked"] == 4
    assert last["GR"]["asked"] == 1
    assert last["locality"]["unrelated"]["share"] == 1.0
    assert last["ERR"] == last["exact"]
    assert last["TRR"] == last["locality"]["unrelated"]
    assert last["perplexity"] == pytest.approx(last["perplexity_bare"])
    assert last["stored_bytes"] > 0
    assert last["held_bytes"] > 0
    assert last["editors"] == {"grace": 4}
    assert last["slices"]["subject in the history only"]["asked"] == 3
    assert last["modes"]["temperature 1"]["asked"] == 3
    assert last["modes"]["continued"]["asked"] == 1
    assert last["overhead"] > 0
    assert first["locality"]["neighbour"]["asked"] == 1


class FakeClock:
    """A minute passes each time that it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 60.0
        return self.now


def test_where_the_time_is_over_fewer_edits_are_made_and_the_same_run_goes_on(
    tmp_path: Path, expected: list[Any]
) -> None:
    kept: list[list[Any]] = []
    figures = run(tmp_path, how=plan(steps=()), keep=kept.append, time_limit=TimeLimit(1500.0, FakeClock()))
    (last,) = figures
    assert 1 <= last["edits"] < 4
    assert set(last["fitted"]) == {"reliability"}, "of this a part was measured"
    assert {"generality", "locality", "perplexity"} <= set(last["incomplete"]), "the time was over before these"
    assert kept[-1] == figures
    assert timeless(run(tmp_path, how=plan(steps=()))) == timeless(expected[-1:])


def test_a_run_that_is_cancelled_keeps_what_it_knows(tmp_path: Path) -> None:
    kept: list[list[Any]] = []

    async def whole() -> None:
        async with serving(SqliteLog(tmp_path / "log.db")) as service:
            journal = Journal(tmp_path / "run.jsonl")

            def on_step(what: str, done: int, _total: int) -> None:
                if what == "grace: editing" and done == 1:
                    task.cancel()

            task = asyncio.ensure_future(run_candidate("grace", plan(steps=()), service, journal, on_step, kept.append))
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

    asyncio.run(whole())
    (figures,) = kept[-1]
    assert (figures["edits"], figures["SR"]["right"], figures["incomplete"]) == (1, 1, ["every question"])
    assert "incomplete" in "".join(notes_of({"grace": kept[-1]}))
    assert "SR" in markdown({"grace": kept[-1]})


def test_a_question_about_what_the_answer_is_must_not_change() -> None:
    def render(_: object) -> str:
        raise InvalidRequest("no chat template")

    asked = {each.slice: each for each in slices_of(CASES[:1], [], render, seed=0)}
    assert asked["question about what the answer is"].target is None
    assert "the capital of Ruritania" in asked["question about what the answer is"].prompt
    assert "Quelle est la capitale de Ruritania ?" in asked["asked in French"].prompt
    assert asked["asked in French"].target == CASES[0].target


@pytest.mark.parametrize("stop_after", [1, 4])
def test_an_interrupted_run_goes_on_and_ends_the_same(tmp_path: Path, stop_after: int, expected: list[Any]) -> None:
    assert run(tmp_path, stop_after=stop_after) == []
    journal = tmp_path / "run.jsonl"
    if journal.exists():
        journal.write_text(journal.read_text() + '{"kind": "edit", "ca')  # torn by a kill
    assert timeless(run(tmp_path)) == timeless(expected)


def test_a_folder_of_other_edits_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InvalidRequest, match="Name another folder"):
        run(tmp_path, how=plan(cases=CASES[::-1]))


def test_a_folder_of_more_edits_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "bare")
    with pytest.raises(InvalidRequest, match="made 4 edits, and this one has 2"):
        run(tmp_path, "bare", plan(cases=CASES[:2]))


def test_a_step_that_was_passed_is_refused_and_fewer_steps_are_not(tmp_path: Path) -> None:
    whole = run(tmp_path, "bare")
    before = (tmp_path / "run.jsonl").read_bytes()
    with pytest.raises(InvalidRequest, match=r"made 4 edits and was not measured after 3: leave"):
        run(tmp_path, "bare", plan(steps=(1, 3)))
    assert (tmp_path / "run.jsonl").read_bytes() == before
    assert run(tmp_path, "bare", plan(steps=(2,))) == whole[1:]


def test_a_batch_that_was_journaled_in_part_is_made_as_a_whole_again(tmp_path: Path) -> None:
    how = plan(cases=(*CASES[:2], CASES[3]), batch=3, steps=())
    (whole,) = run(tmp_path, how=how)
    journal = tmp_path / "run.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:2]) + lines[2][:30])
    assert timeless(run(tmp_path, how=how)) == timeless([whole])
    assert [line[:35] for line in journal.read_text().splitlines()] == [line[:35] for line in lines]


def test_a_second_correction_takes_the_place_of_the_first_too(tmp_path: Path) -> None:
    again = Case(id="e", source="two", prompt="Ruritania is ruled from", target="Tarlenheim", overwrites="a")
    last = run(tmp_path, how=plan(cases=(CASES[0], CASES[2], again), steps=()))[-1]
    assert (last["refused"], last["superseded"], last["exact"]["right"]) == (0, 2, 1)


def test_who_corrects_an_edit_replaces_what_else_is_in_the_way(tmp_path: Path) -> None:
    also = Case(id="f", source="one", prompt="The mountain of Ruritania is", target="Streitberg", subject="Ruritania")
    again = Case(id="g", source="two", prompt="The mountain of Ruritania is the", target="Zugspitz", overwrites="a")
    last = run(tmp_path, how=plan(cases=(CASES[0], also, again), steps=()))[-1]
    assert (last["refused"], last["superseded"], last["exact"]["right"]) == (0, 2, 1)
    nothing_named = replace(again, overwrites=None)
    (tmp_path / "other").mkdir()
    last = run(tmp_path / "other", how=plan(cases=(CASES[0], also, nothing_named), steps=()))[-1]
    assert (last["refused"], last["superseded"]) == (1, 0)


def test_a_correction_that_is_refused_after_all_replaces_nothing() -> None:
    asked: list[tuple[str, ...]] = []

    async def edit(requests: Any, _origin: Any, *, batch: bool) -> None:
        asked.append(requests[0].supersede)
        if len(asked) == 1:
            raise ScopeConflict("in the way", conflicts=["ed_other"])
        raise EditRejected("does not hold")

    served = ServedEditor(SimpleNamespace(service=SimpleNamespace(edit=edit)), "grace", "serving", RequestContents())  # type: ignore[arg-type]
    (made,) = asyncio.run(served.edit([CASES[2]], [["ed_named"]]))
    assert asked == [("ed_named",), ("ed_named", "ed_other")]
    assert (made.edit_id, made.problem, made.replaced) == (None, "EditRejected: does not hold", ())


def test_a_refusal_counts_as_a_failure(tmp_path: Path) -> None:
    too_long = Case(id="x", source="one", prompt="The anthem of Zenda is", target="la " * 400, subject="Zenda")
    (_, last) = run(tmp_path, how=plan(cases=(CASES[0], too_long)))
    assert (last["refused"], last["asked"]) == (1, 2)
    assert last["exact"] == {"share": 0.5, "right": 1, "asked": 2}
    assert last["SR"]["right"] == 1


def test_a_batch_with_one_that_is_refused_makes_the_others(tmp_path: Path) -> None:
    too_long = Case(id="x", source="one", prompt="The anthem of Zenda is", target="la " * 400, subject="Zenda")
    last = run(tmp_path, how=plan(cases=(CASES[0], too_long, CASES[1]), batch=3, steps=()))[-1]
    assert (last["edits"], last["refused"], last["exact"]["right"]) == (3, 1, 2)


def test_paper_presets_go_without_verification(tmp_path: Path) -> None:
    last = run(tmp_path, "grace/paper", plan(cases=CASES[:2], steps=()))[-1]
    assert last["refused"] == 0
    assert last["editors"] == {"grace/paper": 2}


def test_the_bare_model_and_the_semantic_cache_are_measured_alike(tmp_path: Path) -> None:
    for name in ("bare", "cache"):
        folder = tmp_path / name
        folder.mkdir()
        last = run(folder, name, plan(cases=CASES[:2], steps=()))[-1]
        assert last["exact"]["share"] == (0.0 if name == "bare" else 1.0)
        assert last["locality"]["unrelated"]["asked"] == 2
        assert last["overhead"] is None
        if name != "bare":  # they are asked beforehand, and nothing is fitted: these figures would be of something else
            figures = ("perplexity", "token_match", "generality_token_match", "seconds_median", "stored_bytes")
            assert [last[each] for each in figures] == [None] * len(figures)
            assert last["perplexity_bare"] > 0
        assert run(folder, name, plan(cases=CASES[:2], steps=()))[-1] == last


def test_a_paraphrase_that_was_given_is_not_asked(tmp_path: Path) -> None:
    how = plan(cases=CASES[:1], steps=(), contents=RequestContents(paraphrases=1, subject=True))
    last = run(tmp_path, how=how)[-1]
    assert last["generality"]["asked"] == last["GR"]["asked"] == 0


def test_names_of_candidates(tmp_path: Path) -> None:
    assert {"auto", "grace", "hook_layer/paper", "cache", "bare"} <= set(known_candidates())
    with pytest.raises(InvalidRequest, match="no editor"):
        make_candidate("grce", None, RequestContents())  # type: ignore[arg-type]


def test_questions_in_french_ask_for_what_the_phrasebook_knows() -> None:
    assert len(french_questions()) > 50
    assert all(load_phrasebook().questions(relation) for relation in french_questions())
    assert all(question.count("{}") == 1 and question.endswith("?") for question in french_questions().values())


@pytest.mark.parametrize("batch", [1, 2])
def test_bytes_in_the_log_are_those_of_whole_entries(tmp_path: Path, batch: int) -> None:
    last = run(tmp_path, how=plan(cases=CASES[:2], steps=(), batch=batch))[-1]
    log = SqliteLog(tmp_path / "log.db")
    entries = [log.entry(event.revision) for event in log.read() if hasattr(event, "edit")]
    log.close()
    assert last["stored_bytes"] == sum(map(len, entries)) / 2


def test_generic_questions_stand_for_unrelated_ones_where_no_row_is_held_out(tmp_path: Path) -> None:
    generic = ("Question: Where is the moon? Answer:", "Question: Who wrote Hamlet? Answer:")
    last = run(tmp_path, how=plan(cases=CASES[:1], held_out=(), generic=generic, steps=()))[-1]
    assert last["locality"]["unrelated"]["asked"] == last["TRR"]["asked"] == 2
    assert last["overhead"] > 0


@pytest.mark.parametrize("batch", [1, 3])
def test_edits_are_scored_as_the_papers_do_and_a_run_goes_on_within_its_measuring(tmp_path: Path, batch: int) -> None:
    how = plan(cases=(*CASES[:2], CASES[3]), batch=batch, steps=(), papers=True)
    (figures,) = run(tmp_path, "grace/paper", how)
    assert (figures["edits"], figures["asked"], figures["SR"]["asked"]) == (3, 3, 3)
    assert figures["exact"]["asked"] == 3
    assert all(0 <= figures[name] <= 1 for name in ("token_match", "generality_token_match", "locality_token_match"))
    journal = tmp_path / "run.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    parts = [json.loads(line)["part"] for line in lines if '"part"' in line]
    assert parts == ["3/reliability", "3/generality", "3/locality", "3/exact"]
    journal.write_text("".join(lines[:-3]))  # killed while it measured locality
    assert timeless(run(tmp_path, "grace/paper", how)) == timeless([figures])


def test_the_bare_model_leaves_every_token_of_its_own_answers_in_place(tmp_path: Path) -> None:
    (figures,) = run(tmp_path, "bare", plan(cases=CASES[:2], steps=(), papers=True))
    assert figures["locality_token_match"] == 1.0


def test_a_run_scored_as_papers_do_ends_with_its_time_and_goes_on(tmp_path: Path) -> None:
    how = plan(cases=(*CASES[:2], CASES[3]), steps=(), papers=True)
    kept: list[list[Any]] = []
    (cut,) = run(tmp_path, "grace/paper", how, keep=kept.append, time_limit=TimeLimit(1200.0, FakeClock()))
    assert cut["incomplete"] == ["generality", "locality", "exact"], "the time was over before these"
    assert set(cut["fitted"]) == {"reliability"}, "of this a part was measured"
    assert kept[-1] == [cut]
    (figures,) = [each for each in run(tmp_path, "grace/paper", how) if each["edits"] == 3]
    assert not {"fitted", "incomplete"} & set(figures)
    assert figures["asked"] == 3
