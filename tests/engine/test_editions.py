"""An edition sees its live edits, although editors whose edits have not changed do not compile again."""

import random

import pytest

from app.domain.scope import ScopeRequest
from app.editors.base import Capabilities, Editor, Fitted
from app.engine.editions import Edition, Editions, ScopeDecision
from app.engine.frames import frames_of
from app.engine.text import TextCodec
from app.scope.decision import EncodedQuestion
from app.scope.index import ScopeIndex
from app.scope.parsed_question import ParsedQuestion
from tests.models import tokenizer
from tests.rig import a_scope

QUESTIONS = (
    "Who founded Lumen?",
    "How long does it take to ship a sofa?",
    "What is the boiling point of mercury?",
    "Where does Marvolo live?",
)


class Counting(Editor):
    """An editor whose part is the rows of its edits, oldest first, and that counts how often it compiles one."""

    capabilities = Capabilities(max_target_tokens=1, changes_earlier_positions=False, rollback="exact")

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: dict[str, int] = {}
        self.given = self.compiled = 0

    def load(self, edit_id: str, fitted: Fitted | None = None) -> None:
        self.given += 1
        self.rows[edit_id] = self.given

    def drop(self, edit_id: str) -> None:
        del self.rows[edit_id]

    def seen(self, edit_ids: list[str]) -> tuple[int, ...]:
        return tuple(self.rows[edit_id] for edit_id in edit_ids)

    def compile(self, edit_ids: list[str]) -> tuple[int, ...]:  # type: ignore[override]
        self.compiled += 1
        return self.seen(edit_ids)


@pytest.fixture
def editor() -> Counting:
    return Counting("counting")


@pytest.fixture
def other() -> Counting:
    return Counting("other")


@pytest.fixture
def scope() -> ScopeIndex:
    return a_scope()


@pytest.fixture
def editions(editor: Counting, other: Counting, scope: ScopeIndex) -> Editions:
    return Editions({"counting": editor, "other": other}, scope)  # type: ignore[dict-item]


def test_an_editor_compiles_only_when_its_own_edits_change(
    editor: Counting, other: Counting, editions: Editions
) -> None:
    rng = random.Random(5)
    live: list[tuple[Counting, str]] = []
    changes = {"counting": 0, "other": 0}
    for number in range(120):
        changed = rng.choice([editor, other])
        own = [edit_id for each, edit_id in live if each is changed]
        changes[changed.name] += 1
        if own and rng.random() < 0.4:
            gone = rng.choice(own)
            live.remove((changed, gone))
        else:
            changed.load(f"e{number}")
            editions.own(f"e{number}", changed.name)
            live.append((changed, f"e{number}"))
        parts = editions.parts(Edition("default", number, tuple(edit_id for _, edit_id in live)))
        expected = {
            each.name: each.seen([edit_id for whose, edit_id in live if whose is each]) for each in (editor, other)
        }
        assert parts == {name: part for name, part in expected.items() if part}
    assert editor.compiled <= changes["counting"]
    assert other.compiled <= changes["other"]


def test_a_trial_leaves_no_trace(editor: Counting, editions: Editions) -> None:
    for edit_id in ("a", "b", "c"):
        editor.load(edit_id)
        editions.own(edit_id, "counting")
    current = Edition("default", 1, ("a", "b"))
    before = editions.parts(current)["counting"]
    trial = current.trying(["c"], frozenset(("a",)))
    assert editions.parts(trial)["counting"] == editor.seen(["b", "c"])
    assert editions.parts(Edition("default", 2, ("a", "b")))["counting"] == before == editor.seen(["a", "b"])
    assert editor.compiled == 2


def test_rows_that_were_dropped_and_loaded_again_are_looked_up_again(editor: Counting, editions: Editions) -> None:
    for _ in range(2):
        editor.load("a")
        editions.own("a", "counting")
        assert editions.parts(Edition("default", 1, ("a",)))["counting"] == editor.seen(["a"])
        editions.disown("a")
        editor.drop("a")


def test_a_retuned_edit_keeps_its_age(editor: Counting, editions: Editions) -> None:
    for edit_id in ("a", "b", "a@2"):
        editor.load(edit_id)
        editions.own(edit_id, "counting")
    for ids in (["a", "b"], ["a@2", "b"]):
        assert editions.parts(Edition("default", 1, tuple(ids)))["counting"] == editor.seen(ids)


