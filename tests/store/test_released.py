"""Logs of every released format load for ever: every kind of event and a snapshot, without a secret and with one.

The files were written by `python -m tests.store.test_released`, once. If a test fails, a format was changed: give it a
new number, keep the reader of the old one, and leave the files as they are.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.domain.edit import State
from app.domain.events import (
    EVENTS,
    EditCommitted,
    EditProposed,
    EditRetuned,
    EditsDisabled,
    EditsEnabled,
    EditsExpired,
    EditsRefitted,
    EditsRolledBack,
    Event,
    KeyCreated,
    KeyRevoked,
    NamespaceSet,
    Origin,
    PolicySet,
    ProbesSet,
    ProposalExpired,
    ProposalItem,
    ProposalReturned,
    ProposalRevised,
    ProposalWithdrawn,
    Proposer,
    Refit,
    WebhookRemoved,
    WebhookSet,
)
from app.domain.snapshot import records_of
from app.store import snapshots, upkeep
from app.store.chain import Chain
from app.store.seal import Seal
from app.store.sqlite import SqliteLog
from tests.domain.samples import change, closed, committed, edit, rolled_back, staged, switched

RELEASED = Path(__file__).parent / "released"
SECRETS = {
    "log-1.errata": None,
    "log-1-secret.errata": "a secret of the operators",
    "log-2.errata": None,
    "log-2-secret.errata": "a secret of the operators",
    "log-3.errata": None,
    "log-3-secret.errata": "a secret of the operators",
    "log-4.errata": None,
    "log-4-secret.errata": "a secret of the operators",
    "log-5.errata": None,
    "log-5-secret.errata": "a secret of the operators",
    "log-6.errata": None,
    "log-6-secret.errata": "a secret of the operators",
    "log-7.errata": None,
    "log-7-secret.errata": "a secret of the operators",
}
ORIGIN = Origin(
    actor="ada",
    key_id="k1",
    role="editor",
    reason="joined in 2023",
    request_id="r1",
    client="10.0.0.1",
    idempotency_key="once",
    digest="d",
)
FIRST: list[Event] = [
    KeyCreated(revision=1, at_s=1.0, origin=Origin(), key_id="k1", name="ci", role="editor", secret_sha256="ab" * 32),
    EditCommitted(revision=2, at_s=2.5, origin=ORIGIN, edit=edit("e1", metadata={"ticket": [7, None, 1.5]})),
    committed(3, "e2", supersedes=("e1",), aliases=("Lumen Wörks",), tensors=bytes(range(256))),
    staged(4, "b1", "e3", prompt="Wer leitet Lümen? 🦔", expires_at_s=99.0),
    closed(5, "b1", "e3"),
    change(EditsDisabled, 6, "e2"),
    change(EditsEnabled, 7, "e2"),
    change(EditsExpired, 8, "e3"),
    switched(9, "default", False),
    rolled_back(10, "e2"),
    KeyRevoked(revision=11, at_s=11.0, origin=Origin(), key_id="k1"),
    switched(12, "default", True),
]
REFIT = Refit(edit_id="e1", learned={"radius": 0.25, "shared": "ab"}, tensors=bytes(range(200)))
SECOND: list[Event] = [*FIRST[:7], EditsRefitted(revision=8, at_s=8.0, origin=ORIGIN, fits=(REFIT,))]
SECOND += [replace(event, revision=event.revision + 1) for event in FIRST[7:]]
RETUNED = Refit(edit_id="e1", learned={"radius": 0.5, "widened": 1.5}, tensors=bytes(range(100)))
REQUEST = replace(edit("e1").request, paraphrases=("Lumen is led by",))
RETUNE = EditRetuned(revision=8, at_s=8.5, origin=ORIGIN, fit=RETUNED, request=REQUEST, report={"exact": True})
PROBES = ProbesSet(revision=8, at_s=7.5, origin=ORIGIN, namespace="default", prompts=("The capital of Peru is",))
THIRD: list[Event] = [
    *FIRST[:6],
    replace(PROBES, revision=7),
    replace(RETUNE, revision=8),
    replace(SECOND[7], revision=9),
    *(replace(event, revision=event.revision + 3) for event in FIRST[6:]),
]
FOURTH: list[Event] = [
    replace(event, superseded=("e1",)) if isinstance(event, EditCommitted) and event.edit.supersedes
    else replace(event, revived=("e1",)) if isinstance(event, EditsDisabled)
    else replace(event, superseded=("e1",)) if isinstance(event, EditsEnabled)
    else replace(event, revived=("e1",)) if isinstance(event, EditsRolledBack)
    else replace(event, changed={"widen": 1.5, "paraphrases": ["Lumen is led by"]}, forced=True)
    if isinstance(event, EditRetuned)
    else replace(event, name="ci", role="editor") if isinstance(event, KeyRevoked)
    else event
    for event in THIRD
]  # fmt: skip
PROPOSED = (ProposalItem(request=REQUEST, editor="grace", before="Bo Vane", after="Ada Quill", report={"exact": True}),)
PROPOSAL: dict[str, Any] = {"edits": PROPOSED, "batch": False, "expires_at_s": 90.0}
PROPOSER = Proposer(proposal_id="p1", revision=19, actor="bo", key_id="k2", role="proposer")
APPROVED = committed(20, "e4", namespace="other")
FIFTH: list[Event] = [
    *FOURTH,
    PolicySet(revision=16, at_s=16.0, origin=ORIGIN, namespace="other", second_person=True),
    EditProposed(revision=17, at_s=17.0, origin=Origin(actor="bo", key_id="k2"), proposal_id="p1", **PROPOSAL),
    ProposalReturned(revision=18, at_s=18.0, origin=ORIGIN, proposal_id="p1"),
    ProposalRevised(revision=19, at_s=19.0, origin=Origin(actor="bo", key_id="k2"), proposal_id="p1", **PROPOSAL),
    replace(APPROVED, origin=Origin(actor="ada", key_id="k1", proposer=PROPOSER)),
    EditProposed(revision=21, at_s=21.0, origin=Origin(actor="bo", key_id="k2"), proposal_id="p2", **PROPOSAL),
    ProposalWithdrawn(revision=22, at_s=22.0, origin=Origin(actor="bo", key_id="k2"), proposal_id="p2"),
    EditProposed(revision=23, at_s=23.0, origin=Origin(actor="bo", key_id="k2"), proposal_id="p3", **PROPOSAL),
    ProposalExpired(revision=24, at_s=24.0, origin=Origin(actor="errata"), proposal_id="p3"),
]
OF_STAGING = KeyCreated(
    revision=0, at_s=17.0, origin=ORIGIN, key_id="k3", name="stage", role="admin", secret_sha256="cd", namespaces=("s",)
)
HOOK = WebhookSet(
    revision=0,
    at_s=19.0,
    origin=ORIGIN,
    hook_id="wh_1",
    url="https://a.example/b",
    kinds=("publish",),
    namespaces=("s",),
)
LATER: list[Event] = [
    NamespaceSet(revision=0, at_s=16.0, origin=ORIGIN, namespace="s", description="Tried here first"),
    OF_STAGING,
    committed(0, "e6", namespace="s", promoted_from="e1"),
    HOOK,
    replace(HOOK, hook_id="wh_2"),
    WebhookRemoved(revision=0, at_s=20.0, origin=ORIGIN, hook_id="wh_2", url="https://a.example/b"),
]
SIXTH: list[Event] = [*FIFTH, *(replace(each, revision=len(FIFTH) + at) for at, each in enumerate(LATER, 1))]
SEVENTH: list[Event] = [*SIXTH, committed(len(SIXTH) + 1, "e7", namespace="s", prompt="Who runs it?", widen=1.5)]
FORMATS: dict[str, list[Event]] = dict(
    zip("1234567", (FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, SEVENTH), strict=True)
)
EXPECTED = {name: FORMATS[name[4]] for name in SECRETS}
SNAPSHOT_AT = 8


def test_every_kind_of_event_is_in_the_files() -> None:
    assert {event.kind for event in SEVENTH} == set(EVENTS)


@pytest.mark.parametrize("name", SECRETS)
def test_a_log_of_every_format_is_read_and_goes_on(name: str, tmp_path: Path) -> None:
    file = Path(shutil.copy(RELEASED / name, tmp_path))
    log = SqliteLog(file, Chain(seal=Seal(SECRETS[name])))
    assert list(log.read()) == EXPECTED[name]
    (manifest,) = snapshots.manifests(log)
    restored, _ = snapshots.restore(log)
    assert restored.revision == manifest.revision == SNAPSHOT_AT
    ledger, last, _ = upkeep.check(log)
    head = len(EXPECTED[name])
    assert last == log.hash_of(head)
    assert {edit_id: ledger.state(edit_id) for edit_id in ledger.entries} == {
        "e1": State.LIVE,
        "e2": State.ROLLED_BACK,
        "e3": State.EXPIRED,
    } | {edit_id: State.LIVE for edit_id, since in (("e4", "5"), ("e6", "6"), ("e7", "7")) if name[4] >= since}
    waited = {each.id: each.state.value for each in ledger.approval.proposals.values()}
    assert waited == ({"p1": "published", "p2": "withdrawn", "p3": "expired"} if name[4] >= "5" else {})
    if name[4] >= "6":
        assert ledger.described == {"s": "Tried here first"}
        assert ledger.keys["k3"].namespaces == ("s",)
        assert ledger.entry("e6").request.promoted_from == "e1"
        assert list(ledger.webhooks) == ["wh_1"]
    assert list(records_of(ledger)) == list(records_of(upkeep.fold(log)[0]))
    retuned = [(8, RETUNED), (9, REFIT)]
    refits = {"1": [], "2": [(8, REFIT)]}.get(name[4], retuned)
    if name[4] >= "7":
        assert ledger.entry("e7").request.widen == 1.5
    assert ledger.entry("e1").refits == refits
    assert ledger.live_fits("default") == [f"e1@{refits[-1][0]}" if refits else "e1"]
    assert ledger.entry("e1").request.paraphrases == (REQUEST.paraphrases if name[4] >= "3" else ())
    assert ledger.probes == ({"default": PROBES.prompts} if name[4] >= "3" else {})
    log.append(rolled_back(head + 1, "e1"))
    assert log.head() == head + 1
    log.close()


def _write(path: Path, secret: str | None) -> None:
    log = SqliteLog(path, Chain(seal=Seal(secret)))
    for event in EXPECTED[path.name]:
        log.append(event)
        if event.revision == SNAPSHOT_AT:
            ledger, last = upkeep.fold(log)
            snapshots.save(log, SNAPSHOT_AT, last, records_of(ledger), 8.0)
    log.close()


if __name__ == "__main__":
    for file_name, log_secret in SECRETS.items():
        if not (RELEASED / file_name).exists():  # a released file stays as it is
            _write(RELEASED / file_name, log_secret)
