"""A batch that is not atomic: what was made of it, and what was wrong with the rest, by its place. Free of torch."""

from collections.abc import Sequence
from dataclasses import replace

from app.domain.errors import ErrataError
from app.service.views import EditFailure, EditResults


def with_failures(results: EditResults, places: Sequence[int], wrong: Sequence[EditFailure]) -> EditResults:
    """With what was wrong before anything was tried; `places` are those in the batch of what was tried."""
    tried = (EditFailure(index=places[each.index], error=each.error) for each in results.failures)
    return replace(results, failures=tuple(sorted((*wrong, *tried), key=lambda failure: failure.index)))


def none_of(failures: Sequence[EditFailure]) -> ErrataError:
    """The error of a batch of which nothing was made: the first one's, with all the others by their places."""
    first = failures[0].error
    told = [{"index": each.index, "detail": each.error.message} for each in failures]
    first.details.update(index=failures[0].index, failures=told)
    return first
