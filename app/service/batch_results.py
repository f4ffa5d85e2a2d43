"""Results of a batch that is not atomic: the edits made and the errors of the others, by index. Does not import
torch."""

from collections.abc import Sequence
from dataclasses import replace

from app.domain.errors import ErrataError
from app.service.views import EditFailure, EditResults


def with_failures(results: EditResults, places: Sequence[int], wrong: Sequence[EditFailure]) -> EditResults:
    """The results with the errors from before the attempt; `places` are the indices in the batch of the attempted
    edits."""
    tried = (EditFailure(index=places[each.index], error=each.error) for each in results.failures)
    return replace(results, failures=tuple(sorted((*wrong, *tried), key=lambda failure: failure.index)))


def none_of(failures: Sequence[EditFailure]) -> ErrataError:
    """The error of a batch of which nothing was made: that of the first, with those of all others by index."""
    first = failures[0].error
    listed = [{"index": each.index, "detail": each.error.message} for each in failures]
    first.details.update(index=failures[0].index, failures=listed)
    return first
