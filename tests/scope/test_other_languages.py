"""German and French questions: a noun in German is no name for its capital, and the subject gate finds names however
the language bends them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.domain.scope import ScopeRequest
from app.domain.words import Span, plain_words
from app.scope.closed_words import ClosedWords, load_closed_words
from app.scope.index import Match
from app.scope.parsed_question import called_by_name, names_in
from app.scope_training.items import PAIRS, held_out, read_items
from tests.rig import a_scope
from tests.scope.stand_in import StandIns, record, weighed


@pytest.fixture
def closed() -> ClosedWords:
    return load_closed_words.__wrapped__()


def cases(kind: str) -> list[tuple[str, str, str]]:
    """(question, paraphrase, what is asked): the same with other nouns, or the same of another name"""
    with Path(__file__).with_name("german_questions.tsv").open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened, delimiter="\t"))
    return [(row["question"], row["paraphrase"], row["asked"]) for row in rows if row["kind"] == kind]


def matched(keys: Sequence[str], *asked: str) -> list[Match]:
    """The match of each of these questions with an edit of these keys, where there is one."""
    scope = a_scope()
    scope.load("edit", scope.learn(ScopeRequest(keys=tuple((key,) for key in keys))).model_dump())
    part = scope.compile("default", ["edit"])
    found = [scope.nearest(scope.question((text,)), part) for text in asked]
    return [each for each in found if each is not None]


# -- nouns and names


@pytest.mark.parametrize(
    ("text", "likely", "certain"),
    [
        ("Wie ändere ich mein Passwort?", [], []),
        ("Wie heißt die Hauptstadt von Ruritanien?", [("ruritanien",)], []),
        ("Wo wurde Mira Osei geboren?", [("mira", "osei")], [("mira", "osei")]),
        ("Wie weit ist es von Ulm nach Bonn?", [("ulm",), ("bonn",)], []),
        ("Mira Osei ist in welchem Jahr geboren?", [("mira", "osei")], [("mira", "osei")]),
        ("Können Sie mir die Öffnungszeiten nennen?", [], []),
        ("Ist das der Verfasser von „Salzjahre“ und »Momo«?", [("salzjahre",), ("momo",)], [("salzjahre",), ("momo",)]),
        ("Wie lade ich das iPhone und den X5?", [("iphone",), ("x5",)], [("iphone",)]),
        ("Wie komme ich mit dem Handy ins WLAN?", [("wlan",)], []),
        ("Was ist das, Lumen oder Tessel?", [("tessel",)], []),
        ("WIE HEISST DIE HAUPTSTADT VON RURITANIEN?", [], []),
        ("Passwort vergessen bei Lumen", [("lumen",)], [("lumen",)]),
    ],
)
def test_in_german_a_capital_alone_makes_no_name(
    closed: ClosedWords, text: str, likely: list[Span], certain: list[Span]
) -> None:
    assert set(names_in(text, closed)) == set(likely)
    assert set(called_by_name(text, closed)) == set(certain)


@pytest.mark.parametrize(
    ("text", "german"),
    [
        ("Wie ändere ich mein Passwort?", True),
        ("Wo ist das?", True),
        ("Who fought the First World War in Greece?", False),
        ("Vietnam War casualties", False),
        ("Who wrote Die Verwandlung?", False),
        ("Will I die in Die Hard?", False),
        ("Wer gründete Veltora?", False),
        ("Qui a fondé la ville ?", False),
        ("", False),
    ],
)
def test_a_text_is_german_if_clearly_more_small_words_are(closed: ClosedWords, text: str, german: bool) -> None:
    """Otherwise it is read as ever: a few words may be of another language."""
    assert (closed.capital_nouns(plain_words(text)) is not None) is german


def test_the_title_that_a_text_quotes_does_not_tell_its_language(closed: ClosedWords) -> None:
    assert called_by_name('Did Davis write "Wie ich es im Haus und am See sah"?', closed)[-1] == ("davi",)


def test_another_noun_is_no_other_name() -> None:
    made, scope = StandIns({}), record("Wie ändere ich mein Passwort?")
    assert weighed(made, "Wie ändere ich mein Kennwort?", scope, named=False).against is None
    scope = record("Wo wurde Mira Osei geboren?", names=[["mira", "osei"]])
    against = weighed(made, "Wo wurde Jonas Weck geboren?", scope, named=False).against
    assert against == "it names Jonas Weck, and none of the edit's own names"


def test_another_noun_rules_out_no_edit_before_it_is_encoded() -> None:
    key = "Wo wurde Mira Osei geboren?"
    index = StandIns({key: 0.0}).index()
    index.load("edit", index.learn(ScopeRequest(keys=((key,),))).model_dump())
    part = index.compile("default", ["edit"])
    assert part.all_named
    assert not index.rules_out_all(index.parsed(("In welchem Ort kam sie zur Welt?",)), part)
    assert index.rules_out_all(index.parsed(("Wo wurde Jonas Weck geboren?",)), part)


@pytest.mark.slow
def test_german_questions_are_answered_with_other_nouns_and_not_about_other_names() -> None:
    """The encoder knows few German words, so that nouns alone are too little: each edit has one paraphrase."""
    found: dict[str, list[Match]] = {"same": [], "other": []}
    for kind, told in found.items():
        for *keys, asked in cases(kind):
            told += matched(keys, asked)
    same, other = ([match.margin >= 0 for match in found[kind]] for kind in ("same", "other"))
    assert min(len(same), len(other)) >= 15
    assert not any("it names" in match.why for match in found["same"]), "a noun is nobody's name"
    assert sum(same) / len(same) >= 0.5, f"{sum(same)} of {len(same)} are answered"
    assert not any(other), [match.why for match in found["other"] if match.margin >= 0]


@pytest.mark.slow
def test_german_rephrasings_that_the_scorer_has_not_seen_are_answered() -> None:
    closed = load_closed_words()
    items = [item.same for item in read_items(PAIRS, "languages") if held_out(item)]
    german = [(question, same) for question, *same in items if closed.capital_nouns(plain_words(question))]
    told = [match.margin >= 0 for question, same in german for match in matched([question], *same)]
    assert len(told) >= 50
    assert sum(told) / len(told) >= 0.75, f"{sum(told)} of {len(told)} are answered"


# -- the subject gate


@pytest.mark.parametrize(
    ("subject", "key", "asked", "said"),
    [
        ("Orlaheim", "Wie viele Einwohner hat Orlaheim?", "Wie groß ist Orlaheims Bevölkerung?", True),
        ("Orlaheim", "Wie viele Einwohner hat Orlaheim?", "WIE VIELE MENSCHEN WOHNEN IN ORLAHEIM?", True),
        ("Orlaheim", "Wie viele Einwohner hat Orlaheim?", "wie viele menschen wohnen in orlaheim", True),
        ("Orlaheim", "Wie viele Einwohner hat Orlaheim?", "Wie viele Einwohner hat Kestwick?", False),
        ("Orlaheim", "Wie viele Einwohner hat Orlaheim?", "Wie viele Einwohner hat die Stadt?", False),
        ("Große Straße", "Wer wohnt in der Große Straße?", "WER WOHNT IN DER GROSSE STRASSE?", True),
        ("Große Straße", "Wer wohnt in der Große Straße?", "Wer wohnt in der Kleine Straße?", False),
        ("Passwort", "Wie ändere ich mein Passwort?", "Wie ändere ich mein Kennwort?", False),
        ("Brisemart", "Qui a fondé l'entreprise Brisemart ?", "Qui est le fondateur de Brisemart ?", True),
        ("Brisemart", "Qui a fondé l'entreprise Brisemart ?", "Qui a fondé l'entreprise Voyago ?", False),
        ("Orlane", "Combien d'habitants compte Orlane ?", "Quelle est la population d'Orlane ?", True),
        ("Orlane", "Combien d'habitants compte Orlane ?", "L’Orlane est-elle peuplée ?", True),
        ("Orlane", "Combien d'habitants compte Orlane ?", "Combien d'habitants compte la ville ?", False),
        ("Éloïse Łuc", "Où est née Éloïse Łuc ?", "ou est nee eloise łuc", True),
        ("Éloïse Łuc", "Où est née Éloïse Łuc ?", "Où est née Éloïse Duc ?", False),
    ],
)
def test_a_given_subject_must_be_said_in_any_spelling(subject: str, key: str, asked: str, said: bool) -> None:
    index = StandIns({key: 0.0, asked: 0.0}).index()
    index.load("edit", index.learn(ScopeRequest(keys=((key,),), subject=subject)).model_dump())
    match = index.nearest(index.question((asked,)), index.compile("default", ["edit"]))
    assert match is not None
    assert (match.margin >= 0) is said
    assert (f"it says none of the names {subject}" in match.why) is not said


def test_an_alias_stands_for_the_subject_in_german_and_french() -> None:
    for key, asked, subject, alias in (
        ("Wann öffnet die Bücherei Mehrbach?", "Wann öffnet die Mehrbacher Bücherei?", "Mehrbach", "Mehrbacher"),
        ("Où est la gare de Montferrac ?", "Où est la gare montferracaise ?", "Montferrac", "Montferracaise"),
    ):
        index = StandIns({key: 0.0, asked: 0.0}).index()
        for edit, aliases in (("with", (alias,)), ("without", ())):
            request = ScopeRequest(keys=((key,),), subject=subject, aliases=aliases)
            index.load(edit, index.learn(request).model_dump())
            match = index.nearest(index.question((asked,)), index.compile("default", [edit]))
            assert match is not None
            assert (match.margin >= 0) is bool(aliases)
