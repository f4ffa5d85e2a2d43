"""A client's request becomes the inputs that an editor and the scope index learn from."""

from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.edit import EditRequest
from app.domain.errors import InvalidRequest
from app.editors.lora_mixture.serving import export_lora
from app.engine.client import EngineClient
from app.engine.editions import Edition
from app.engine.owner import EngineOwner
from app.scope.phrasebook import load_phrasebook
from app.service.fit_requests import MADE_CONTEXTS, PREFIXES, FitRequestBuilder
from tests.engine.test_text import TEMPLATE
from tests.rig import Rig

KING = "The king of Zenda was"


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def request_builder(rig: Rig) -> FitRequestBuilder:
    return FitRequestBuilder(EngineClient(EngineOwner(rig.engine)), load_phrasebook())


def test_paraphrases_are_made_in_the_prompts_conversation(request_builder: FitRequestBuilder) -> None:
    request = EditRequest(prompt="Who is the mother of Ada Quill?", target="Eva")
    assert "Who is Ada Quill's mother?" in request_builder.made_prompts(request)
    made = request_builder.fit_request(request)
    assert len(made.scope.made) > MADE_CONTEXTS
    assert len(made.made_contexts) == MADE_CONTEXTS + 3, "and the question itself in three other frames"
    assert request_builder.fit_request(EditRequest(prompt="Ada said", target="x")).made_contexts == ()
    assert request_builder.framed_like(request.prompt, "Ada's mother is") == "Ada's mother is"


def test_a_border_is_moved_where_there_is_one(request_builder: FitRequestBuilder) -> None:
    asked = EditRequest(prompt=KING, target="R", widen=2.0)
    assert (
        request_builder.scope_request(asked).widen,
        request_builder.scope_request(replace(asked, widen=None)).widen,
    ) == (2, 1)
    assert request_builder.editors(asked)
    with pytest.raises(InvalidRequest, match="has no bound to `widen`"):
        request_builder.editors(replace(asked, editor="grace", preset="paper"))


def test_nothing_is_left_hanging_on_the_model(rig: Rig) -> None:
    """A look at its head that stayed would keep every fit's states, and every stopped server, in memory."""
    rig.learn("grace", [("e0", KING, "R")])
    rig.ask([KING], Edition("default", 1, ("e0",)))
    assert not rig.hosted.model.get_output_embeddings()._forward_pre_hooks


def test_an_editor_is_given_what_is_asked_and_what_must_be_left_alone(
    rig: Rig, request_builder: FitRequestBuilder
) -> None:
    request = EditRequest(
        prompt=KING,
        target="R",
        paraphrases=("Zenda had for a king", KING),
        counter_examples=("Zenda lies in",),
        probes=("Zenda's queen was", KING),
    )
    made = request_builder.fit_request(request, probes=("The river of Zenda is",))
    encode = rig.engine.text.encode
    asked = (KING, "Zenda had for a king")
    assert made.given == 1
    assert made.contexts == tuple(encode(each) for each in (*asked, *(f"{prefix}{KING}" for prefix in PREFIXES)))
    assert made.context_texts[:2] == asked
    assert len(made.ends) == len(made.context_texts) == len(made.contexts)
    assert made.counter_contexts == (encode("Zenda lies in"), encode("Zenda's queen was"))
    assert made.subject == "Zenda", "as the prompt names it"
    assert request_builder.fit_request(EditRequest(prompt="it was", target="R")).subject is None


def test_a_scope_is_asked_for_by_questions(request_builder: FitRequestBuilder) -> None:
    request = EditRequest(
        prompt=KING,
        target="R",
        namespace="support",
        subject="Zenda",
        aliases=("the old castle",),
        paraphrases=("Zenda had for a king", KING),
        counter_examples=("Zenda lies in",),
        probes=("Zenda's queen was",),
    )
    scope = request_builder.scope_request(request, probes=("Who is it?", KING, "Zenda lies in"))
    assert scope.keys == ((KING,), ("Zenda had for a king",))
    assert scope.made == tuple((each,) for each in request_builder.made_prompts(request))
    assert scope.counter == (("Zenda lies in",), ("Zenda's queen was",), ("Who is it?",)), "but for what it asks itself"
    assert (scope.subject, scope.aliases, scope.namespace) == ("Zenda", ("the old castle",), "support")
    assert request_builder.fit_request(request).scope == request_builder.scope_request(request)
    plain = request_builder.scope_request(EditRequest(prompt="Ada said", target="x"))
    assert (plain.subject, plain.made, plain.counter) == (None, (), ())


def test_of_a_conversation_a_scope_is_given_the_turns(
    rig: Rig, request_builder: FitRequestBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.hosted.tokenizer, "chat_template", TEMPLATE, raising=False)
    turns = ("Who was king of Zenda?", "Rudolf.", "Who is the mother of Ada Quill?")
    roles = ("user", "assistant", "user")
    prompt = rig.engine.text.render([{"role": r, "content": c} for r, c in zip(roles, turns, strict=True)])
    scope = request_builder.scope_request(EditRequest(prompt=prompt, target="Eva"))
    assert scope.keys == (turns,)
    assert (*turns[:2], "Who is Ada Quill's mother?") in scope.made


def test_a_subject_that_the_prompt_does_not_name_is_refused(request_builder: FitRequestBuilder) -> None:
    request = EditRequest(prompt=KING, target="R", subject="Graustark")
    with pytest.raises(InvalidRequest, match="names neither it nor an alias"):
        request_builder.editors(request)
    assert "grace" in request_builder.editors(
        EditRequest(prompt=KING, target="R", subject="Graustark", aliases=("Zenda",))
    )
    assert "grace" in request_builder.editors(EditRequest(prompt=KING, target="R", subject="Graustark", force=True))


def test_a_lora_is_read_as_the_edit_that_is_asked_for(
    rig: Rig, request_builder: FitRequestBuilder, tmp_path: Path
) -> None:
    fitted = rig.fit("lora_mixture", [rig.fit_request(KING, "R")])[0]
    export_lora(tmp_path / "lora", fitted.learned, fitted.tensors["key"], fitted.tensors)
    request = EditRequest(prompt=KING, target="R", editor="lora_mixture")
    rig.load("lora_mixture", "e0", request_builder.take_lora(request, tmp_path / "lora"))
    (outcome,) = rig.ask([KING], Edition("default", 1, ("e0",)))
    assert [hit.edit_id for hit in outcome.generation.reached] == ["e0"]
