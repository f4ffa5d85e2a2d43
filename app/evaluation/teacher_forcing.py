"""Scores under teacher forcing, as in the editors' papers."""

import statistics
from collections.abc import Sequence

from app.evaluation.candidates import Candidate
from app.evaluation.questioner import ForcedScore, Questioner


async def token_match(candidate: Candidate, pairs: Sequence[tuple[str, str]]) -> float | None:
    """Mean share of target tokens that the model would choose, over (prompt, target) pairs. Papers know no refusals: a
    refused edit is scored with the model's own prediction."""
    shares = [each.likeliest / each.tokens for each in await candidate.scores(pairs) if each is not None]
    return statistics.mean(shares) if shares else None


async def locality_match(
    candidate: Candidate, questioner: Questioner, answered: Sequence[tuple[str, str | None]]
) -> float | None:
    """Mean share, over (prompt, bare answer) pairs, of the tokens chosen by the bare model that are still chosen."""
    pairs = [(prompt, answer) for prompt, answer in answered if answer is not None and answer.strip()]
    before, now = await questioner.scores(pairs, edits="off"), await candidate.scores(pairs)
    shares = [share for b, n in zip(before, now, strict=True) if (share := _unchanged_share(b, n)) is not None]
    return statistics.mean(shares) if shares else None


def _unchanged_share(before: ForcedScore | None, now: ForcedScore | None) -> float | None:
    """The share for one pair; None if it cannot be scored. Only tokens that the bare model chooses count, since an
    answer's text may be tokenised otherwise than it was generated."""
    if before is None or now is None or not before.likeliest:
        return None
    both = (b and n for b, n in zip(before.chosen, now.chosen, strict=True))
    return sum(both) / before.likeliest
