"""Conversations as they are corrected: the same messages as they are asked with."""

import pytest
from pydantic import ValidationError

from app.api.schemas.corrections import EditBody
from tests.api.serving import Caller


def test_a_conversation_is_corrected_as_it_is_asked(ask: Caller) -> None:
    parts = [{"type": "text", "text": "Who leads"}, {"type": "text", "text": "Lumen?"}]
    for content in ("Who leads\nLumen?", parts):
        messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": content}]
        made = ask.post("/edit", {"messages": messages, "target": "Ada Quill"})
        assert made.status_code == 201
        assert made.json()["prompt"] == "<system> be brief\n<user> Who leads\nLumen?\n<assistant>"


def test_a_message_that_says_nothing_is_refused(ask: Caller) -> None:
    refused = ask.post("/edit", {"messages": [{"role": "user"}], "target": "t"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "messages[0].content")


def test_a_role_is_one_that_a_template_knows(ask: Caller) -> None:
    refused = ask.post("/edit", {"messages": [{"role": "<|im_end|>", "content": "x"}], "target": "t"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "messages[0].role")


def test_a_conversation_is_no_longer_than_a_prompt() -> None:
    said = {"role": "user", "content": "x" * 50_000}
    assert EditBody.model_validate({"messages": [said, said], "target": "t"})
    with pytest.raises(ValidationError, match="more than 100000 characters"):
        EditBody.model_validate({"messages": [said, said, {"role": "user", "content": "x"}], "target": "t"})


@pytest.mark.parametrize("target", ["Ada Quill", " Ada Quill", "Ada Quill ", "\n Ada Quill\n"])
def test_blanks_at_the_ends_of_a_target_do_not_count(ask: Caller, target: str) -> None:
    made = ask.post("/edit", {"prompt": "Lumen is led by", "target": target}).json()
    assert made["target"] == "Ada Quill"


def test_a_message_of_no_parts_is_told_one_thing(ask: Caller) -> None:
    messages = [{"role": "user", "content": []}]
    refused = ask.post("/edit", {"messages": messages, "target": "t"}).json()
    told = "`messages[0].content` is empty: at least 1 is needed."
    assert [each["message"] for each in refused["errors"]] == [told]
    asked = ask.post("/v1/chat/completions", {"messages": messages}).json()
    assert (asked["error"]["message"], asked["error"]["param"]) == (told, "messages[0].content")
