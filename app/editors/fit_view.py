"""A second view of the frozen model, for fits: layers below a site run once, those above as often as a fit asks."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from app.compat import cache_argument
from app.editors.base import Site
from app.editors.hooks import Act, SiteHooks, StopForward
from app.editors.sites import Architecture, layers_of
from app.editors.tail import Past, Tail

KEYS_AT_ONCE = 64
"""Prompts that share a forward pass, at most."""
TOKENS_AT_ONCE, TOKENS_ON_A_CPU = 8192, 96
"""Theirs, together: answers under way wait for a micro-step of a fit, which on a CPU takes as long as it has tokens."""


class _Skip(nn.Module):
    """Stands where a layer below the site was: hands the hidden states on."""

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_states


class _Inject(nn.Module):
    """Stands in the first layer's place: brings in the hidden states that the layers below the site gave."""

    hidden: Tensor | None = None

    def forward(self, _hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        assert self.hidden is not None
        return self.hidden


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
        self._layer = layers_of(model, architecture)[site.layer]
        self._inject = _Inject()
        below: list[nn.Module] = [self._inject, *(_Skip() for _ in range(site.layer - 1))] if site.layer else []
        for each in (site, *sites):
            hooks.attach(each)
        self.device = next(model.parameters()).device
        self._widths = self._measure()
        self._view = _with_layers(model, architecture.layers, [*below, *layers_of(model, architecture)[site.layer :]])

    @torch.no_grad()
    def _measure(self) -> tuple[int, int]:
        sizes: list[tuple[int, int]] = []

        def look(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            sizes.append((args[0].shape[-1], output.shape[-1]))

        handle = self.model.get_submodule(self.site.module).register_forward_hook(look)
        try:
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
    def vocabulary(self) -> int:
        return int(self.model.get_output_embeddings().weight.shape[0])  # type: ignore[operator]

    @property
    def width(self) -> int:
        """Of the state that the output embeddings read."""
        return int(self.model.get_output_embeddings().weight.shape[1])  # type: ignore[operator]

    @torch.no_grad()
    def heads(self, contexts: Sequence[Sequence[int]], at_once: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Prompts (ids) -> at their last tokens, some at a time, the state that the output embeddings read (N, D) and
        the logits (N, V). Of prompts in the order of their lengths less is padding."""
        start = 0
        while start < len(contexts):
            count = at_once or self._fitting_together(contexts[start:])
            ids, last = _padded(contexts[start : start + count], self.device)
            start += count
            seen: list[Tensor] = []
            with self._head_at(last[:, None], seen):
                logits: Tensor = self.model(**_whole(ids)).logits
            yield seen[0][:, 0], logits[:, 0].to(self.device)

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

        handle = self.model.get_output_embeddings().register_forward_pre_hook(gather)  # type: ignore[operator]
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
        found: list[Tensor] = []

        def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append((args[0] if args else kwargs["hidden_states"]).to(self.device))
            raise StopForward

        handle = self._layer.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with suppress(StopForward):
                self.model(**_whole(ids))
        finally:
            handle.remove()
        return found[0]

    def tails(self, ids: Tensor, position: Tensor) -> Iterator[Tail]:
        """(B, T) ids -> what is run again when only positions (B, J), side by side in each row, are acted on: some
        rows at a time, `joined` makes them one."""
        before, rows = int(position[:, 0].max()), self._rows_at_once(ids.shape[1])
        for first in range(0, len(ids), rows):
            yield self._tail(ids[first : first + rows], position[first : first + rows], before)

    def _fitting_together(self, prompts: Sequence[Sequence[int]]) -> int:
        """How many of the first that one micro-step may run, each as long as the longest of them."""
        longest = 0
        for count, prompt in enumerate(prompts):
            longest = max(longest, len(prompt))
            if count and count >= self._rows_at_once(longest):
                return count
        return len(prompts)

    def _rows_at_once(self, tokens: int) -> int:
        """Prompts of so many tokens that one micro-step may run."""
        most = TOKENS_ON_A_CPU if self.device.type == "cpu" else TOKENS_AT_ONCE
        return max(1, min(KEYS_AT_ONCE, most // tokens))

    @torch.no_grad()
    def _tail(self, ids: Tensor, position: Tensor, before: int) -> Tail:
        cache = DynamicCache()
        entering: list[Tensor] = []

        def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            entering.append((args[0] if args else kwargs["hidden_states"]).to(self.device))

        handle = self._layer.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            self.model(**{**_whole(ids), "use_cache": True}, **cache_argument(cache), logits_to_keep=1)
        finally:
            handle.remove()
        layers: list[Any] = cache.layers  # every layer of a decoder LM attends
        past = tuple(
            (layer.keys[:, :, :before], layer.values[:, :, :before]) if at >= self.site.layer else None
            for at, layer in enumerate(layers)
        )
        hidden = entering[0].gather(1, position[..., None].expand(-1, -1, entering[0].shape[-1]))
        return Tail(hidden, position, past)

    def tail_logits(self, tail: Tail, acts: Mapping[Site, Act]) -> Tensor:
        """Sites see (B, J, ...), the tail's positions alone -> (B, J, V) in fp32. As `logits`, for less."""
        self._inject.hidden = tail.hidden
        rows, count = tail.position.shape
        try:
            with self.hooks.applying(rows, {site: (act,) for site, act in acts.items()}):
                logits: Tensor = self._view(
                    input_ids=torch.zeros(rows, count, dtype=torch.long, device=self.device),
                    attention_mask=tail.mask,
                    position_ids=tail.position,
                    **cache_argument(Past(tail.past)),
                    use_cache=True,
                ).logits
        finally:
            self._inject.hidden = None
        return logits.to(self.device).float()

    def logits(self, ids: Tensor, hidden: Tensor, acts: Mapping[Site, Act], at: Tensor) -> Tensor:
        """(B, T) ids, (B, T, D) hidden, what is done at which site, (B, J) positions -> (B, J, V) in fp32."""
        self._inject.hidden = hidden
        try:
            with self.hooks.applying(len(ids), {site: (act,) for site, act in acts.items()}), self._head_at(at):
                logits: Tensor = self._view(**_whole(ids)).logits
        finally:
            self._inject.hidden = None
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


def _with_layers(model: nn.Module, path: str, layers: Sequence[nn.Module]) -> nn.Module:
    """A copy of the modules on the path, with other layers at its end; everything else is shared."""
    root = _shallow(model)
    *parents, name = path.split(".")
    at = root
    for parent in parents:
        at._modules[parent] = child = _shallow(at.get_submodule(parent))
        at = child
    at._modules[name] = nn.ModuleList(layers)
    return root


def _shallow(module: nn.Module) -> nn.Module:
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    if "_hf_hook" in clone.__dict__:  # of a model on several devices; it would call the original with all its layers
        for name in ("_hf_hook", "_old_forward", "forward"):
            clone.__dict__.pop(name, None)
    return clone
