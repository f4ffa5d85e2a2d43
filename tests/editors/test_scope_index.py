"""Which edit answers: words and distances together, thousands of edits about one subject, answers that were begun."""

import pytest
import torch

from app.editors.base import AskedBeside, FitRequest, PromptView
from app.editors.phrasebook import load_phrasebook
from app.editors.said import Said
from app.editors.scope_index import READ, WITHIN, ScopeIndex, _begun, _nearest
from tests.editors.test_what import what_of

LEXICON = load_phrasebook().lexicon


def index_of(*prompts: str, subjects: tuple[str, ...] = ()) -> ScopeIndex:
    what, view = what_of()
    index = ScopeIndex(what, LEXICON, view.device)
    for at, prompt in enumerate(prompts):
        request = FitRequest(
            texts=(prompt,),
            contexts=(tuple(prompt.encode()),),
            counter_contexts=(),
            target_ids=(at + 1, 0),
            subject=subjects[at] if subjects else "Lumen",
            aliases=(),
            counter_examples=(),
            seed=0,
        )
        learned, keys = index.learn(request)
        index.load(f"e{at}", index.read(f"e{at}", learned), keys)
    return index


def view_of(index: ScopeIndex, text: str) -> PromptView:
    """A prompt whose activations say nothing of what is asked."""
    _, view = what_of()
    generator = torch.Generator().manual_seed(len(text))
    return PromptView(
        text=text,
        features={},
        state=100 * torch.randn(view.width, generator=generator),
        logits=torch.randn(view.vocabulary, generator=generator),
    )


def answering(index: ScopeIndex, text: str) -> str | None:
    part = index.compile([f"e{at}" for at in range(len(index._book))])
    found = index.decide(view_of(index, text), part, "grace")
    return None if found is None else found.edit_id


def test_where_activations_say_nothing_words_decide() -> None:
    index = index_of("Who founded Lumen?", "What is the revenue of Lumen?")
    assert answering(index, "By whom was Lumen founded?") == "e0"
    assert answering(index, "Lumen's revenue is") == "e1"
    assert answering(index, "What is the colour of Lumen?") is None
    assert answering(index, "When was Lumen founded?") is None
    assert answering(index, "Who founded Tessel?") is None


def test_of_two_that_are_alike_enough_the_more_alike_answers() -> None:
    index = index_of("What is the yearly revenue of Lumen?", "What is the revenue of Lumen?", "What did Lumen earn?")
    assert answering(index, "Lumen's yearly revenue is") == "e0"
    assert answering(index, "Lumen's revenue is") == "e1"


LUMENS = ("Lumen", "Lumen Studio")


def answering_like(index: ScopeIndex, own: str, text: str, live: tuple[str, ...] = ("e0", "e1")) -> str | None:
    """Who answers a text whose activations are those of an edit's own prompt."""
    _, view = what_of()
    ((states, logits),) = view.heads([tuple(own.encode())])
    prompt = PromptView(text=text, features={}, state=states[0], logits=logits[0])
    found = index.decide(prompt, index.compile(live), "grace")
    return None if found is None else found.edit_id


def test_of_names_that_hold_one_another_the_longest_is_meant() -> None:
    own = "Who makes Lumen?"
    index = index_of(own, "What is the price of Lumen Studio?", subjects=LUMENS)
    assert answering_like(index, own, own) == "e0"
    assert answering_like(index, own, "Who makes Lumen Studio?") is None
    assert answering_like(index, own, "Who makes Lumen Studio? Lumen Studio Lumen Studio?") is None
    assert answering_like(index, own, "Who makes Lumen, not Lumen Studio?") == "e0"
    assert answering_like(index, own, "Who makes Lumen Studio?", ("e0",)) == "e0", "of Studio nothing is known"


def test_a_longer_form_of_a_name_is_answered_where_the_words_suffice() -> None:
    own = "Who is the chief executive of Lumen?"
    index = index_of(own, "Where is the head office of Lumen Inc?", subjects=("Lumen", "Lumen Inc"))
    assert answering_like(index, own, "Who is the chief executive of Lumen Inc?") == "e0"


@pytest.mark.parametrize(
    ("own", "subjects"),
    [("Who makes Lumen Studio?", LUMENS), ("What causes Hepatitis B?", ("Hepatitis", "Hepatitis B"))],
)
def test_a_longer_name_does_not_take_from_an_edit_what_its_own_prompt_says(own: str, subjects: tuple[str, ...]) -> None:
    index = index_of(own, f"What is the price of {subjects[1]}?", subjects=subjects)
    assert answering_like(index, own, own) == "e0"


@pytest.mark.parametrize(
    ("ids", "target", "count"),
    [
        ([9, 1], [1, 2, 3], 1),
        ([9, 1, 2], [1, 2, 3], 2),
        ([9, 1, 2, 3], [1, 2, 3], 0),
        ([1, 1], [1, 1, 2], 2),
        ([9], [1, 2], 0),
        ([], [1, 2], 0),
    ],
)
def test_how_much_of_an_answer_was_begun(ids: list[int], target: list[int], count: int) -> None:
    assert _begun(ids, target) == count


def test_of_thousands_of_edits_about_one_subject_the_nearest_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of(*(f"What is the value of thing{at} at Lumen?" for at in range(READ + 50)))
    read: list[Said] = []
    monkeypatch.setattr(Said, "alike", lambda self, asked, lexicon: read.append(self) or 0.0)
    answering(index, "What is the value of thing7 at Lumen?")
    assert len(read) == READ


def learned_beside(prompt: str, *beside: AskedBeside, radius: float) -> tuple[float | None, float]:
    """The cap that an edit's scope got from what is asked beside it, and how far that lies."""
    what, view = what_of()
    what._radius = radius
    index = ScopeIndex(what, LEXICON, view.device)
    learned, _ = index.learn(
        FitRequest(
            texts=(prompt,),
            contexts=(tuple(prompt.encode()),),
            counter_contexts=(),
            target_ids=(1, 0),
            subject="Lumen",
            aliases=(),
            counter_examples=(),
            seed=0,
            asked=beside,
        )
    )
    own = what.of([tuple(prompt.encode())])
    return learned["cap"], float(_nearest(what.of([beside[0].ids]), own)[0])


@pytest.mark.parametrize(
    ("text", "probe", "bounds"),
    [
        ("What is the colour of Lumen?", True, True),
        ("By whom was Lumen founded?", True, False),  # asks the same: verification tells of it
        ("What is the colour of Tessel?", True, False),
        ("When was Lumen founded?", False, True),
        ("Whose idea was Lumen?", False, False),  # may well be what the edit is made for
    ],
)
def test_what_is_asked_in_the_namespace_bounds_the_scope(text: str, probe: bool, bounds: bool) -> None:
    beside = AskedBeside(text, tuple(text.encode()), probe)
    cap, apart = learned_beside("Who founded Lumen?", beside, radius=1e-3)
    assert cap == (pytest.approx(WITHIN * apart, rel=1e-4) if bounds else None)
    assert learned_beside("Who founded Lumen?", beside, radius=2 * apart)[0] is None, "the model takes it for the same"
