"""From what a client asked for to what an editor learns from."""

from app.domain.edit import EditRequest
from app.editors.bank import load_bank
from app.editors.nearby import COUNT, Nearby
from app.editors.phrasebook import load_phrasebook
from app.engine.editions import Edition
from app.service.preparing import MOST_BESIDE, Preparing
from tests.rig import Rig


def test_other_questions_are_made_and_those_that_do_not_fit_are_left_out() -> None:
    """Nobody asked for them: a name that is long must not refuse the edit."""
    rig = Rig()
    preparing = Preparing(rig.engine, Nearby(load_bank()), load_phrasebook())
    made = preparing.fit_request(EditRequest(prompt="The king of Zenda was", target="Rudolf", subject="Zenda"))
    assert len(made.nearby_contexts) == COUNT
    long = preparing.fit_request(EditRequest(prompt="The king of Zenda was", target="Rudolf", subject="Z" * 5000))
    assert long.nearby_contexts == ()


def test_paraphrases_are_made_in_the_prompts_conversation() -> None:
    rig = Rig()
    preparing = Preparing(rig.engine, Nearby(()), load_phrasebook())
    request = EditRequest(prompt="Who is the mother of Ada Quill?", target="Eva")
    assert "Who is Ada Quill's mother?" in preparing.made_prompts(request)
    made = preparing.fit_request(request)
    assert len(made.made_texts) == len(made.made_contexts) > 3
    assert preparing.fit_request(EditRequest(prompt="Ada said", target="x")).made_contexts == ()
    assert preparing.as_asked(request.prompt, "Ada's mother is") == "Ada's mother is"


def test_nothing_is_left_hanging_on_the_model() -> None:
    """A look at its head that stayed would keep every fit's states, and every stopped server, in memory."""
    rig = Rig()
    rig.learn("grace", [("e0", "The king of Zenda was", "R")])
    rig.ask(["The king of Zenda was"], Edition("default", 1, ("e0",)))
    assert not rig.hosted.model.get_output_embeddings()._forward_pre_hooks


def test_what_is_asked_about_the_same_is_learned_from() -> None:
    """Probes of the namespace and recent prompts, but for the request's own and those about others."""
    rig = Rig()
    preparing = Preparing(rig.engine, Nearby(()), load_phrasebook())
    request = EditRequest(prompt="The king of Zenda was", target="R", counter_examples=("Zenda lies in",))
    probes = ("Zenda's queen was", "The king of Peru was", "Zenda lies in")
    beside = preparing.overheard(probes, probes=True)
    beside += preparing.overheard(("The king of Zenda was", "Zenda?", "Zenda " * 5000), probes=False)
    made = preparing.fit_request(request, beside)
    assert [(each.text, each.probe) for each in made.asked] == [("Zenda's queen was", True), ("Zenda?", False)]
    assert made.asked[0].ids == tuple(rig.engine.text.encode("Zenda's queen was"))
    many = preparing.overheard([f"Zenda {at}?" for at in range(99)], probes=False)
    assert len(preparing.fit_request(request, many).asked) == MOST_BESIDE
