"""A second view of the frozen model for fits: the layers below a site run once, those above at every step."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from app.compat import cache_argument
from app.editors.base import FitProgress, Site
from app.editors.fitting.hooks import Act, SiteHooks, StopForward
from app.editors.fitting.partial_model import Skip, with_layers
from app.editors.fitting.sites import Architecture, layers_of, widths_of
from app.editors.fitting.suffix import Prefix, Suffix, SuffixCache, shared_start
from app.editors.fitting.token_odds import TokenOdds, token_odds

BaseStates = Callable[[Sequence[Sequence[int]]], Sequence[Tensor]]
"""The states that enter the site's layer, by the base model: token ids of N prompts -> N times (T, D)."""
MAX_PROMPTS_PER_PASS = 64
"""The greatest number of prompts in one forward pass."""
MAX_TOKENS_PER_PASS, MAX_CPU_TOKENS_PER_PASS = 8192, 96
"""The greatest number of their tokens in all. Answers in progress wait for a micro-step of a fit, and on a CPU its time
grows with its tokens."""


def tokens_per_pass(device: torch.device) -> int:
    """Return the greatest number of tokens in one forward pass of a fit on a device."""
    return MAX_CPU_TOKENS_PER_PASS if device.type == "cpu" else MAX_TOKENS_PER_PASS


