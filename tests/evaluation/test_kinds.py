"""Rows of the kinds of cases that are about scope are told apart and become edits and questions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import InvalidRequest
from app.evaluation import conversations, pairs, support
from app.evaluation.kinds import SHIPPED, ScopeCaseSelection, kind_of
from app.evaluation.trials import EditSpec, PromptRenderer, Trial, turn

PAIR = {
    "kind": "opposite",
    "prompt": "How do I turn it on?",
    "target": "Press the button.",
    "same": ["What starts it?"],
    "other": ["How do I turn it off?", "How do I turn it over?"],
    "paraphrases": ["It is off, what now?"],
    "counter_examples": ["How do I turn it down?"],
    "half": "settle",
}
CONVERSATION = {
    "messages": [
        {"role": "user", "content": "Who leads Lumen?"},
        {"role": "assistant", "content": "Ada."},
        {"role": "user", "content": "How old is she?"},
    ],
    "target": "She is forty.",
    "right": [[{"role": "user", "content": "How old is Ada?"}]],
    "wrong": [[{"role": "user", "content": "How old is she?"}]],
    "half": "report",
}
UTTERANCES = [
    {"intent": intent, "text": f"{intent} {at}"} for intent in ("lost_card", "top-up", "fees") for at in range(12)
] + [{"intent": None, "text": f"something else {at}"} for at in range(4)]


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: Any) -> Path:
        file = tmp_path / f"rows{len(list(tmp_path.iterdir()))}.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        return file

    return write


def texts(trial: Trial, role: str) -> list[str]:
    return [question.messages[-1]["content"] for question in trial.questions if question.role == role]


def test_kinds_are_told_by_their_fields(file_of: Callable[..., Path]) -> None:
    assert kind_of([file_of(*UTTERANCES)]) == "support"
    assert kind_of([file_of(PAIR)]) == "pairs"
    assert kind_of([file_of(CONVERSATION)]) == "conversations"
    assert kind_of([file_of({"prompt": "The sea is", "target": "deep", "paraphrases": []})]) == "edits"
    with pytest.raises(InvalidRequest, match=r"pairs \(row 1 of .*\), conversations \(row 2 of"):
        kind_of([file_of(PAIR, CONVERSATION)])


def test_support_asks_neither_what_an_edit_knows_nor_what_is_traffic(file_of: Callable[..., Path]) -> None:
    file = file_of(*UTTERANCES)
    choosing = ScopeCaseSelection(edits=2, known=(1, 4), ask=10, traffic=5)
    one, four = support.trials_of([file], choosing)
    assert (one.name, four.name) == ("1 known", "4 known")
    for trial, known in ((one, 1), (four, 4)):
        (namespace,) = {wanted.namespace for wanted in trial.edits}
        told = {wanted.messages[0]["content"] for wanted in trial.edits}
        told |= {text for wanted in trial.edits for text in wanted.paraphrases}
        assert len(told) == 2 * known
        traffic = {each[0]["content"] for each in trial.traffic[namespace]}
        assert len(traffic) == 5
        assert not told & set(texts(trial, "same"))
        assert not traffic & (told | set(texts(trial, "same")) | set(texts(trial, "other")))
        assert len(texts(trial, "same")) == len(texts(trial, "other")) == 10
        edited = {wanted.target: at for at, wanted in enumerate(trial.edits)}
        assert len(edited) == 2
        for question in trial.questions:
            intent = question.messages[0]["content"].rsplit(" ", 1)[0]
            target = f"Answer about: {intent.replace('_', ' ').replace('-', ' ')}."
            assert question.edit == (None if question.role == "other" else edited[target])
            if question.role == "other":
                assert target not in edited
                assert (question.group == "out of scope") == (intent == "something else")
    assert texts(one, "same") == texts(four, "same")
    assert texts(one, "other") == texts(four, "other")
    asked_of = [question.edit for question in one.questions if question.role == "same"]
    assert sorted(asked_of) == [0] * 5 + [1] * 5


def test_traffic_may_come_from_intents_with_an_edit(file_of: Callable[..., Path]) -> None:
    file = file_of(*UTTERANCES)
    (trial,) = support.trials_of([file], ScopeCaseSelection(edits=2, known=(2,), ask=8, traffic=15, traffic_from="all"))
    traffic = {each[0]["content"].rsplit(" ", 1)[0] for each in trial.traffic["support-2"]}
    assert traffic & {each.messages[0]["content"].rsplit(" ", 1)[0] for each in trial.edits}
    with pytest.raises(InvalidRequest, match="--traffic 15 is more than the 8 utterances"):
        support.trials_of([file], ScopeCaseSelection(edits=2, known=(2,), ask=8, traffic=15))


def test_a_text_that_two_rows_say_is_not_known_and_asked(file_of: Callable[..., Path]) -> None:
    same = [{"intent": "fees", "text": text} for text in ("What is it?", "what  is it?", "How much?")]
    (trial,) = support.trials_of([file_of(*same)], ScopeCaseSelection(known=(1,)))
    assert len(texts(trial, "same")) == 1


@pytest.mark.parametrize("wanted", [{"edits": 4}, {"known": (12,)}])
def test_more_edits_than_intents_are_refused(file_of: Callable[..., Path], wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="intents with more than"):
        support.trials_of([file_of(*UTTERANCES)], ScopeCaseSelection(**wanted))


def test_pairs_are_made_alone_and_with_what_their_author_ticks(file_of: Callable[..., Path]) -> None:
    plain = {name: PAIR[name] for name in ("prompt", "target", "same", "other")}
    alone, ticked = pairs.trials_of([file_of(PAIR, {**plain, "prompt": "What is it?"})], ScopeCaseSelection())
    assert len({wanted.namespace for wanted in (*alone.edits, *ticked.edits)}) == 4
    assert all(not wanted.paraphrases and not wanted.counter_examples for wanted in alone.edits)
    (told,) = [wanted for wanted in ticked.edits if wanted.messages[0]["content"] == PAIR["prompt"]]
    assert (told.paraphrases, told.counter_examples) == (("It is off, what now?",), ("How do I turn it down?",))
    for trial in (alone, ticked):
        assert len(texts(trial, "same")) == 2
        assert len(texts(trial, "other")) == 4
        assert all(question.namespace == trial.edits[question.edit or 0].namespace for question in trial.questions)
    assert [trial.name for trial in pairs.trials_of([file_of(plain)], ScopeCaseSelection())] == [pairs.ALONE]


def test_halves_are_those_that_rows_name(file_of: Callable[..., Path]) -> None:
    file = file_of(*({**PAIR, "prompt": f"Which {at}?", "half": ("settle", "report")[at % 2]} for at in range(10)))
    settle, _ = pairs.trials_of([file], ScopeCaseSelection(half="settle"))
    assert sorted(int(text.split()[1][0]) % 2 for text in texts(settle, "edited")) == [0] * 5
    with pytest.raises(InvalidRequest, match="No row"):
        conversations.trials_of([file_of(CONVERSATION)], ScopeCaseSelection(half="settle"))


def test_conversations_are_asked_whole(file_of: Callable[..., Path]) -> None:
    (trial,) = conversations.trials_of([file_of(CONVERSATION)], ScopeCaseSelection())
    assert [message["content"] for message in trial.edits[0].messages] == [
        "Who leads Lumen?",
        "Ada.",
        "How old is she?",
    ]
    assert [(question.role, len(question.messages)) for question in trial.questions] == [
        ("edited", 3),
        ("same", 1),
        ("other", 1),
    ]


@pytest.mark.parametrize(
    ("make", "row", "said"),
    [
        (support.trials_of, {"intent": "fees", "text": " "}, "`text` must be a text"),
        (support.trials_of, {"intent": 3, "text": "How?"}, "`intent` must be a text"),
        (support.trials_of, {"text": "How?"}, "intent"),
        (pairs.trials_of, {**PAIR, "same": "What?"}, "`same` must be a list of texts"),
        (pairs.trials_of, {**PAIR, "other": [1]}, "`other` must be a text"),
        (pairs.trials_of, {**PAIR, "half": "third"}, "`half` must be settle or report"),
        (pairs.trials_of, {**PAIR, "prompt": "\ud800"}, "half of a surrogate pair"),
        (pairs.trials_of, ["no object"], "cannot be read as pairs"),
        (conversations.trials_of, {**CONVERSATION, "right": [[]]}, "`right` must be a list of messages"),
        (conversations.trials_of, {**CONVERSATION, "wrong": 5}, "`wrong` must be a list of conversations"),
        (
            conversations.trials_of,
            {**CONVERSATION, "messages": CONVERSATION["messages"][:2]},
            "must end with a message",
        ),
    ],
)
def test_rows_that_cannot_be_read_are_named(
    file_of: Callable[..., Path], make: Callable[..., Any], row: Any, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"Row 1 of .*{said}"):
        make([file_of(row)], ScopeCaseSelection())


def test_the_cases_that_ship_can_be_read() -> None:
    for half in ("settle", "report"):
        alone, ticked = pairs.trials_of([SHIPPED["pairs"]], ScopeCaseSelection(half=half))  # type: ignore[arg-type]
        assert len(alone.edits) == len(ticked.edits) == 84
        assert len({question.group for question in alone.questions}) == 12
        assert all(len(wanted.paraphrases) == len(wanted.counter_examples) == 3 for wanted in ticked.edits)
        (trial,) = conversations.trials_of([SHIPPED["conversations"]], ScopeCaseSelection(half=half))  # type: ignore[arg-type]
        assert len(trial.edits) == 30


def rendered(messages: Any) -> str:
    return "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<assistant>"


def test_questions_are_put_as_chats_where_the_model_has_a_template() -> None:
    renderer = PromptRenderer(rendered)
    wanted = EditSpec(
        namespace="a",
        messages=CONVERSATION["messages"],
        target="x",
        paraphrases=("Her age?",),
        counter_examples=("y",),  # type: ignore[arg-type]
    )
    request = renderer.request(wanted, "grace/paper")
    start = "<user>Who leads Lumen?<assistant>Ada.<user>"
    assert request.prompt == f"{start}How old is she?<assistant>"
    assert request.paraphrases == (f"{start}Her age?<assistant>",)
    assert request.counter_examples == (f"{start}y<assistant>",)
    assert (request.editor, request.preset, request.force) == ("grace", "paper", True)
    served = renderer.request(wanted, "auto")
    assert (served.editor, served.preset, served.force) == ("auto", "serving", False)


def test_questions_are_bare_or_framed_where_the_model_has_none() -> None:
    def none(_: Any) -> str:
        raise InvalidRequest("no chat template")

    assert PromptRenderer(none).prompt(turn("Who?")) == "Who?"
    assert PromptRenderer(none, "Question: {} Answer:").prompt(turn("Who?")) == "Question: Who? Answer:"
    with pytest.raises(InvalidRequest, match="no chat template to render them with: name a chat model"):
        PromptRenderer(none).prompt(CONVERSATION["messages"])  # type: ignore[arg-type]
