"""What decides in a conversation is its last turn."""

from typing import Any

from app.editors.base import PromptView
from app.engine.editions import Edition
from tests.engine.test_text import CHATML
from tests.rig import Rig

ASKED = "The king of Zenda was"


def test_a_subject_in_the_history_is_not_asked_about(monkeypatch: Any) -> None:
    rig = Rig()
    monkeypatch.setattr(rig.hosted.tokenizer, "chat_template", CHATML, raising=False)
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "R"}]
    prompts = [rig.engine.text.render([*turns, {"role": "user", "content": each}]) for each in (ASKED, "And then?")]
    rig.learn("grace", [("e0", prompts[0], "S")])
    seen: list[str] = []
    decide = rig.engine.editions.decide

    def watch(view: PromptView, edition: Edition) -> Any:
        seen.append(view.text)
        return decide(view, edition)

    monkeypatch.setattr(rig.engine.editions, "decide", watch)
    first, second = rig.ask(prompts, Edition("default", 1, ("e0",)))
    assert seen == [ASKED, "And then?"]
    assert [hit.edit_id for hit in first.generation.hits] == ["e0"]
    assert second.generation.hits == ()
