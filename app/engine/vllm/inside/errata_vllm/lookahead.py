"""Lookahead in vLLM: a drafter of its speculative decoding that drafts what an edit is to say.

The target of an edit is known before it is given. vLLM computes as much of it as may be drafted in one pass, and takes
of it what the model says. It is chosen by `speculative_config`, with the path of this class as its model.
"""

from collections.abc import Callable, Sequence
from typing import Any

from .names import check_names


class Lookahead:
    """vLLM makes one in each worker that samples, and calls `propose` after each step."""

    def __init__(self, config: Any) -> None:
        check_names(config, ["speculative_config.num_speculative_tokens"], "its settings")
        self._most = int(config.speculative_config.num_speculative_tokens)
        self._max_tokens = int(config.model_config.max_model_len)
        self.draft: Callable[[int], Sequence[int]] = lambda _: ()
        """The tokens that the request at a place of the batch is expected to be answered with next. The extension of
        the worker, which has the edits, sets it."""

    def propose(
        self, sampled: Sequence[Sequence[int]], lengths: Sequence[int], _token_ids: Any, **_more: Any
    ) -> list[list[int]]:
        """Return the drafted tokens of each request. `sampled`: the tokens that the step gave each, none in the midst
        of a prompt; `lengths`: how many tokens each has now."""
        return [
            list(self.draft(at)[: max(0, min(self._most, self._max_tokens - int(lengths[at]) - 1))]) if given else []
            for at, given in enumerate(sampled)
        ]

    def load_model(self, *_: Any, **__: Any) -> None:
        """Does nothing: there is no model."""