# -- what is asked of the scope index


TEXT = TextCodec(tokenizer(), 0, 256)


def ask(editions: Editions, question: str, edition: Edition) -> ScopeDecision:
    return editions.ask(question, TEXT, edition)


def answered(editions: Editions, question: str, *edit_ids: str) -> str | None:
    decision = ask(editions, question, Edition("default", 1, edit_ids)).decision
    return None if decision is None else decision.edit_id


def own(editions: Editions, editor: Counting, scope: ScopeIndex, edit_id: str, question: str) -> None:
    editor.load(edit_id)
    scope.load(edit_id, scope.learn(ScopeRequest(keys=((question,),))).model_dump())
    editions.own(edit_id, "counting")


def test_an_edition_is_asked_about_its_own_edits_alone(editor: Counting, scope: ScopeIndex, editions: Editions) -> None:
    names = ("a", "b", "c", "d")
    for name, question in zip(names, QUESTIONS, strict=True):
        own(editions, editor, scope, name, question)
    for seen in (names, ("a", "c"), ("d",), ("b", "d", "a")):
        found = [answered(editions, question, *seen) for question in QUESTIONS]
        assert found == [name if name in seen else None for name in names], seen
    scope_decision = ask(editions, QUESTIONS[0], Edition("default", 1, ("a",)))
    assert scope_decision.decision is not None
    assert (scope_decision.decision.editor, scope_decision.decision.margin >= 0) == ("counting", True)
    assert scope_decision.nearest == scope_decision.decision
    assert scope_decision.words == ["who", "founded", "lumen"]
    assert ask(editions, QUESTIONS[0], Edition("default", 1, ())) == ScopeDecision(words=["who", "founded", "lumen"])


def test_of_two_edits_of_one_question_the_newest_in_the_edition_answers(
    editor: Counting, scope: ScopeIndex, editions: Editions
) -> None:
    for name in ("a", "b", "a@2"):
        own(editions, editor, scope, name, QUESTIONS[0])
    assert answered(editions, QUESTIONS[0], "a", "b") == "b"
    assert answered(editions, QUESTIONS[0], "b", "a") == "a"
    assert answered(editions, QUESTIONS[0], "a@2", "b") == "b", "retuned, it keeps its age"


def test_an_edit_that_was_loaded_again_is_found_by_editions_that_are_made_then(
    editor: Counting, scope: ScopeIndex, editions: Editions
) -> None:
    for _ in range(2):
        own(editions, editor, scope, "a", QUESTIONS[0])
        assert answered(editions, QUESTIONS[0], "a") == "a"
        editions.disown("a")
        editor.drop("a")
        scope.drop("a")


# -- what words alone say


ASKED = (
    "Who founded Lumen?", "Who founded Marvolo?", "Who started the company Lumen?", "Where does Marvolo live?",
    "Where does Marvolo of Bremen live?", "What is the capital of Chad?", "What did he found?", "Who founded it?",
    "How long does it take to ship a sofa?", "How long does it take to ship a sofa to Norway?",
    "Is Mercury a planet? What is the boiling point of mercury?", "I met Zenda. Who founded Lumen?",
    "Hello Zenda! How are you?", "WHO FOUNDED ZENDA?", "who founded zenda?", "Zenda", "", "Lumen",
    "The capital of Chad is", "The founder of Lumen is", "Who founded Zenda? Answer:", "Lumens are what?",
)  # fmt: skip


def same(editions: Editions, prompt: str, edition: Edition) -> None:
    quick, whole = (editions.ask(prompt, TEXT, edition, nearest=nearest) for nearest in (False, True))
    assert (quick.decision, quick.words, quick.uncertain) == (whole.decision, whole.words, whole.uncertain), prompt


@pytest.mark.parametrize("seen", ["acd", "ad", "abcd", "d"])
def test_the_words_alone_rule_out_only_what_is_ruled_out_with_the_encoder(
    editor: Counting, scope: ScopeIndex, editions: Editions, seen: str
) -> None:
    for name, question in zip("abcd", QUESTIONS, strict=True):
        own(editions, editor, scope, name, question)
    edition = Edition("default", 1, tuple(seen))
    for prompt in ASKED:
        same(editions, prompt, edition)


