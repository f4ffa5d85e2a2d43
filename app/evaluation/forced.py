"""Scores under teacher forcing, as the papers of the editors have them."""

import statistics
from collections.abc import Sequence

from app.evaluation.asking import Asking, Scored
from app.evaluation.candidates import Candidate


async def token_match(candidate: Candidate, pairs: Sequence[tuple[str, str]]) -> float | None:
    """(prompt, target): the mean share of target tokens that the model would choose. Papers know no refusals: of an
    edit that was refused, this is what the model itself makes of it."""
    shares = [each.likeliest / each.tokens for each in await candidate.scores(pairs) if each is not None]
    return statistics.mean(shares) if shares else None


async def locality_match(
    candidate: Candidate, asking: Asking, answered: Sequence[tuple[str, str | None]]
) -> float | None:
    """(prompt, the bare model's answer): the mean share of the tokens that it chooses, of those that it chose bare."""
    pairs = [(prompt, answer) for prompt, answer in answered if answer is not None and answer.strip()]
    before, now = await asking.scores(pairs, edits="off"), await candidate.scores(pairs)
    shares = [share for b, n in zip(before, now, strict=True) if (share := _kept(b, n)) is not None]
    return statistics.mean(shares) if shares else None


def _kept(before: Scored | None, now: Scored | None) -> float | None:
    """An answer that is read back from its text need not have the tokens that it was generated in."""
    if before is None or now is None or not before.likeliest:
        return None
    both = (b and n for b, n in zip(before.chosen, now.chosen, strict=True))
    return sum(both) / before.likeliest
