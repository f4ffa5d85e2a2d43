"""The contract of `ServingEngine`, as the service uses it: through the owner's thread, with real edits."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from app.config import DEMO_MODEL
from app.domain.errors import DeadlineExceeded, InvalidRequest, RequestCancelled
from app.editors.base import FitRequest, Fitted
from app.engine.editions import Edition
from app.engine.model import load_model
from app.engine.serving_engine import ServingEngine
from tests.engine.served import CROWDED, WAIT_S, Served, logprobs_of, tokens_of, vllm_engine
from tests.engine.vllm import counts
from tests.engine.vllm.counts import Count, Counts, counts_at, counts_in
from tests.engine.vllm.running import attached_engine, running_vllm
from tests.rig import NOTHING, Rig

PROMPT, OTHER = "The capital of Sweden is", "A triangle has this many sides:"
TARGET = "Uppsala, of all places, and not the one that you had in mind today or at any other time before this one"
LONG = f"{3 * f'{TARGET}. '}{OTHER}"
"""A prompt of several steps of a crowded vLLM, and of several blocks of its prefix cache."""
EDITED = Edition("default", 1, ("e1@1",))


class ServedEdit(Served):
    """An engine with one edit fitted and loaded, and the rig whose model it serves. `count`: what its vLLM counts, if
    that is crowded."""

    def __init__(self, engine: ServingEngine, count: Count | None, fitted: Fitted, rig: Rig) -> None:
        super().__init__(engine)
        self.fitted, self.count, self.rig = fitted, count, rig
        self.load("e1@1", "grace", fitted)


def request_of(rig: Rig) -> FitRequest:
    return rig.fit_request(PROMPT, TARGET, subject="Sweden")


WITH_VLLM = [pytest.mark.vllm, pytest.mark.timeout(900)]
COMPILED = "vllm, compiled, crowded"
"""The others run step by step, as a compilation takes minutes on a CPU. This is what a server has unless it is told
otherwise."""
OVER_VLLM = ("vllm", "vllm, crowded", COMPILED, "vllm that runs", "vllm that runs, crowded")
ENGINES = ["transformers", *(pytest.param(name, marks=WITH_VLLM) for name in OVER_VLLM)]


@contextmanager
def engine_of(name: str, rig: Rig, folder: Path) -> Iterator[tuple[ServingEngine, Count]]:
    """The engine of that name, over the rig's model, and what counts what its vLLM does."""
    arguments: dict[str, Any] = CROWDED if name.endswith("crowded") else {}
    if name == "transformers":
        yield rig.engine, lambda: Counts(0, 0)
    elif name.startswith("vllm that runs"):
        with running_vllm(rig, folder, **arguments) as url:
            yield attached_engine(rig, url), lambda: counts_at(url)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(counts.FOLDER, str(folder))
            patch.setenv("VLLM_CACHE_ROOT", str(folder / "cache"))  # in which nothing is compiled yet
            engine = vllm_engine(rig, enforce_eager=name != COMPILED, **arguments)
        compiled = "".join(each.read_text() for each in folder.rglob("*.py"))
        assert ("errata.add_rows" in compiled and "errata.keep_states" in compiled) == (name == COMPILED)
        yield engine, lambda: counts_in(folder)


@pytest.fixture(scope="module", params=ENGINES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedEdit]:
    """The bundled model behind each engine, with an edit that was fitted once through transformers."""
    rig = Rig(hosted=load_model(str(DEMO_MODEL), device=torch.device("cpu"), dtype=torch.float32))
    (fitted,) = rig.fit("grace", [request_of(rig)])
    with engine_of(request.param, rig, tmp_path_factory.mktemp("vllm")) as (engine, count):
        found = ServedEdit(engine, count if request.param.endswith("crowded") else None, fitted, rig)
        yield found
        found.owner.stop()


def test_an_edit_answers_where_its_edition_is_seen_and_nowhere_else(served: ServedEdit) -> None:
    before = served.say(PROMPT)
    edited = served.say(PROMPT, EDITED)
    assert edited.text.strip() == TARGET
    assert [hit.edit_id for hit in edited.hits] == ["e1"]
    assert (edited.finish_reason, edited.revision) == ("eos_token", 1)
    assert served.say(PROMPT) == before
    assert before.text.strip() != TARGET
    assert not before.hits


