"""Names to ask near misses about: of those in the questions that ship, the ones most like the edit's own name.

"The currency of Estonia" is a question that somebody asks beside the currency of Croatia, and hard to tell from it;
"the currency of 18" is neither.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property

from torch import Tensor

from app.domain.words import says, words_of
from app.scope.vectors import Vectors


class OtherNames:
    """Names by likeness. Their vectors are computed when they are first needed."""

    def __init__(self, vectors: Vectors, names: Sequence[str]) -> None:
        self._vectors, self._names = vectors, tuple(names)

    def like(self, name: str | None, besides: Iterable[str] = ()) -> list[str]:
        """The names, the most like this one first; in their own order if it is None. Those that one of the texts
        `besides` says are left out: they may be other names of the same."""
        names = list(self._names)
        if name is not None and names:
            near = self._known @ self._vectors.uncached([name])[0]
            names = [names[at] for at in near.argsort(descending=True, stable=True).tolist()]
        said = [words_of(text) for text in besides]
        return [each for each in names if not any(says(words, tuple(words_of(each))) for words in said)]

    @cached_property
    def _known(self) -> Tensor:
        """(N, E)"""
        return self._vectors.of(self._names)
