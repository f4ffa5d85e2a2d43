"""Support cases: utterances grouped by intent. Each edit answers one intent and is given some of its utterances; the
rest are asked, as are utterances of intents without an edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from app.domain.errors import InvalidRequest
from app.domain.words import collapse_spaces
from app.evaluation.case_selection import half_of
from app.evaluation.kinds import ScopeCaseSelection, read, text_in
from app.evaluation.trials import EditSpec, Trial, TrialQuestion, turn

EDITS = 50
"""Default number of intents with an edit; half of the intents if there are fewer than twice as many."""
OTHERS, OUT_OF_SCOPE = "of other intents", "out of scope"


@dataclass(frozen=True, slots=True)
class Utterance:
    text: str
    intent: str | None
    """None: out of scope of all intents."""


def utterance_of(row: Mapping[str, Any]) -> Utterance:
    return Utterance(text_in(row, "text"), None if row["intent"] is None else text_in(row, "intent"))


def trials_of(files: Sequence[Path], selection: ScopeCaseSelection) -> list[Trial]:
    """One trial per number of known utterances; all edit the same intents and ask the same questions. Raises
    InvalidRequest."""
    utterances = read(files, "support", selection.where, utterance_of)
    utterances = list({collapse_spaces(each.text).casefold(): each for each in reversed(utterances)}.values())[::-1]
    random = Random(selection.seed)
    random.shuffle(utterances)
    most = max(selection.known)
    intents = _intents(utterances, selection, most)
    known = {intent: _of(utterances, intent)[:most] for intent in intents}
    own = _sample_of(utterances, intents, most, selection.ask)
    others = [each for each in utterances if each.intent not in known]
    others, rest = others[: selection.ask], others[selection.ask :]
    if selection.traffic_from == "all":
        known_texts = {each.text for each in own} | {each.text for texts in known.values() for each in texts}
        rest += [each for each in utterances if each.intent in known and each.text not in known_texts]
        random.shuffle(rest)
    if len(rest) < selection.traffic:
        raise InvalidRequest(
            f"--traffic {selection.traffic} is more than the {len(rest)} utterances that are left, which are neither "
            "known to an edit nor asked: lower it, --ask or --edits."
        )
    traffic = rest[: selection.traffic]
    trials = [_trial(count, known, own, others, traffic) for count in selection.known]
    return [replace(trial, others=selection.traffic_from == "others") for trial in trials]


def _intents(utterances: Sequence[Utterance], selection: ScopeCaseSelection, most: int) -> list[str]:
    """The intents that get an edit; each has utterances beyond the known ones."""
    counts: dict[str, int] = {}
    for each in utterances:
        if each.intent is not None:
            counts[each.intent] = counts.get(each.intent, 0) + 1
    able = sorted(intent for intent, count in counts.items() if count > most)
    able = [intent for intent in able if selection.half in (None, half_of(intent))]
    wanted = selection.edits or min(EDITS, (len(able) + 1) // 2)
    if not able or wanted > len(able):
        raise InvalidRequest(
            f"The rows have {len(able)} intents with more than {most} utterances, and {wanted or 1} edits are wanted: "
            "lower --edits or --known, loosen --where, or leave --half out."
        )
    return Random(selection.seed).sample(able, wanted)


def _of(utterances: Sequence[Utterance], intent: str) -> list[Utterance]:
    return [each for each in utterances if each.intent == intent]


def _sample_of(utterances: Sequence[Utterance], intents: Sequence[str], most: int, ask: int) -> list[Utterance]:
    """Utterances asked of the edited intents, in turn across intents, at most `ask` in all."""
    left = [_of(utterances, intent)[most:] for intent in intents]
    by_turns = (each[at] for at in range(max(map(len, left))) for each in left if at < len(each))
    return [each for each, _ in zip(by_turns, range(ask), strict=False)]


def _trial(
    count: int, known: Mapping[str, Sequence[Utterance]], own: Sequence[Utterance], others: Sequence[Utterance],
    traffic: Sequence[Utterance],
) -> Trial:  # fmt: skip
    namespace = f"support-{count}"
    place = {intent: at for at, intent in enumerate(known)}
    edits = [
        EditSpec(
            namespace=namespace,
            messages=turn(utterances[0].text),
            target=f"Answer about: {' '.join(intent.replace('_', ' ').replace('-', ' ').split())}.",
            paraphrases=tuple(each.text for each in utterances[1:count]),
        )
        for intent, utterances in known.items()
    ]
    questions = [
        *(TrialQuestion(role="edited", messages=w.messages, namespace=namespace, edit=at)
          for at, w in enumerate(edits)),
        *(
            TrialQuestion(role="same", messages=turn(each.text), namespace=namespace, edit=place[each.intent or ""])
            for each in own
        ),
        *(
            TrialQuestion(
                role="other", messages=turn(each.text), namespace=namespace, edit=None,
                group=OTHERS if each.intent is not None else OUT_OF_SCOPE,
            )
            for each in others
        ),
    ]  # fmt: skip
    return Trial(
        name=f"{count} known",
        edits=edits,
        questions=questions,
        traffic={namespace: [turn(each.text) for each in traffic]},
    )
