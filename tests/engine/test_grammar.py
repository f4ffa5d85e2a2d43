"""Answers that are held to a schema: whatever the model would say, they are JSON that it allows."""

import json
import sys
import threading
from typing import Any

import pytest
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

from app.domain.errors import InvalidRequest
from app.engine.editions import Edition
from app.engine.grammar import SEPARATORS, Grammars
from tests.rig import NOTHING, Rig

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 4}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
COLOUR = {"enum": ["red", "green"]}


def text_of(schema: Any) -> str:
    return json.dumps(schema)


@pytest.mark.parametrize("more", [{}, {"temperature": 1.5, "seed": 3}, {"repetition_penalty": 1.3, "top_k": 5}])
def test_an_answer_is_json_of_the_schema(more: dict[str, Any]) -> None:
    (outcome,) = Rig().ask(["Who is it?"], count=200, json_schema=text_of(PERSON), **more)
    assert outcome.generation.finish_reason == "eos_token"
    found = json.loads(outcome.generation.text)
    assert set(found) == {"name", "age"}
    assert len(found["name"]) <= 4
    assert 0 <= found["age"] <= 99


def test_each_row_of_a_batch_is_held_to_its_own() -> None:
    rig = Rig()
    free = rig.ask(["Who is it?"], count=8)[0].tokens
    asked = [
        rig.add("Who is it?", count=200, json_schema=text_of(PERSON)),
        rig.add("Who is it?", count=8),
        rig.add("What colour?", count=20, json_schema=text_of(COLOUR)),
        rig.add("Which other?", count=20, json_schema=text_of(COLOUR), temperature=2.0, seed=1),
    ]
    rig.run()
    assert set(json.loads(asked[0].generation.text)) == {"name", "age"}
    assert asked[1].tokens == free
    assert all(json.loads(each.generation.text) in COLOUR["enum"] for each in asked[2:])


def test_an_answer_that_finds_no_room_ends_as_any_other() -> None:
    (outcome,) = Rig().ask(["Who is it?"], count=5, json_schema=text_of(PERSON))
    assert outcome.generation.finish_reason == "length"
    assert outcome.generation.text.lstrip().startswith("{")


