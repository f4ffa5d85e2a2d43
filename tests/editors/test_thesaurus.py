"""Words that share a meaning: base forms, what stands beside what, and how the file is made."""

from pathlib import Path

import pytest

from app.editors.phrasebook import load_phrasebook
from app.editors.thesaurus import Thesaurus, load_thesaurus, rows_of
from app.editors.wording import Likeness, Wording, read_wording

SMALL = Thesaurus(
    {"ban": frozenset(("forbid",)), "forbid": frozenset(("ban",)), "tidy": frozenset(("neat",))}, {"forbade": "forbid"}
)


def of(*words: str) -> Wording:
    return Wording(frozenset(words))


@pytest.mark.parametrize(
    ("word", "base"),
    [
        ("forbid", "forbid"),
        ("forbade", "forbid"),
        ("tidied", "tidy"),
        ("tidie", "tidy"),
        ("bans", "bans"),
        ("x", "x"),
    ],
)
def test_an_inflected_word_has_its_base_form(word: str, base: str) -> None:
    assert SMALL.base(word) == base


def test_a_word_stands_beside_those_that_share_a_meaning() -> None:
    assert SMALL.beside("forbade", frozenset(("ban", "neat"))) == ["ban"]
    assert SMALL.beside("neat", frozenset(("ban",))) == []
    assert SMALL.beside("unheard", frozenset(("unheard",))) == []


@pytest.mark.parametrize(("a", "b"), [("prohibited", "forbid"), ("lawyer", "attorney"), ("hit", "struck")])
def test_the_one_that_ships_has_synonyms(a: str, b: str) -> None:
    assert load_thesaurus().beside(a, frozenset((b,))) == [b]
    assert load_thesaurus().beside(b, frozenset((a,))) == [a]


@pytest.mark.parametrize(
    ("a", "b"),
    [("password", "username"), ("printer", "scanner"), ("boiling", "melting"), ("arrival", "departure"),
     ("width", "height"), ("deposit", "withdrawal"), ("monthly", "annual"), ("uncle", "aunt"), ("minimum", "maximum"),
     ("shipping", "billing")],
)  # fmt: skip
def test_the_one_that_ships_keeps_apart_what_is_only_used_alike(a: str, b: str) -> None:
    likeness = load_phrasebook().lexicon.meaning
    assert likeness.of(of("reset", a), of("reset", b)) < likeness.of(of("reset", a), of("reset", a)) * 0.6
    assert load_thesaurus().beside(a, frozenset((b,))) == []


def test_wordings_are_alike_by_meaning() -> None:
    plain, learned = Likeness(["who wrote it"]), Likeness(["who wrote it"], thesaurus=SMALL)
    a, b = of("import", "forbade"), of("import", "ban")
    assert plain.of(a, b) < 0.5 < 0.85 <= learned.of(a, b) < 1


def test_of_words_of_generic_phrasings_only_the_synonyms_are_believed() -> None:
    a, b, phrasings = of("import", "forbid"), of("import", "ban"), ["ban it", "forbid it"]
    assert Likeness(phrasings, thesaurus=SMALL).of(a, b) == Likeness(phrasings).of(a, b)
    assert Likeness(phrasings[:1], thesaurus=SMALL).of(a, b) > Likeness(phrasings[:1]).of(a, b)


def test_the_file_is_made_of_wordnets(tmp_path: Path) -> None:
    data = [
        "00000001 30 v 02 ban 0 forbid 1 001 @ 00000009 v 0000 | not allow",
        "00000002 30 v 01 forbid 0 000 | curse",
        "00000003 30 v 02 allow 0 allowed 0 000 | one stem",
        "00000004 30 v 02 rareword 0 ban 0 000 | nobody says it",
    ]
    adjectives = [
        "00000005 00 a 01 neat 0 001 & 00000006 a 0000 | in order",
        "00000006 00 s 02 tidy(p) 0 trim_down 0 001 & 00000005 a 0000 | in order",
    ]
    index = {
        "noun": ["forbiding n 1 0 1 1 00000001"],
        "verb": ["ban v 2 1 @ 2 1 00000001 00000004",
                 "forbid v 2 1 @ 2 1 00000001 00000002",
                 "allow v 1 0 1 1 00000003", "allowed v 1 0 1 1 00000003", "rareword v 1 0 1 0 00000004"],
        "adj": ["neat a 1 1 & 1 1 00000005", "tidy a 1 1 & 1 1 00000006"],
    }  # fmt: skip
    for part in ("noun", "verb", "adj", "adv"):
        lines = {"verb": data, "adj": adjectives}.get(part, [])
        (tmp_path / f"data.{part}").write_text("\n".join(["  1 a line of the licence", *lines]) + "\n")
        (tmp_path / f"index.{part}").write_text("\n".join(["  1 a line of the licence", *index.get(part, [])]) + "\n")
        (tmp_path / f"{part}.exc").write_text("forbade forbid\nunheard unhear\n" if part == "verb" else "")
    tagged = ["ban%2:30:00:: 1 3", "forbid%2:30:00:: 1 2", "allow%2:30:00:: 1 9", "allowed%2:30:00:: 1 1"]
    (tmp_path / "cntlist.rev").write_text("\n".join([*tagged, "neat%3:00:00:: 1 1", "tidy%5:00:00:: 1 1"]) + "\n")
    assert list(rows_of(tmp_path)) == [
        ("same", "ban", "forbid"), ("form", "forbade", "forbid"), ("form", "forbiding", "forbiding")
    ]  # fmt: skip


def test_a_line_of_stems_is_not_read_as_words() -> None:
    """As earlier versions stored them: treat is what was left of treaty, and a word."""
    old, new = read_wording("how|by cance treat 123456"), read_wording("how||by cancel treaty 123456")
    assert old.stems == new.stems
    assert load_phrasebook().lexicon.meaning.of(old, Wording(frozenset(("cancel", "process")), "how")) < 0.5
    assert read_wording(new.written()) == new