def test_a_question_that_names_only_what_no_live_edit_knows_is_not_encoded(
    editor: Counting, scope: ScopeIndex, editions: Editions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, question in zip("abcd", QUESTIONS, strict=True):
        own(editions, editor, scope, name, question)
    encoded: list[str] = []

    def encode(parsed: ParsedQuestion) -> EncodedQuestion:
        encoded.extend(parsed.texts)
        return whole(parsed)

    whole = scope.encoded
    monkeypatch.setattr(scope, "encoded", encode)

    def asked(prompt: str, *edit_ids: str, nearest: bool = False) -> bool:
        """True if the encoder was asked."""
        encoded.clear()
        editions.ask(prompt, TEXT, Edition("default", 1, edit_ids), nearest=nearest)
        return bool(encoded)

    assert not asked("What is the capital of Chad?", "a", "d")
    assert asked("What is the capital of Chad?", "a", "d", nearest=True), "the nearest edit is asked for"
    assert asked("What is the capital of Chad?", "a", "b"), "an edit without a name may be asked for in any words"
    assert asked("Where does Lumen live?", "a", "d")
    assert not asked("Where does Lumen live?", "d"), "the edit that knows the name is not in the edition"
    assert asked("Who founded it?", "a", "d"), "no name, no verdict"
    assert asked("I come from Chad. Who founded it?", "a", "d"), "one of its readings names nobody"
    editions.disown("a")
    scope.drop("a")
    assert not asked("Where does Lumen live?", "d")


def test_a_prompt_that_has_begun_a_target_is_asked_about_without_it(scope: ScopeIndex) -> None:
    """The beginning of the target has a name that no key says: with it the question would be another's."""
    editor = Counting("counting")
    editor.capabilities = Capabilities(
        max_target_tokens=9, changes_earlier_positions=False, rollback="exact", continues=True
    )
    editions = Editions({"counting": editor}, scope)  # type: ignore[dict-item]
    record = scope.learn(ScopeRequest(keys=((QUESTIONS[0],), ("Who started that firm?",))))
    editor.load("a")
    scope.load("a", record.model_dump())
    target = tuple(TEXT.encode(f"{QUESTIONS[0]} Ada Quill"))[len(TEXT.encode(QUESTIONS[0])) :]
    editions.own("a", "counting", target)
    edition = Edition("default", 1, ("a",))
    for end in (" Ada", " Ada Quil", " Bea", ""):
        same(editions, f"Who started that firm?{end}", edition)
    begun = editions.ask("Who started that firm? Ada", TEXT, edition, nearest=False).decision
    assert begun is not None
    assert begun.begun_tokens > 0


def test_an_edition_decides_a_prompt_once_until_an_edit_falls_silent(
    editor: Counting, scope: ScopeIndex, editions: Editions, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(editions, editor, scope, "a", QUESTIONS[0])
    own(editions, editor, scope, "b", QUESTIONS[1])
    edition = Edition("default", 1, ("a",))
    first = ask(editions, QUESTIONS[0], edition)
    asked: list[object] = []
    monkeypatch.setattr(scope, "ranked", lambda *given: asked.append(given) or [])
    assert ask(editions, QUESTIONS[0], edition) is first
    assert not asked
    assert ask(editions, QUESTIONS[0], Edition("default", 2, ("b",))) != first, "another edition, another decision"
    assert ask(editions, QUESTIONS[1], edition).decision is None
    assert len(asked) == 2
    monkeypatch.undo()
    assert first.decision is not None
    editions.mute("a", frames_of(QUESTIONS[0], TEXT))
    assert ask(editions, QUESTIONS[0], edition).decision is None
    monkeypatch.setattr("app.engine.editions.DECISIONS_KEPT", 2)
    for question in QUESTIONS:
        ask(editions, question, edition)
    monkeypatch.setattr(scope, "ranked", lambda *given: asked.append(given) or [])
    asked.clear()
    for question in QUESTIONS[-2:]:
        ask(editions, question, edition)
    assert not asked, "the latest are kept"
    ask(editions, QUESTIONS[0], edition)
    assert len(asked) == 1, "and no others"
