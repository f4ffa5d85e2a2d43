"""A key is compared in constant time, whatever is wrong with it."""

import hmac
from dataclasses import replace

import pytest

from app.domain import keys
from app.domain.keys import Role, key_of, new_key


def test_every_attempt_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    key, text = new_key(Role.ADMIN, "ann", 0.0)
    known = {key.id: key}
    compared: list[tuple[int, int]] = []
    really = hmac.compare_digest

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return really(one, other)

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    wrong_secret, wrong_id = text[:-1] + ("a" if text[-1] != "a" else "b"), f"errata_000000000000_{text[-43:]}"
    for attempt in (text, wrong_secret, wrong_id, "", "errata_", "\ud800", f"other{text[6:]}", text * 100):
        found = key_of(attempt, known)
        assert (found is key) == (attempt == text)
    assert key_of(text, {key.id: replace(key, revoked_at_s=1.0)}) is None
    assert compared == [(64, 64)] * 9, "one comparison of hashes each, of one length"


def test_a_secret_is_nowhere_but_with_its_owner() -> None:
    key, text = new_key(Role.READER, "ann", 0.0)
    secret = text.split("_", 2)[2]
    assert len(secret) >= 43
    assert secret not in repr(key)
