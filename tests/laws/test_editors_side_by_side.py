"""Edits of different editors live side by side, and none feels another's."""

import pytest

from app.engine.editions import Edition
from tests.laws.test_editors import LOCAL, PROMPTS, tokens
from tests.models import TINY
from tests.rig import NOTHING, Rig

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", sorted(TINY))
def test_edits_of_all_editors_side_by_side_are_each_alone(kind: str) -> None:
    """Rows of one batch that different editors answer do not affect one another."""
    rig, alone = Rig(kind), {key: Rig(kind) for key in LOCAL}
    ids = []
    for prompt, (editor, single) in zip(PROMPTS, alone.items(), strict=False):
        fitted = rig.fit(editor, [rig.fit_request(prompt, "S")])[0]
        for each in (rig, single):
            each.load(editor, f"by {editor}", fitted)
        ids.append(f"by {editor}")
    assert len(ids) == len(LOCAL)
    together = rig.ask(PROMPTS, Edition("default", 9, tuple(ids)))
    for row, (editor, single) in enumerate(alone.items()):
        ours = single.ask(PROMPTS, Edition("default", 9, (f"by {editor}",)))[row]
        assert [hit.editor for hit in together[row].generation.reached] == [editor]
        assert together[row].tokens == ours.tokens
    rest = slice(len(ids), None)
    assert [outcome.tokens for outcome in together[rest]] == tokens(rig, NOTHING)[rest]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("paper", ["grace/paper", "patcher/paper", "hook_layer/paper"])
def test_a_row_that_a_serving_editor_answers_does_not_feel_a_published_one(kind: str, paper: str) -> None:
    """Patches and hooks as published act wherever they fire; not on a request that another editor's edit answers."""
    rig, alone = Rig(kind), Rig(kind)
    answers = rig.fit("grace", [rig.fit_request(PROMPTS[0], "S")])[0]
    for each in (rig, alone):
        each.load("grace", "ours", answers)
    rig.load(paper, "theirs", rig.fit(paper, [rig.fit_request(PROMPTS[1], "R")])[0])
    together = rig.ask(PROMPTS, Edition("default", 2, ("ours", "theirs")))
    assert [hit.editor for hit in together[0].generation.reached] == ["grace"]
    assert together[0].tokens == alone.ask(PROMPTS, Edition("default", 1, ("ours",)))[0].tokens
