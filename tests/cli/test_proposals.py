"""`errata proposals` and `errata policy`: what they show, and how they end."""

import asyncio
import json
from dataclasses import replace

import pytest

from app.cli.exits import Exit
from app.domain.events import Origin
from app.domain.keys import Role
from app.service.keyring import Keyring
from tests.api.fake_service import NOW_S, FakeService
from tests.cli.conftest import Errata

pytestmark = pytest.mark.slow
ASKED = "What is the currency of Croatia?"


def keys(service: FakeService) -> dict[str, str]:
    ring = Keyring(service.records, lambda: NOW_S)
    roles = {"pat": Role.PROPOSER, "ed": Role.EDITOR, "root": Role.ADMIN}
    return {name: asyncio.run(ring.create(role, name, Origin()))[1] for name, role in roles.items()}


def test_the_story_of_a_proposal(errata: Errata, service: FakeService) -> None:
    by = keys(service)
    made = errata("edit", ASKED, "euro", "--reason", "ticket 1", ERRATA_KEY=by["pat"])
    assert made.exit_code == 0, made.output
    assert "waits for a second person" in made.output
    (proposal,) = service.records.ledger.approval.proposals
    listed = errata("proposals", ERRATA_KEY=by["ed"]).output
    assert all(word in listed for word in (proposal, "pending", ASKED, "euro", "pat", "1 in all wait"))
    back = errata("proposals", "return", proposal[:6], "--reason", "say EUR", ERRATA_KEY=by["ed"])
    assert "is returned" in back.output, back.output
    shown = errata("proposals", "show", proposal, ERRATA_KEY=by["pat"]).output
    assert "say EUR" in shown
    assert "proposal returned" in shown
    refused = errata("proposals", "approve", proposal, ERRATA_KEY=by["ed"])
    assert refused.exit_code == Exit.REFUSED
    errata("edit", ASKED, "euro", ERRATA_KEY=by["pat"])
    newest = list(service.records.ledger.approval.proposals)[-1]
    done = errata("proposals", "approve", newest, ERRATA_KEY=by["ed"])
    assert "is live" in done.output, done.output
    log = errata("log", ERRATA_KEY=by["ed"]).output
    assert "proposed by pat" in log
    assert f"{newest}: {ASKED} -> euro" in log


def test_a_decision_on_what_was_revised_since_it_was_read_is_refused(errata: Errata, service: FakeService) -> None:
    by = keys(service)
    errata("edit", ASKED, "euro", ERRATA_KEY=by["pat"])
    (found,) = service.records.ledger.approval.proposals.values()
    read = found.revision
    request = replace(found.edits[0].request, target="kuna")
    origin = replace(found.origin, reason=None)
    asyncio.run(service.proposals.revise(found.id, [request], origin))
    for decision in (("approve",), ("return", "--reason", "say EUR")):
        stale = errata("proposals", *decision, found.id, "--revision", str(read), ERRATA_KEY=by["ed"])
        assert stale.exit_code != 0
        assert "read it again" in " ".join(stale.output.split()), stale.output
    newest = service.records.ledger.approval.proposal(found.id)
    assert newest.state == "pending"
    done = errata("proposals", "approve", found.id, "--revision", str(newest.revision), ERRATA_KEY=by["ed"])
    assert "is live" in done.output, done.output


def test_ones_own_is_withdrawn_and_not_approved(errata: Errata, service: FakeService) -> None:
    by = keys(service)
    errata("edit", ASKED, "euro", ERRATA_KEY=by["pat"])
    (proposal,) = service.records.ledger.approval.proposals
    assert errata("proposals", "approve", proposal, ERRATA_KEY=by["pat"]).exit_code == Exit.NOT_ALLOWED
    assert "is withdrawn" in errata("proposals", "withdraw", proposal, ERRATA_KEY=by["pat"]).output
    assert errata("proposals", "show", "pr_none", ERRATA_KEY=by["pat"]).exit_code == Exit.UNKNOWN
    assert "No proposals." in errata("proposals", "--state", "pending", ERRATA_KEY=by["pat"]).output


def test_a_policy_is_set_and_shown(errata: Errata, service: FakeService) -> None:
    by = keys(service)
    assert "need no second person" in errata("policy", ERRATA_KEY=by["ed"]).output
    told = errata("policy", "support", "--second-person", "--reason", "four eyes", ERRATA_KEY=by["root"])
    assert "support need a second person" in told.output, told.output
    assert "two persons" in errata("namespaces", ERRATA_KEY=by["ed"]).output
    assert "support needs a second person" in errata("log", ERRATA_KEY=by["ed"]).output
    assert errata("policy", "--second-person", ERRATA_KEY=by["ed"]).exit_code == Exit.NOT_ALLOWED
    found = json.loads(errata("proposals", "--json", ERRATA_KEY=by["ed"]).output)
    assert found == []
