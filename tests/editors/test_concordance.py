"""Which long questions share words with a prompt."""

from app.editors.concordance import LEAST, MOST, Concordance

SMOKE = frozenset(("smoke", "india", "forgo", "tradi", "cooki"))


def test_rows_that_share_enough_and_half_of_their_own_are_found() -> None:
    book = Concordance()
    book.add(1, SMOKE)
    book.add(2, SMOKE | {f"w{at}" for at in range(4)})
    book.add(3, ("smoke", "india"))
    assert book.sharing(frozenset(("smoke", "forgo", "tradi", "other"))) == [1]
    assert sorted(book.sharing(SMOKE)) == [1, 2]
    assert book.sharing(frozenset(("smoke", "india"))) == [], "so few say nothing"
    assert LEAST == 3


def test_a_long_text_is_no_question() -> None:
    book = Concordance()
    book.add(1, SMOKE)
    assert book.sharing(SMOKE | {f"w{at}" for at in range(MOST - len(SMOKE))}) == [1]
    assert book.sharing(SMOKE | {f"w{at}" for at in range(MOST)}) == []


def test_what_is_removed_is_gone() -> None:
    book = Concordance()
    for row in (1, 2, 3):
        book.add(row, SMOKE if row < 3 else ("smoke",))
    book.remove(1)
    book.remove(3)
    assert book.sharing(SMOKE) == [2]
    book.remove(2)
    assert book.sharing(SMOKE) == []
    assert not book._by_word
