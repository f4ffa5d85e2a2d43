"""A key is compared in constant time, whatever is wrong with it."""

import hashlib
import hmac
from dataclasses import replace

import pytest

from app.domain import keys
from app.domain.errors import Forbidden
from app.domain.keys import Key, Role, check_reach, key_of, namespace_names, new_key, signed


def test_every_attempt_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    key, text = new_key(Role.ADMIN, "ann", 0.0)
    known = {key.id: key}
    compared: list[tuple[int, int]] = []
    really = hmac.compare_digest

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return really(one, other)

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    surrogate = f"errata_{key.id}_\ud800"
    wrong_secret, wrong_id = text[:-1] + ("a" if text[-1] != "a" else "b"), f"errata_000000000000_{text[-43:]}"
    for attempt in (text, wrong_secret, wrong_id, "", "errata_", surrogate, f"other{text[6:]}", text * 100):
        found = key_of(attempt, known)
        assert (found is key) == (attempt == text)
    assert key_of(text, {key.id: replace(key, revoked_at_s=1.0)}) is None
    assert compared == [(64, 64)] * 9, "one comparison of hashes each, of one length"


def test_a_secret_is_nowhere_but_with_its_owner() -> None:
    key, text = new_key(Role.READER, "ann", 0.0)
    secret = text.split("_", 2)[2]
    assert len(secret) >= 43
    assert secret not in repr(key)


def test_a_new_key_is_what_was_asked_for_and_no_two_are_alike() -> None:
    made = [new_key(Role.EDITOR, "ci", 7.5, ("a", "b")) for _ in range(20)]
    for key, text in made:
        _, key_id, secret = text.split("_", 2)
        assert key == Key(
            id=key_id, name="ci", role=Role.EDITOR, secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
            created_at_s=7.5, namespaces=("a", "b"),
        )  # fmt: skip
        assert (len(key_id), len(secret)) == (12, 43), "48 bits to tell keys apart, 256 bits that nobody guesses"
    assert len({key.id for key, _ in made}) == len({key.secret_sha256 for key, _ in made}) == len(made)


def test_what_a_key_is_for_is_told_where_it_does_not_reach() -> None:
    assert [namespace_names(names) for names in ((), ("a",), ("a", "b"))] == [
        "all namespaces",
        "the namespace a",
        "the namespaces a, b",
    ]
    key, _ = new_key(Role.ADMIN, "x", 0.0, ("a", "b"))
    with pytest.raises(Forbidden, match="for the namespaces a, b, and this is about the namespace 'c'") as refused:
        check_reach(key, "a", "c")
    assert refused.value.details == {"namespaces": ["a", "b"]}


@pytest.mark.parametrize(
    ("actor", "signature"),
    [(None, "ci"), ("", "ci"), ("ci", "ci"), ("ada", "ci (as ada)"), ("ci (as ada)", "ci (as ada)")],
)
def test_a_claimed_name_stands_beside_the_keys_own(actor: str | None, signature: str) -> None:
    key, _ = new_key(Role.EDITOR, "ci", 0.0)
    assert signed(key, actor) == signature


def test_a_secret_may_hold_the_mark_that_parts_a_key() -> None:
    key, text = new_key(Role.EDITOR, "ci", 0.0)
    secret = "a_b_" + text[-39:]
    parted = replace(key, secret_sha256=hashlib.sha256(secret.encode()).hexdigest())
    assert key_of(f"errata_{key.id}_{secret}", {key.id: parted}) is parted
