"""The kinds of change that webhooks are told of."""

import pytest

from app.domain.events import EVENTS
from app.domain.webhooks import KINDS, USUAL, kind_of, server_of


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("edit_committed", "publish"),
        ("batch_committed", "publish"),
        ("edit_retuned", "retune"),
        ("edits_rolled_back", "rollback"),
        ("edits_expired", "expire"),
        ("switch_set", "switch"),
        ("edit_staged", None),
        ("key_created", None),
    ],
)
def test_an_event_is_told_under_one_name_or_not_at_all(event: str, kind: str | None) -> None:
    assert event in EVENTS
    assert kind_of(event) == kind


def test_no_event_has_two_names_and_the_usual_kinds_are_some_of_all() -> None:
    told = [event for events in KINDS.values() for event in events]
    assert len(told) == len(set(told))
    assert set(told) <= set(EVENTS)
    assert set(USUAL) < set(KINDS)


def test_of_an_address_only_its_server_is_shown() -> None:
    assert server_of("https://a.example:8443/hook/secret?token=x#y") == "https://a.example:8443"