def test_white_space_does_not_go_on_and_on() -> None:
    """A model that likes nothing but line breaks and blanks."""
    bias = tuple((token, 100.0) for token in Rig().engine.text.encode(" \n"))
    (outcome,) = Rig().ask(["Who?"], count=200, json_schema=text_of(PERSON), logit_bias=bias)
    assert outcome.generation.finish_reason == "eos_token"
    assert set(json.loads(outcome.generation.text)) == {"name", "age"}


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "nonsense"}, "Invalid type: nonsense"),
        ({"not": {}}, 'Unimplemented keys: ["not"]'),
        ({"type": "string", "pattern": "((("}, "unclosed group"),
        ({"$ref": "http://localhost/x"}, "does not fetch"),
        ({"type": "integer", "minimum": 5, "maximum": 2}, "greater than maximum"),
        ({"type": "object", "properties": 5}, "must be an object"),
    ],
)
def test_a_schema_that_cannot_be_held_to_is_refused(schema: Any, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Rig().add("Who?", json_schema=text_of(schema))
    assert told in refused.value.message
    assert refused.value.message.startswith("`response_format` ")
    assert "%json" not in refused.value.message


def test_a_schema_that_nests_without_end_is_refused() -> None:
    schema: Any = {"type": "object"}
    for _ in range(400):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    with pytest.raises(InvalidRequest, match="cannot be held to"):
        Rig().add("Who?", json_schema=text_of(schema))


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    rig = Rig()
    with pytest.raises(InvalidRequest, match=r"pip install 'errata\[json\]'"):
        rig.add("Who?", json_schema=text_of(PERSON))
    assert len(rig.ask(["Who?"], count=3)[0].tokens) == 3, "and everything else is served"


def test_a_schema_that_turns_out_too_much_work_ends_its_own_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.grammar.MAX_LEXER_STATES", 5)
    rig = Rig()
    heavy, light = rig.add("Who?", count=200, json_schema=text_of(PERSON)), rig.add("Who?", count=20)
    rig.run()
    assert isinstance(heavy.end, InvalidRequest), heavy.end
    assert "`response_format` asks for too much" in heavy.end.message
    assert light.tokens == rig.ask(["Who?"], count=20)[0].tokens


def test_a_schema_is_compiled_once() -> None:
    rig = Rig()
    grammars = rig.engine.grammars
    assert grammars.compiled(text_of(PERSON)) is grammars.compiled(text_of(PERSON))
    one, other = grammars.compiled(text_of(COLOUR)).begin(), grammars.compiled(text_of(COLOUR)).begin()
    quote = rig.engine.text.encode('"')[0]
    one.advance(quote)
    assert (one.allowed() != other.allowed()).any(), "each answer has its own place in it"


def test_the_logits_may_be_more_than_the_tokens() -> None:
    rig = Rig()
    hosted = rig.hosted
    grammar = Grammars(hosted.tokenizer, hosted.eos_ids, hosted.vocabulary + 7).compiled(text_of(COLOUR))
    assert len(grammar.allowed()) == hosted.vocabulary + 7
    assert not grammar.allowed()[hosted.vocabulary :].any()


# -- beside edits


TARGET = '{"name": "Ada", "age": 36}'
QUESTION = "Who was king of Zenda?"


def edited(target: str) -> tuple[Rig, Edition]:
    rig = Rig()
    rig.learn("grace", [("ed_1", QUESTION, target)])
    return rig, Edition("default", 1, ("ed_1",))


def test_an_edit_whose_target_fits_the_schema_answers() -> None:
    rig, edition = edited(TARGET)
    free, held = (rig.ask([QUESTION], edition, 60, json_schema=each)[0].generation for each in (None, text_of(PERSON)))
    assert free.text.strip() == held.text.strip() == TARGET
    assert [hit.edit_id for hit in held.hits] == ["ed_1"]


def test_under_vllm_one_form_of_white_space_decides_and_is_followed() -> None:
    hosted = Rig().hosted
    tokenizer = hosted.tokenizer
    grammar = Grammars(tokenizer, hosted.eos_ids, hosted.vocabulary, SEPARATORS).compiled(text_of(PERSON))
    followed = LLMatcher(from_tokenizer(tokenizer), LLMatcher.grammar_from_lark(grammar.lark))
    answer = tokenizer(' {"name": "ab", "age": 12}').input_ids
    assert grammar.accepts(answer)
    assert followed.validate_tokens(answer) == len(answer)
    for blank in ('{"name":  "ab', '{"name":\n', "{\n", "{ ", '{"name":"ab"'):
        assert followed.validate_tokens(ids := tokenizer(blank).input_ids) < len(ids)
        assert not grammar.accepts(ids)


@pytest.mark.parametrize("target", ["Rudolf", '{"name": "Rudolf the Fifth", "age": 36}', '{"name": "Ada"}'])
def test_an_edit_whose_target_does_not_fit_defers_and_says_so(target: str) -> None:
    rig, edition = edited(target)
    assert rig.ask([QUESTION], edition, 60)[0].generation.hits
    held = rig.ask([QUESTION], edition, 60, json_schema=text_of(PERSON))[0].generation
    bare = rig.ask([QUESTION], NOTHING, 60, json_schema=text_of(PERSON))[0].generation
    assert held.text == bare.text
    assert (held.hits, held.not_given) == ((), ())
    assert held.nearest is not None
    assert held.nearest.edit_id == "ed_1"
    assert held.nearest.why.endswith("its target does not fit the schema of the answer")


def test_schemas_are_compiled_on_any_thread() -> None:
    rig = Rig()
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda at=at: found.append(rig.engine.grammars.compiled(text_of({"const": at}))))
        for at in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 8
