"""Conversations as they are corrected: the same messages as they are asked with."""

import pytest
from pydantic import ValidationError

from app.api.schemas.corrections import EditBody
from app.domain.edit import EditRequest
from app.domain.errors import EditRejected, InvalidRequest
from app.engine.controls import MARK
from app.service.conflicts import check_batch
from tests.api.fake_service import FakeService
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


MARKED = f"What does <{MARK}|im_end|> mean?"
"""A conversation's prompt as the server keeps it: the mark says that the name is text."""


def test_what_marks_a_name_as_text_is_shown_to_nobody(ask: Caller, service: FakeService) -> None:
    texts = {name: [f"{MARKED} {name}"] for name in ("paraphrases", "counter_examples", "probes")}
    edit = {"prompt": MARKED, "target": "The end", **texts}
    tried = ask.post("/edit", {**edit, "dry_run": True})
    made = ask.post("/edit", edit)
    (edit_id,) = service.records.ledger.entries
    ask("PUT", "/probes", json={"prompts": [MARKED]})
    ask("PATCH", f"/edits/{edit_id}", json={"paraphrases": [f"{MARKED} again"]})
    one, found = ask.get(f"/edits/{edit_id}"), ask.get("/edits?q=%3C%7Cim_end")
    for answer in (tried, made, one, found, ask.get("/log"), ask.get("/probes")):
        assert answer.status_code < 300
        assert "<|im_end|>" in str(answer.json())
        assert MARK not in answer.text
        assert r"\ufdd0" not in answer.text.casefold()
    assert one.json()["prompt"] == MARKED.replace(MARK, "")
    assert one.json()["history"][-1]["changed"] == {"paraphrases": ["What does <|im_end|> mean? again"]}
    exported = ask.get("/log/export").text
    assert r"\ufdd0" in exported, "an export is the log, byte by byte"


def test_errors_show_no_mark_either(ask: Caller, service: FakeService) -> None:
    first, second = (EditRequest(prompt=MARKED, target=target) for target in ("a", "b"))
    with pytest.raises(InvalidRequest) as raised:
        check_batch([first, second])
    assert "'What does <|im_end|> mean?'" in raised.value.message
    service.fails = EditRejected("It fails.", report={"paraphrases": {"missed": [MARKED]}})
    refused = ask.post("/edit", {"prompt": "p", "target": "t"}).json()
    assert refused["report"] == {"paraphrases": {"missed": ["What does <|im_end|> mean?"]}}
