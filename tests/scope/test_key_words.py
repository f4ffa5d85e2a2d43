"""Names that no key of some rows says."""

from app.domain.words import words_of
from app.scope.key_words import KeyWords


def test_a_name_is_strange_to_rows_whose_keys_say_none_of_its_words() -> None:
    words = KeyWords()
    words.add(0, ["Who founded Lumen?", "Who started Lumen?"], [("lumen",)])
    words.add(1, ["Where is the University of Bremen?"], [("university", "of", "the", "bremen")])
    words.add(2, ["How long does shipping take?"], [])
    assert words.is_strange(("zenda",), {0, 1, 2})
    assert words.is_strange(words_of("Universities of Zenda"), {0, 2})
    assert not words.is_strange(words_of("The Zenda"), {1}), "the decider looks for any of its words as well"
    assert words.is_strange(words_of("Lumens"), {1, 2})
    assert not words.is_strange(words_of("Lumens"), {0})
    assert words.all_named({0, 1})
    assert words.all_named(set())
    assert not words.all_named({1, 2})
    words.remove(2)
    words.remove(0)
    assert words.is_strange(("lumen",), {0, 1})
    assert words.all_named({0, 1, 2})
    assert not words.is_strange(("bremen",), {1})