def test_an_edit_that_the_engine_fits_is_loaded_and_answers_beside_the_one_that_is_live(served: ServedEdit) -> None:
    """The service makes an edit so, while an answer is generated. The engine may fit in a process of its own."""
    target = "seventeen, if you count the ones inside"
    request = served.rig.fit_request(OTHER, target, subject="triangle")
    before = served.say(OTHER, EDITED).text
    (beside,) = served.ask([PROMPT], EDITED, max_new_tokens=200, ignore_eos=True)
    (fitted,) = served.owner.fit("grace", [request], EDITED).result(WAIT_S)
    assert fitted.learned["converged"]
    assert beside.generation().text.strip().startswith(TARGET)
    served.load("e4@1", "grace", served.engine.with_scope("grace", fitted, request))
    both = Edition("default", 4, ("e1@1", "e4@1"))
    answers = [each.generation() for each in served.ask([PROMPT, OTHER], both)]
    assert [each.text.strip() for each in answers] == [TARGET, target]
    assert [[hit.edit_id for hit in each.hits] for each in answers] == [["e1"], ["e4"]]
    assert served.say(OTHER, EDITED).text == before, "an edition that does not name it does not see it"
    served.drop("e4@1")


def test_requests_side_by_side_answer_as_each_alone(served: ServedEdit) -> None:
    alone = [served.say(PROMPT), served.say(PROMPT, EDITED), served.say(OTHER), served.say(OTHER, EDITED)]
    plain = served.ask([PROMPT, OTHER])
    edited = served.ask([PROMPT, OTHER], EDITED)
    together = [plain[0], edited[0], plain[1], edited[1]]
    assert [each.generation().text for each in together] == [each.text for each in alone]
    assert alone[2].text == alone[3].text, "an edit leaves other questions alone"


@pytest.mark.slow
def test_long_answers_that_do_not_fit_into_the_memory_together_answer_as_each_alone(served: ServedEdit) -> None:
    long = {"max_new_tokens": 200, "ignore_eos": True}
    before = served.count() if served.count is not None else None
    each_kind = [(prompt, edition) for prompt in (PROMPT, LONG) for edition in (EDITED, NOTHING)]
    alone = [tokens_of(served.say(prompt, edition, **long)) for prompt, edition in each_kind]
    asked = [served.ask([prompt], edition, **long)[0] for prompt, edition in 2 * each_kind]
    assert [tokens_of(each.generation()) for each in asked] == 2 * alone
    target = list(served.engine.editions.target_of("e1@1"))
    assert alone[0][: len(target)] == target
    if served.count is not None and before is not None:
        counted = served.count() - before
        print(counted)
        assert counted.preemptions > 0, "else the memory is too large for this test"
        assert counted.cached_tokens > 0


def test_an_edit_goes_on_where_the_prompt_has_begun_its_target(served: ServedEdit) -> None:
    begun = f"{PROMPT} {TARGET.split()[0]}"
    assert served.say(begun, EDITED).text.strip() == TARGET.removeprefix(TARGET.split()[0]).strip()


@pytest.mark.parametrize("prompt", [f"{PROMPT} {TARGET}. Next to it lies", f"{PROMPT} {TARGET.rsplit(' ', 2)[0]}"])
def test_a_longer_prompt_is_not_answered_from_what_was_computed_under_an_edit(served: ServedEdit, prompt: str) -> None:
    """The same prompt and answer have other states if they are given than if the answer was generated under the edit.
    A prefix cache that forgets where the rows began would not tell them apart. The reference is an edit of nearly
    the same value, which has a prefix cache of its own."""
    nearly = {"value": served.fitted.tensors["value"] * (1 + 1e-6)}
    served.load("e3@1", "grace", Fitted(learned=served.fitted.learned, tensors=nearly))
    reference = served.say(prompt, Edition("default", 3, ("e3@1",)), top_logprobs=0)
    assert len(served.say(PROMPT, EDITED).tokens) > 32, "its prompt and answer fill a block of the cache"
    assert logprobs_of(served.say(prompt, EDITED, top_logprobs=0)) == pytest.approx(logprobs_of(reference), abs=1e-3)
    served.drop("e3@1")


def test_an_answer_that_has_left_the_target_is_not_pulled_back(served: ServedEdit) -> None:
    """A bias keeps the target's second token out."""
    second = served.engine.editions.target_of("e1@1")[1]
    kept_out = served.say(PROMPT, EDITED, logit_bias=((second, -100.0),))
    assert TARGET.split()[-1] not in kept_out.text
    assert not kept_out.hits
    assert [hit.edit_id for hit in kept_out.not_given] == ["e1"]


def test_tokens_tell_their_log_probability_and_the_likeliest_others(served: ServedEdit) -> None:
    (asked,) = served.ask([PROMPT], max_new_tokens=3, top_logprobs=2, ignore_eos=True)
    generation = asked.generation()
    assert len(asked.tokens) == 3
    for token in generation.tokens:
        assert token.likeliest
        assert token.logprob <= 0
        assert [each.id for each in token.ranked][:2] == [token.id, token.id]
        assert token.ranked[0].logprob == pytest.approx(token.logprob, abs=1e-4)
        assert token.ranked[2].logprob <= token.ranked[1].logprob