class FitView:
    """A second view of the frozen parameters, in which the layers below a site are not run again.

    `site` is the lowest site at which a fit acts. Those in `sites`, above it, may act too. The module tree is copied
    down to the list of layers and the parameters are shared, so that the serving model is not touched.
    """

    def __init__(
        self,
        model: nn.Module,
        architecture: Architecture,
        site: Site,
        hooks: SiteHooks,
        sites: Sequence[Site] = (),
        base_states: BaseStates | None = None,
    ) -> None:
        """`base_states`, if given, takes the place of the layers below the site in `suffixes`, the only method that a
        model without these layers has."""
        self.site, self.hooks, self._base_states = site, hooks, base_states
        self.model = model
        self._layer, self._depth = layers_of(model, architecture)[site.layer], len(layers_of(model, architecture))
        for each in (site, *sites):
            hooks.attach(each)
        self.device = next(model.parameters()).device
        self.widths = widths_of(model.get_submodule(site.module))
        """The widths of the site, (D_in, D_out)."""
        self._view = with_layers(
            model,
            architecture.layers,
            [*(Skip() for _ in range(site.layer)), *layers_of(model, architecture)[site.layer :]],
        )

    @torch.no_grad()
    def last_inputs(self, contexts: Sequence[Sequence[int]]) -> Tensor:
        """Return the site's input at the last token of N prompts (ids), (N, D_in) fp32. The layers above do not run."""
        rows: list[Tensor] = []
        for start in range(0, len(contexts), MAX_PROMPTS_PER_PASS):
            ids, last = _padded(contexts[start : start + MAX_PROMPTS_PER_PASS], self.device)
            with self.hooks.stopping(self.site, last) as captured:
                self.model(**_model_inputs(ids))
            rows.append(captured[self.site])
        return torch.cat(rows)

    @property
    def _head(self) -> Any:
        return self.model.get_output_embeddings()  # type: ignore[operator]

    @torch.no_grad()
    def _prefix(self, ids: Sequence[int], below: Tensor | None) -> Prefix:
        """Compute the keys and values of tokens that prompts share at their start, of the layers above the site alone
        if the states `below` (1, T, D) that enter its layer are given."""
        if not ids:
            return Prefix()
        if below is not None:
            upper = SuffixCache([None] * self._depth)
            self._states(below, upper, **Prefix().inputs_after(1, len(ids), self.device))
            return Prefix(tuple(ids), tuple(upper.computed))
        cache = DynamicCache()
        row = torch.tensor([ids], device=self.device)
        self.model(**{**_model_inputs(row), "use_cache": True}, **cache_argument(cache), logits_to_keep=1)
        layers: list[Any] = cache.layers  # Every layer of a decoder LM has attention.
        return Prefix(tuple(ids), tuple((layer.keys, layer.values) for layer in layers))

    @staticmethod
    def _after(prefix: Prefix, ids: Tensor) -> dict[str, Any]:
        """Return the model's arguments for ids (B, T) that follow a prefix."""
        if not prefix:
            return _model_inputs(ids)
        inputs = prefix.inputs_after(len(ids), ids.shape[1], ids.device)
        return {"input_ids": ids, **inputs, **cache_argument(SuffixCache(prefix.key_values)), "use_cache": True}

    @torch.no_grad()
    def inputs(self, ids: Tensor) -> Tensor:
        """Return the site's input at every position: right-padded ids (B, T) -> (B, T, D_in) fp32."""
        with self.hooks.reading(self.site, len(ids)) as captured:
            self.model(**_model_inputs(ids))
        return captured[self.site]

    @torch.no_grad()
    def outputs(self, ids: Tensor) -> Tensor:
        """Return the site's output at every position: ids (B, T) -> (B, T, D_out) fp32."""
        rows: list[Tensor] = []

        def read(_h_in: Tensor, h_out: Tensor) -> Tensor:
            rows.append(h_out.float())
            raise StopForward

        with self.hooks.applying(len(ids), {self.site: (read,)}), suppress(StopForward):
            self.model(**_model_inputs(ids))
        return rows[0]

    def inputs_of(self, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the site's input (T, D_in) fp32 for each of at most MAX_PROMPTS_PER_PASS prompts (ids)."""
        inputs = self.inputs(_padded(prompts, self.device)[0])
        return [inputs[row, : len(prompt)] for row, prompt in enumerate(prompts)]

    @torch.no_grad()
    def base_logits(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Return the logits of the model without any edit: ids (B, T), positions (B, J) -> (B, J, V) fp32."""
        with self._head_at(positions):
            logits: Tensor = self.model(**_model_inputs(ids)).logits
        return logits.to(self.device).float()

    @contextmanager
    def _head_at(self, positions: Tensor) -> Iterator[None]:
        """Let the output embeddings compute only some positions (B, J), because they are most of a small model's
        work."""

        def gather(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            index = positions.to(args[0].device)
            states = args[0].gather(1, index[..., None].expand(-1, -1, args[0].shape[-1]))
            return (states, *args[1:])

        handle = self._head.register_forward_pre_hook(gather)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def run(self, ids: Tensor) -> None:
        """Run a pass for the sake of its hooks."""
        self.model(**_model_inputs(ids))

    @torch.no_grad()
    def hidden_below(self, ids: Tensor) -> Tensor:
        """Return the input of the site's layer: ids (B, T) -> (B, T, D). It is computed once a fit."""
        return self._hidden(_model_inputs(ids))

    @torch.no_grad()
    def _hidden(self, model_inputs: Mapping[str, Any]) -> Tensor:
        """Run the layers below the site and return the input of its layer (B, T, D)."""
        rows: list[Tensor] = []

        def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rows.append((args[0] if args else kwargs["hidden_states"]).to(self.device))
            raise StopForward

        handle = self._layer.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with suppress(StopForward):
                self.model(**model_inputs)
        finally:
            handle.remove()
        return rows[0]

    def suffixes(self, ids: Tensor, position: Tensor) -> Iterator[Suffix]:
        """Return what a fit runs again if edits act only at positions (B, J), adjacent in each row of ids (B, T).

        The rows come some at a time, and `Suffix.joined` makes them one.
        """
        before = int(position[:, 0].max())
        prompts = [row[: end + 1] for row, end in zip(ids.tolist(), position[:, 0].tolist(), strict=True)]
        lengths = (position.amax(1) + 1).tolist()
        below = None if self._base_states is None else self._given_below(ids, lengths, self._base_states)
        start = end = 0
        prefix = Prefix()
        while start < len(ids):
            if start >= end:
                shared, count = shared_start(prompts[start:])
                prefix = self._prefix(shared, None if below is None else below[start : start + 1, : len(shared)])
                end = start + count
            count = self._prompts_at_once(lengths[start:end], len(prefix))
            rows = slice(start, start + count)
            start += count
            columns = slice(len(prefix), max(lengths[rows]))
            own = self._hidden(self._after(prefix, ids[rows, columns])) if below is None else below[rows, columns]
            yield self._suffix(own, position[rows], prefix, before)

    def _given_below(self, ids: Tensor, lengths: Sequence[int], base_states: BaseStates) -> Tensor:
        """Return the states (B, T, D) that enter the site's layer, from elsewhere, for ids (B, T) of these lengths."""
        given = base_states([row[:length] for row, length in zip(ids.tolist(), lengths, strict=True)])
        return pad_sequence([each.to(self.device) for each in given], batch_first=True)

    def _prompts_at_once(self, lengths: Sequence[int], prefix_length: int) -> int:
        """Return how many of the first prompts one micro-step may run, given their lengths in tokens. Each counts as
        much as the longest of them, without the prefix."""
        longest = 0
        for count, length in enumerate(lengths):
            longest = max(longest, length - prefix_length)
            if count and count >= self.rows_at_once(longest):
                return count
        return len(lengths)

    def rows_at_once(self, tokens: int) -> int:
        """Return how many prompts of this length in tokens one micro-step may run."""
        return max(1, min(MAX_PROMPTS_PER_PASS, tokens_per_pass(self.device) // tokens))

    def by_passes(
        self, shape: Sequence[int], compute: Callable[[slice], Tensor], progress: FitProgress
    ) -> Generator[FitProgress, None, Tensor]:
        """Return what `compute` gives for slices of rows, as one tensor. The rows and their tokens have the shape
        (R, T), and each slice is a micro-step."""
        outputs: list[Tensor] = []
        rows, tokens = shape
        for start in range(0, rows, at_once := self.rows_at_once(tokens)):
            outputs.append(compute(slice(start, start + at_once)))
            yield progress
        return torch.cat(outputs)

    @torch.no_grad()
    def _suffix(self, hidden: Tensor, position: Tensor, prefix: Prefix, before: int) -> Suffix:
        """Compute the suffix of states (B, T, D) that enter the site's layer after a prefix. The layers above it run
        only over the positions before the first one that an edit acts at."""
        above = prefix.key_values[self.site.layer :] or [None] * (self._depth - self.site.layer)
        cache = SuffixCache([*[None] * self.site.layer, *above])
        count = max(1, min(before - len(prefix), hidden.shape[1]))
        self._states(hidden[:, :count], cache, **prefix.inputs_after(len(hidden), count, self.device))
        own = (position - len(prefix)).clamp(min=0)  # Pads are at position 0.
        entering = hidden.gather(1, own[..., None].expand(-1, -1, hidden.shape[-1]))
        return Suffix(entering, position, cache.first_positions(before, room=position.shape[1] + 1))

    def suffix_states(self, suffix: Suffix, rows: Tensor, columns: Tensor, acts: Mapping[Site, Act]) -> Tensor:
        """Return the inputs of the output embeddings (N, C, D) for some columns (N, C) of rows (N,).

        A column is an index into the suffix's J positions; columns ascend, and J marks a pad. Sites see these columns
        alone. The others stay as the last pass over each left them.
        """
        hidden, position = suffix.entering(rows, columns)
        cache = suffix.cache(rows, columns)
        with self.hooks.applying(len(rows), {site: (act,) for site, act in acts.items()}):
            mask = suffix.mask(rows, columns)
            states = self._states(hidden, cache, attention_mask=mask, position_ids=position)
        suffix.update(rows, cache)
        return states

    def _states(self, hidden: Tensor, cache: SuffixCache, **model_inputs: Tensor) -> Tensor:
        """Run the layers from the site's on: their input (B, T, D) -> the input of the output embeddings (B, T, D)."""
        rows: list[Tensor] = []

        def stop(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            rows.append(args[0].to(self.device))
            raise StopForward

        handle = self._head.register_forward_pre_hook(stop)
        try:
            with self._entering(hidden), suppress(StopForward):
                ids = torch.zeros(*hidden.shape[:2], dtype=torch.long, device=self.device)
                self._view(input_ids=ids, **model_inputs, **cache_argument(cache), use_cache=True)
        finally:
            handle.remove()
        return rows[0]

    @contextmanager
    def _entering(self, hidden: Tensor) -> Iterator[None]:
        """Let the second view begin with `hidden` (B, T, D), the output of the layers below the site."""

        def replace_input(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[Any, dict[str, Any]]:
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        handle = self._layer.register_forward_pre_hook(replace_input, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def token_odds(self, states: Tensor, target: Tensor) -> TokenOdds:
        """Return the odds of the tokens `target` (N,), given the inputs of the output embeddings (N, D)."""
        return token_odds(self._head, states, target, self.device)

    def logits(self, ids: Tensor, hidden: Tensor, acts: Mapping[Site, Act], positions: Tensor) -> Tensor:
        """Return the logits (B, J, V) fp32 at positions (B, J) under `acts`, from `hidden_below` (B, T, D) of the ids
        (B, T)."""
        applying = self.hooks.applying(len(ids), {site: (act,) for site, act in acts.items()})
        with applying, self._head_at(positions), self._entering(hidden):
            logits: Tensor = self._view(**_model_inputs(ids)).logits
        return logits.to(self.device).float()


def adding(delta: Tensor) -> Act:
    """Return an action that adds `delta` (B, T, D_out) to a site's output. Gradients flow through it."""
    return lambda _h_in, h_out: h_out + delta.to(h_out.dtype)


def placing(value: Tensor, replaced: Tensor) -> Act:
    """Return an action that puts `value` (B, D_out) in place of a site's output at the positions of the mask `replaced`
    (B, T). Gradients flow through it."""
    return lambda _h_in, h_out: torch.where(replaced[..., None], value[:, None].to(h_out.dtype), h_out)


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return N prompts (ids) right-padded as (N, T), and the position of each one's last token, (N,)."""
    ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    return ids.to(device), torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)


def _model_inputs(ids: Tensor) -> dict[str, Any]:
    """Return the model's arguments for a pass over whole prompts, ids (B, T), without a cache."""
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
