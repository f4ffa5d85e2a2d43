"""The ledger also remembers the namespaces that a key opens, the namespaces that were set up, and webhooks."""

from dataclasses import replace
from typing import Any

import pytest

from app.domain.errors import Forbidden, StateConflict, UnknownWebhook
from app.domain.events import Event, KeyCreated, NamespaceSet, Origin, WebhookRemoved, WebhookSet
from app.domain.keys import Role, check_reach, new_key
from app.domain.ledger import Ledger
from app.domain.snapshot import ledger_of, records_of
from app.store.codec import GENESIS, disassemble, encode
from tests.domain.samples import committed, request


def event(kind: type[Event], revision: int, **fields: Any) -> Event:
    return kind(revision=revision, at_s=float(revision), origin=Origin(), **fields)


HOOK = {"hook_id": "wh_1", "url": "https://a.example", "kinds": ("publish",), "namespaces": ("staging",)}
KEY = {"key_id": "k", "name": "ci", "role": "editor", "secret_sha256": "ab"}


def folded(*events: Event) -> Ledger:
    ledger = Ledger()
    for each in events:
        ledger.apply(each)
    return ledger


def test_a_snapshot_remembers_all_of_it() -> None:
    ledger = folded(
        event(NamespaceSet, 1, namespace="staging", description="Tried here"),
        event(KeyCreated, 2, **KEY, namespaces=("staging",)),
        event(WebhookSet, 3, **HOOK),
        committed(4, "e1", namespace="staging", promoted_from="e0"),
    )
    again = ledger_of(4, records_of(ledger))
    assert list(records_of(again)) == list(records_of(ledger))
    assert again.described == {"staging": "Tried here"}
    assert again.keys["k"].namespaces == ("staging",)
    assert again.webhooks["wh_1"].since == 3
    assert again.entry("e1").request.promoted_from == "e0"


def test_a_description_takes_the_place_of_the_one_before() -> None:
    ledger = folded(*(event(NamespaceSet, at, namespace="a", description=f"d{at}") for at in (1, 2)))
    assert ledger.described == {"a": "d2"}


def test_a_webhook_is_set_once_and_gone_once_it_is_removed() -> None:
    ledger = folded(event(WebhookSet, 1, **HOOK))
    with pytest.raises(StateConflict):
        ledger.apply(event(WebhookSet, 2, **HOOK))
    ledger.apply(event(WebhookRemoved, 2, hook_id="wh_1", url="https://a.example"))
    assert ledger.webhooks == {}
    with pytest.raises(UnknownWebhook):
        ledger.apply(event(WebhookRemoved, 3, hook_id="wh_1", url="https://a.example"))
    assert ledger.revision == 2


@pytest.mark.parametrize(
    ("namespaces", "about", "opens"),
    [
        ((), "a", True),
        ((), None, True),
        (("a", "b"), "b", True),
        (("a", "b"), "c", False),
        (("a",), None, False),
    ],
)
def test_a_key_opens_its_namespaces_and_no_other(namespaces: tuple[str, ...], about: str | None, opens: bool) -> None:
    key, _ = new_key(Role.ADMIN, "x", 0.0, namespaces)
    assert key.opens(about) is opens
    if opens:
        check_reach(key, about)
    else:
        with pytest.raises(Forbidden, match="namespace"):
            check_reach(key, about)
    check_reach(None, about)


def test_entries_that_need_nothing_new_are_written_as_before() -> None:
    """An older Errata reads them on."""

    def schema(each: Event) -> int:
        return disassemble(encode(each, GENESIS)).schema

    assert schema(committed(1)) == schema(event(KeyCreated, 1, **KEY)) == 1
    newer = (
        committed(1, promoted_from="e0"),
        event(KeyCreated, 1, **KEY, namespaces=("a",)),
        event(NamespaceSet, 1, namespace="a", description=""),
        event(WebhookSet, 1, **HOOK),
    )
    assert {schema(each) for each in newer} == {6}
    assert schema(committed(1, widen=1.5)) == 7


def test_a_request_is_hashed_as_before_and_a_promoted_one_by_what_it_is_made_of() -> None:
    assert request().digest() == "3cde574d227703f9b9a5229c5f632e4797d468140fa8a8084296f908f88d8d8a"
    one, other = (request(promoted_from="e0", paraphrases=texts, expires_in_s=9.0) for texts in ((), ("Whose?",)))
    assert one.digest() == other.digest() != request().digest()
    others = ({"promoted_from": "e1"}, {"namespace": "other"}, {"reason": "release 13"})
    assert len({one.digest(), *(replace(one, **each).digest() for each in others)}) == 4


def test_names_of_keys_are_unique_however_they_are_written() -> None:
    ledger = folded(event(KeyCreated, 1, **KEY), event(KeyCreated, 2, **(KEY | {"key_id": "l", "name": "other"})))
    with pytest.raises(StateConflict, match="The key k is named 'ci' already"):
        ledger.check_key_name("CI")
    ledger.check_key_name("ci-2")