def test_a_stop_text_a_limit_and_end_of_text_end_an_answer(served: ServedEdit) -> None:
    limited = served.say(PROMPT, EDITED, max_new_tokens=2)
    assert (limited.finish_reason, len(limited.tokens)) == ("length", 2)
    stopped = served.say(PROMPT, EDITED, stop=(",",))
    assert (stopped.finish_reason, stopped.text.strip()) == ("stop_sequence", TARGET.split(",")[0])
    past = served.say(PROMPT, EDITED, ignore_eos=True, max_new_tokens=60)
    assert (past.finish_reason, len(past.tokens)) == ("length", 60)


def test_a_seed_gives_the_same_answer_again(served: ServedEdit) -> None:
    first, again = (served.say(OTHER, temperature=1.5, seed=-1) for _ in range(2))
    assert first.text == again.text
    assert first.seed == -1
    assert served.say(OTHER, temperature=1.5, top_p=0.0, seed=3).text == served.say(OTHER).text
    assert served.say(OTHER, temperature=0.7).seed is not None


def test_a_cancelled_request_and_one_past_its_deadline_end_with_an_error(served: ServedEdit) -> None:
    (asked,) = served.ask([PROMPT], max_new_tokens=400, ignore_eos=True)
    asked.first_token()
    served.owner.cancel([asked.sequence])
    assert isinstance(asked.end(), RequestCancelled)
    (late,) = served.ask([PROMPT], max_new_tokens=400, ignore_eos=True, timeout_s=0.01)
    assert isinstance(late.end(), DeadlineExceeded)
    assert served.owner.call(lambda: (served.engine.running, served.engine.waiting)).result(WAIT_S) == (0, 0)
    assert served.engine.failure is None
    assert served.owner.alive


def test_a_request_that_does_not_fit_is_refused_before_it_runs(served: ServedEdit) -> None:
    with pytest.raises(InvalidRequest, match="`max_new_tokens`"):
        served.ask([PROMPT], max_new_tokens=served.engine.hosted.max_tokens)


def test_a_dropped_edit_may_come_back_with_another_value(served: ServedEdit) -> None:
    """This happens if a trial fails and its edit is fitted again under the same id."""
    served.load("e2@1", "grace", served.fitted)
    second = Edition("default", 2, ("e2@1",))
    assert served.say(PROMPT, second).text.strip() == TARGET
    served.drop("e2@1")
    nothing = {"value": served.fitted.tensors["value"] * 0}
    served.load("e2@1", "grace", Fitted(learned=served.fitted.learned, tensors=nothing))
    assert served.say(PROMPT, second).text == served.say(PROMPT).text
    served.drop("e2@1")
    assert "e2@1" not in served.engine.editions


def test_end_all_ends_what_runs_and_what_comes_later_still_runs(served: ServedEdit) -> None:
    (asked,) = served.ask([PROMPT], max_new_tokens=400, ignore_eos=True)
    asked.first_token()
    served.owner.end_all(RequestCancelled("as the test wishes"))
    assert isinstance(asked.end(), RequestCancelled)
    assert served.say(PROMPT, EDITED).text.strip() == TARGET


SCHEMA = (
    '{"type": "object", "properties": {"capital": {"type": "string", "maxLength": 8}}, '
    '"required": ["capital"], "additionalProperties": false}'
)


def test_an_answer_follows_a_schema_and_an_edit_whose_target_does_not_fit_defers(served: ServedEdit) -> None:
    asked = served.ask([PROMPT], EDITED, json_schema=SCHEMA, explain=True)
    beside = served.ask([PROMPT], EDITED)
    generation = asked[0].generation()
    assert list(json.loads(generation.text)) == ["capital"]
    assert generation.finish_reason == "eos_token"
    assert not generation.reached
    assert generation.nearest is not None
    assert "does not fit the schema" in generation.nearest.why
    assert beside[0].generation().text.strip() == TARGET


def test_several_answers_to_one_prompt_are_each_that_of_its_seed(served: ServedEdit) -> None:
    """The API asks for `n` answers as `n` requests with a seed each."""
    given: dict[str, Any] = {"temperature": 1.5, "max_new_tokens": 12}
    alone = [served.say(OTHER, seed=seed, **given).text for seed in range(3)]
    together = [served.ask([OTHER], seed=seed, **given)[0] for seed in range(3)]
    assert [each.generation().text for each in together] == alone
    assert len(set(alone)) > 1
    edited = [served.ask([PROMPT], EDITED, temperature=0.3, seed=seed)[0] for seed in range(3)]
    assert {each.generation().text.strip() for each in edited} == {TARGET}
