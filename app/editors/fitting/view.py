"""A second view of the frozen model, for fits: layers below a site run once, those above as often as a fit asks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from app.compat import cache_argument
from app.editors.base import Site
from app.editors.fitting.hooks import Act, SiteHooks, StopForward
from app.editors.fitting.partial_model import Skip, with_layers
from app.editors.fitting.sites import Architecture, layers_of
from app.editors.fitting.suffix import Past, Prefix, Tail, shared_start
from app.editors.fitting.token_odds import Telling, telling

KEYS_AT_ONCE = 64
"""Prompts that share a forward pass, at most."""
TOKENS_AT_ONCE, TOKENS_ON_A_CPU = 8192, 96
"""Theirs, together: answers under way wait for a micro-step of a fit, which on a CPU takes as long as it has tokens."""


class FitView:
    """A second view of the frozen parameters, in which the layers below a site are not run again.

    `site` is the lowest at which a fit acts; `sites` above it may act too.

    The module tree is copied down to the list of layers, the parameters are shared; the serving model is not touched.
    """

    def __init__(
        self,
        model: nn.Module,
        architecture: Architecture,
        site: Site,
        hooks: SiteHooks,
        sites: Sequence[Site] = (),
    ) -> None:
        self.site, self.hooks = site, hooks
        self.model = model
        self._layer, self._depth = layers_of(model, architecture)[site.layer], len(layers_of(model, architecture))
        for each in (site, *sites):
            hooks.attach(each)
        self.device = next(model.parameters()).device
        self._widths = self._measure()
        self._view = with_layers(
            model,
            architecture.layers,
            [*(Skip() for _ in range(site.layer)), *layers_of(model, architecture)[site.layer :]],
        )

    @torch.no_grad()
    def _measure(self) -> tuple[int, int]:
        sizes: list[tuple[int, int]] = []

        def look(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            sizes.append((args[0].shape[-1], output.shape[-1]))
            raise StopForward

        handle = self.model.get_submodule(self.site.module).register_forward_hook(look)
        try:
            with suppress(StopForward):
                self.model(**_whole(torch.zeros(1, 1, dtype=torch.long, device=self.device)))
        finally:
            handle.remove()
        return sizes[0]

    @property
    def widths(self) -> tuple[int, int]:
        """(D_in, D_out) of the site."""
        return self._widths

    @torch.no_grad()
    def keys(self, contexts: Sequence[Sequence[int]]) -> Tensor:
        """Prompts (ids) -> (N, D_in) fp32: the site's input at their last tokens, the layers above not run."""
        found: list[Tensor] = []
        for start in range(0, len(contexts), KEYS_AT_ONCE):
            ids, last = _padded(contexts[start : start + KEYS_AT_ONCE], self.device)
            with self.hooks.stopping(self.site, last) as captured:
                self.model(**_whole(ids))
            found.append(captured[self.site])
        return torch.cat(found)

    @property
    def _head(self) -> Any:
        return self.model.get_output_embeddings()  # type: ignore[operator]

    @property
    def vocabulary(self) -> int:
        return int(self._head.out_features)

    @property
    def width(self) -> int:
        """Of the state that the output embeddings read."""
        return int(self._head.in_features)

    @torch.no_grad()
    def heads(self, contexts: Sequence[Sequence[int]], at_once: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Prompts (ids) -> at their last tokens, some at a time, the state that the output embeddings read (N, D) and
        the logits (N, V). What neighbours share at their start is computed once, unless `at_once` says how many go
        together; of prompts in the order of `alike_first` that is most, and little is padding."""
        start = end = 0
        prefix = Prefix()
        while start < len(contexts):
            if start >= end:
                shared, alike = ((), len(contexts)) if at_once else shared_start(contexts[start:])
                prefix, end = self._prefix(shared), start + alike
            count = at_once or self._fitting_together(contexts[start:end], len(prefix))
            ids, last = _padded([each[len(prefix) :] for each in contexts[start : start + count]], self.device)
            start += count
            seen: list[Tensor] = []
            with self._head_at(last[:, None], seen):
                logits: Tensor = self.model(**self._after(prefix, ids)).logits
            yield seen[0][:, 0], logits[:, 0].to(self.device)

    @torch.no_grad()
    def _prefix(self, ids: Sequence[int]) -> Prefix:
        if not ids:
            return Prefix()
        cache = DynamicCache()
        row = torch.tensor([ids], device=self.device)
        self.model(**{**_whole(row), "use_cache": True}, **cache_argument(cache), logits_to_keep=1)
        layers: list[Any] = cache.layers  # every layer of a decoder LM attends
        return Prefix(tuple(ids), tuple((layer.keys, layer.values) for layer in layers))

    @staticmethod
    def _after(prefix: Prefix, ids: Tensor) -> dict[str, Any]:
        """What the model takes to compute (B, T) ids that follow a prefix."""
        if not prefix:
            return _whole(ids)
        passing = prefix.passing(len(ids), ids.shape[1], ids.device)
        return {"input_ids": ids, **passing, **cache_argument(Past(prefix.past)), "use_cache": True}

    @torch.no_grad()
    def inputs(self, ids: Tensor) -> Tensor:
        """(B, T) ids, right-padded -> (B, T, D_in) fp32: the site's input at every position."""
        with self.hooks.reading(self.site, len(ids)) as found:
            self.model(**_whole(ids))
        return found[self.site]

    @torch.no_grad()
    def outputs(self, ids: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, D_out) fp32: the site's output at every position."""
        found: list[Tensor] = []

        def read(_h_in: Tensor, h_out: Tensor) -> Tensor:
            found.append(h_out.float())
            raise StopForward

        with self.hooks.applying(len(ids), {self.site: (read,)}), suppress(StopForward):
            self.model(**_whole(ids))
        return found[0]

    def inputs_of(self, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Prompts (ids), KEYS_AT_ONCE at most -> each one's (T, D_in)."""
        inputs = self.inputs(_padded(prompts, self.device)[0])
        return [inputs[row, : len(prompt)] for row, prompt in enumerate(prompts)]

    @torch.no_grad()
    def base_logits(self, ids: Tensor, at: Tensor) -> Tensor:
        """(B, T) ids, (B, J) positions -> (B, J, V) in fp32: the model without any edit."""
        with self._head_at(at):
            logits: Tensor = self.model(**_whole(ids)).logits
        return logits.to(self.device).float()

    @contextmanager
    def _head_at(self, at: Tensor, seen: list[Tensor] | None = None) -> Iterator[None]:
        """The output embeddings see only positions `at` (B, J) of each row: they are most of a small model's work.
        `seen` gets what they see."""

        def gather(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            where = at.to(args[0].device)
            states = args[0].gather(1, where[..., None].expand(-1, -1, args[0].shape[-1]))
            if seen is not None:
                seen.append(states.to(self.device))
            return (states, *args[1:])

        handle = self._head.register_forward_pre_hook(gather)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def run(self, ids: Tensor) -> None:
        """A pass for what its hooks see."""
        self.model(**_whole(ids))

    @torch.no_grad()
    def hidden_below(self, ids: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, D): what enters the site's layer, computed once a fit."""
        return self._hidden(_whole(ids))

    def _hidden(self, passing: Mapping[str, Any]) -> Tensor:
        found: list[Tensor] = []

        def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append((args[0] if args else kwargs["hidden_states"]).to(self.device))
            raise StopForward

        handle = self._layer.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with suppress(StopForward):
                self.model(**passing)
        finally:
            handle.remove()
        return found[0]

    def tails(self, ids: Tensor, position: Tensor) -> Iterator[Tail]:
        """(B, T) ids -> what is run again when only positions (B, J), side by side in each row, are acted on: some
        rows at a time, `joined` makes them one."""
        before = int(position[:, 0].max())
        prompts = [row[: end + 1] for row, end in zip(ids.tolist(), position[:, 0].tolist(), strict=True)]
        lengths = (position.amax(1) + 1).tolist()
        start = end = 0
        prefix = Prefix()
        while start < len(ids):
            if start >= end:
                shared, alike = shared_start(prompts[start:])
                prefix, end = self._prefix(shared), start + alike
            count = self._fitting_together([range(length) for length in lengths[start:end]], len(prefix))
            rows = slice(start, start + count)
            start += count
            yield self._tail(ids[rows, len(prefix) : max(lengths[rows])], position[rows], prefix, before)

    def _fitting_together(self, prompts: Sequence[Sequence[int]], skipped: int = 0) -> int:
        """How many of the first that one micro-step may run, each as long as the longest of them, less what is
        skipped."""
        longest = 0
        for count, prompt in enumerate(prompts):
            longest = max(longest, len(prompt) - skipped)
            if count and count >= self.rows_at_once(longest):
                return count
        return len(prompts)

    def rows_at_once(self, tokens: int) -> int:
        """Prompts of so many tokens that one micro-step may run."""
        most = TOKENS_ON_A_CPU if self.device.type == "cpu" else TOKENS_AT_ONCE
        return max(1, min(KEYS_AT_ONCE, most // tokens))

    @torch.no_grad()
    def _tail(self, ids: Tensor, position: Tensor, prefix: Prefix, before: int) -> Tail:
        """Of ids (B, T) after a prefix. The layers below the site see them all, those above what stands before the
        first position of a row."""
        hidden = self._hidden(self._after(prefix, ids))
        above = prefix.past[self.site.layer :] or [None] * (self._depth - self.site.layer)
        cache = Past([*[None] * self.site.layer, *above])
        count = max(1, min(before - len(prefix), ids.shape[1]))
        self._states(hidden[:, :count], cache, **prefix.passing(len(ids), count, self.device))
        own = (position - len(prefix)).clamp(min=0)  # pads stand at 0
        entering = hidden.gather(1, own[..., None].expand(-1, -1, hidden.shape[-1]))
        return Tail(entering, position, cache.cut(before, room=position.shape[1] + 1))

    def tail_states(self, tail: Tail, rows: Tensor, columns: Tensor, acts: Mapping[Site, Act]) -> Tensor:
        """Of rows (N,) some columns (N, C) of the tail's positions, ascending, J for pads -> (N, C, D): what the output
        embeddings would read. Sites see these alone. The other columns stand as the last pass over each left them."""
        hidden, position = tail.at(rows, columns)
        cache = tail.cache(rows, columns)
        with self.hooks.applying(len(rows), {site: (act,) for site, act in acts.items()}):
            mask = tail.mask(rows, columns)
            states = self._states(hidden, cache, attention_mask=mask, position_ids=position)
        tail.keep(rows, cache)
        return states

    def _states(self, hidden: Tensor, cache: Past, **passing: Tensor) -> Tensor:
        """The layers from the site's on, of what enters them (B, T, D) -> what the output embeddings would read."""
        found: list[Tensor] = []

        def stop(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            found.append(args[0].to(self.device))
            raise StopForward

        handle = self._head.register_forward_pre_hook(stop)
        try:
            with self._entering(hidden), suppress(StopForward):
                ids = torch.zeros(*hidden.shape[:2], dtype=torch.long, device=self.device)
                self._view(input_ids=ids, **passing, **cache_argument(cache), use_cache=True)
        finally:
            handle.remove()
        return found[0]

    @contextmanager
    def _entering(self, hidden: Tensor) -> Iterator[None]:
        """The second view begins with what the layers below the site gave."""

        def bring(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        handle = self._layer.register_forward_pre_hook(bring, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def telling(self, states: Tensor, target: Tensor) -> Telling:
        """States (N, D) that the output embeddings read, and the token (N,) that each is to give."""
        return telling(self._head, states, target, self.device)

    def logits(self, ids: Tensor, hidden: Tensor, acts: Mapping[Site, Act], at: Tensor) -> Tensor:
        """(B, T) ids, (B, T, D) hidden, what is done at which site, (B, J) positions -> (B, J, V) in fp32."""
        applying = self.hooks.applying(len(ids), {site: (act,) for site, act in acts.items()})
        with applying, self._head_at(at), self._entering(hidden):
            logits: Tensor = self._view(**_whole(ids)).logits
        return logits.to(self.device).float()


def adding(delta: Tensor) -> Act:
    """Adds (B, T, D_out) to a site's output, gradients included."""
    return lambda _h_in, h_out: h_out + delta.to(h_out.dtype)


def placing(value: Tensor, where: Tensor) -> Act:
    """Puts (B, D_out) in place of a site's output `where` (B, T), gradients included."""
    return lambda _h_in, h_out: torch.where(where[..., None], value[:, None].to(h_out.dtype), h_out)


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts (ids) -> right-padded (N, T), and where each ends (N,)."""
    ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    return ids.to(device), torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)


def _whole(ids: Tensor) -> dict[str, Any]:
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
