"""The tables of the demonstration model, and that the model that ships knows them."""

from importlib import resources
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.demo import corpus
from app.demo.check import MODEL
from app.demo.facts import FactsError, Relation, load_relations
from app.demo.greedy_answers import answer_all, exact

PHRASINGS = """
title = "X"
kind = "x"
sentence = "{s} is {a}."
questions = ["Who is {s}?"]
completions = ["{s} is"]
held_out_questions = ["Tell me who {s} is"]
held_out_completions = ["We know that {s} is"]
"""
SAMPLE = 60
MAX_BYTES = 16_000_000


@pytest.fixture(scope="module")
def relations() -> list[Relation]:
    return load_relations()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the package's tables."""
    monkeypatch.setattr(resources, "files", lambda _package: tmp_path)
    folder = tmp_path / "facts"
    folder.mkdir()
    return folder


def test_there_are_enough_facts_and_some_are_out_of_date(relations: list[Relation]) -> None:
    rows = [fact for relation in relations for fact in relation.facts]
    assert len(rows) >= 3000
    assert len(relations) >= 40
    assert sum(fact.stale for fact in rows) >= 50
    assert all(relation.facts for relation in relations)


def test_every_relation_has_enough_phrasings(relations: list[Relation]) -> None:
    for relation in relations:
        assert len(relation.questions) >= 7, relation.name
        assert len(relation.completions) >= 5, relation.name
        assert len(relation.held_out_questions) >= 2, relation.name
        assert relation.held_out_completions, relation.name
        assert all(question.endswith("?") for question in relation.questions + relation.held_out_questions)


def test_no_held_out_phrasing_is_built_with(relations: list[Relation]) -> None:
    built = {template for relation in relations for template in relation.questions + relation.completions}
    for relation in relations:
        assert not built & {*relation.held_out_questions, *relation.held_out_completions}, relation.name


def test_no_prompt_has_two_answers(relations: list[Relation]) -> None:
    answers: dict[str, str] = {}
    for relation in relations:
        for fact in relation.facts:
            for prompt in relation.built_prompts(fact.subject) + relation.held_out_prompts(fact.subject):
                assert answers.setdefault(prompt, fact.answer) == fact.answer, prompt


def test_the_build_text_is_seeded_and_holds_no_held_out_prompt(relations: list[Relation]) -> None:
    some = [next(relation for relation in relations if relation.name == "country_capital")]
    documents = corpus.epoch(some, Random(1))
    assert documents == corpus.epoch(some, Random(1))
    assert documents != corpus.epoch(some, Random(2))
    text = "\n".join(document.given + document.graded for document in documents)
    assert "Question: What is the capital of France? Answer: Paris" in text
    for fact in some[0].facts:
        assert not any(prompt in text for prompt in some[0].held_out_prompts(fact.subject))


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("subject\tanswer\nFrance\tParis\n", 1),
        ("subject\tanswer\tnow\nFrance\tParis\n", 2),
        ("subject\tanswer\tnow\nFrance\tParis\t\nFrance\tLyon\t\n", 3),
        ("subject\tanswer\tnow\nFrance\t\t\n", 2),
        ("subject\tanswer\tnow\nFrance\tParis.\t\n", 2),
        ("subject\tanswer\tnow\nFrance\tParis\tParis\n", 2),
        ("subject\tanswer\tnow\nFrance\tone two three four five six\t\n", 2),
    ],
)
def test_a_malformed_table_is_named_with_its_line(folder: Path, table: str, line: int) -> None:
    (folder / "x.toml").write_text(PHRASINGS)
    (folder / "x.tsv").write_text(table, encoding="utf-8")
    with pytest.raises(FactsError, match=rf"^facts/x\.tsv:{line}: "):
        load_relations()


def test_phrasings_without_a_place_for_the_subject_are_refused(folder: Path) -> None:
    (folder / "x.toml").write_text(PHRASINGS.replace('["Who is {s}?"]', '["Who?"]'))
    (folder / "x.tsv").write_text("subject\tanswer\tnow\n")
    with pytest.raises(FactsError, match=r"^facts/x\.toml: questions: 'Who\?'"):
        load_relations()


def test_the_model_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) <= MAX_BYTES


def test_the_model_answers_to_the_end_of_text(relations: list[Relation]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    rng = Random(0)
    pairs = [(relation, fact) for relation in relations for fact in relation.facts]
    for held_out, floor in ((False, 0.95), (True, 0.85)):
        chosen = [
            (rng.choice(r.held_out_prompts(f.subject) if held_out else r.built_prompts(f.subject)), f.answer)
            for r, f in rng.sample(pairs, SAMPLE)
        ]
        answers = answer_all(model, tokenizer, [prompt for prompt, _ in chosen])
        hits = [exact(got, want) for got, (_, want) in zip(answers, chosen, strict=True)]
        assert sum(hits) / len(hits) >= floor
