"""The pages' plain words for scopes, events, moments and shares. Independent of the pages."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.domain.approval import SUPERSEDED, ProposalState
from app.domain.edit import State
from app.domain.generation import Hit, Signal
from app.domain.words import surface
from app.service.views import token_diff

STATES = {
    State.LIVE: "live",
    State.DISABLED: "disabled",
    State.SUPERSEDED: "replaced",
    State.EXPIRED: "expired",
    State.ROLLED_BACK: "rolled back",
    State.STAGED: "staged",
}
PHASES = {
    "waiting": "Waiting for its turn",
    "fit": "Fitting the answer",
    "scope": "Learning which questions ask for it",
    "verify": "Asking the question and those around it",
}
EVENTS = {
    "edit_committed": "published an edit",
    "edit_staged": "staged an edit of a batch",
    "batch_committed": "published a batch",
    "edits_refitted": "fitted edits again",
    "edit_retuned": "changed whom an edit reaches",
    "probes_set": "set the protected questions",
    "edits_rolled_back": "rolled back",
    "edits_disabled": "disabled",
    "edits_enabled": "enabled",
    "edits_expired": "let edits expire",
    "switch_set": "used the switch",
    "key_created": "created a key",
    "key_revoked": "revoked a key",
    "policy_set": "set who must approve",
    "edit_proposed": "proposed an edit",
    "proposal_revised": "revised a proposal",
    "proposal_returned": "sent a proposal back",
    "proposal_withdrawn": "withdrew a proposal",
    "proposal_expired": "let a proposal expire",
    SUPERSEDED: "superseded the proposal",
    "namespace_set": "set up a namespace",
    "webhook_set": "set up a webhook",
    "webhook_removed": "removed a webhook",
}
PROPOSALS = {
    ProposalState.PENDING: "waits",
    ProposalState.RETURNED: "sent back",
    ProposalState.WITHDRAWN: "withdrawn",
    ProposalState.PUBLISHED: "published",
    ProposalState.SUPERSEDED: "superseded",
    ProposalState.EXPIRED: "expired",
}


diff = token_diff


def event_word(kind: str) -> str:
    return EVENTS.get(kind, kind.replace("_", " "))


def share(value: float) -> str:
    """A share from 0 to 1 with two digits, as in print: .91."""
    text = f"{min(max(value, 0.0), 1.0):.2f}"
    return text[1:] if text.startswith("0") else text


def why_hit(signals: Mapping[str, Signal], subject: str | None) -> str:
    """The reason why an edit answered, in a sentence."""
    same = signals.get("same")
    if same is None:
        parts = [f"{name} {signal.value:.2f}, needs {signal.bound:.2f}" for name, signal in signals.items()]
        return f"In scope by its own measure: {'; '.join(parts)}." if parts else "In scope by its own measure."
    text = f"Asks the same as the edit’s question: {share(same.value)}, needs {share(same.bound)}"
    named = signals.get("named")
    if named is not None and named.value >= 1 and subject:
        text += f"; names {subject}"
    return f"{text}."


def why_not(hit: Hit) -> str:
    """The reason why the nearest edit did not answer, in a sentence."""
    same = hit.signals.get("same")
    against = hit.why.partition("; but ")[2]
    if same is None:
        return "It was out of scope by its own measure."
    if same.value >= same.bound and against:
        return f"Asks about the same ({share(same.value)}, needs {share(same.bound)}), but {against}."
    text = f"Not close enough: {share(same.value)}, needs {share(same.bound)}"
    return f"{text}; and {against}." if against else f"{text}."


def scope_words(report: Mapping[str, Any], question: str, subject: str | None) -> list[str]:
    """An edit's scope in facts, as measured when it was made or retuned."""
    facts = []
    bound, scope = report.get("bound"), report.get("scope") or {}
    if bound is None:
        bound = scope.get("bound")
    if bound is not None:
        facts.append(f"It answers questions that ask the same as its own with at least {share(bound)} of certainty.")
    if subject:
        facts.append(f"The question must name {subject}.")
    names = [named for name in scope.get("names", []) if (named := surface(question, tuple(name)))]
    if names and not subject:
        facts.append(f"It is about {', '.join(names)}.")
    rate, rests = scope.get("rate"), scope.get("rests_on")
    if rate is not None and rests:
        facts.append(f"Measured on {rests:,} other questions, it answers at most {least_share(rate, rests)} of them.")
    near = report.get("near_misses")
    if near:
        answered = len(near.get("answered", []))
        facts.append(f"Of {near['asked']} near misses that were made of it, it answers {answered or 'none'}.")
    return facts


def moved(factor: float) -> str:
    """The way in which somebody has moved the border of a scope, by the factor on its odds."""
    way = "more" if factor > 1 else "fewer"
    return f"Its border was moved by hand, to reach {way} questions: {factor:.2g} times the odds that were learned."


def least_share(rate: float, among: int) -> str:
    """A share of other questions, as "1 in N"; a share of 0 among N is given as at most 1 in N, since it may not be
    exactly 0."""
    return f"1 in {min(among, round(1 / rate)):,}" if rate > 0 else f"1 in {among:,}"


def moment(at_s: float | None) -> str:
    return "" if at_s is None else _utc(at_s).strftime("%-d %b %Y, %H:%M UTC")


def date(at_s: float) -> str:
    return _utc(at_s).strftime("%-d %b %Y")


def iso(at_s: float | None) -> str:
    return "" if at_s is None else _utc(at_s).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(at_s: float | None) -> str:
    return "" if at_s is None else _utc(at_s).strftime("%Y-%m-%d")


def day_s(text: str) -> float:
    """The beginning of a day (UTC) as Unix time. Raises ValueError."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def _utc(at_s: float) -> datetime:
    return datetime.fromtimestamp(min(max(at_s, 0.0), 253_402_300_799.0), UTC)


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 0.1 else f"{value * 1e3:.0f} ms"


def size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def logit(value: float) -> float:
    """A share as a logit, between -6 and 6, the ends of the strip."""
    value = min(max(value, 0.0025), 0.9975)
    return math.log(value / (1 - value))


def unlogit(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def phase(name: str) -> str:
    """A job's phase in words."""
    return PHASES.get(name, name)
