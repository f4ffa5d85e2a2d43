"""A second view of the frozen model, for fits: layers below a site run once, those above as often as a fit asks."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from app.editors.base import Site
from app.editors.hooks import Act, SiteHooks, StopForward
from app.editors.sites import Architecture, layers_of

KEYS_AT_ONCE = 64
"""Prompts that share a forward pass."""


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
            prompts = contexts[start : start + KEYS_AT_ONCE]
            ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long)
            for row, prompt in enumerate(prompts):
                ids[row, : len(prompt)] = torch.tensor(prompt)
            last = torch.tensor([len(prompt) - 1 for prompt in prompts]).to(self.device)
            with self.hooks.stopping(self.site, last) as captured:
                self.model(**_whole(ids.to(self.device)))
            found.append(captured[self.site])
        return torch.cat(found)

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
        ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        inputs = self.inputs(ids.to(self.device))
        return [inputs[row, : len(prompt)] for row, prompt in enumerate(prompts)]

    @torch.no_grad()
    def base_logits(self, ids: Tensor, keep: Tensor) -> Tensor:
        """(B, T) ids, (P,) positions -> (B, P, V) in fp32: the model without any edit."""
        logits: Tensor = self.model(**_whole(ids), logits_to_keep=keep).logits
        return logits.float()

    @torch.no_grad()
    def run(self, ids: Tensor) -> None:
        """A pass for what its hooks see."""
        self.model(**_whole(ids))

    @torch.no_grad()
    def hidden_below(self, ids: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, D): what enters the site's layer, computed once a fit."""
        found: list[Tensor] = []

        def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append(args[0] if args else kwargs["hidden_states"])
            raise StopForward

        handle = self._layer.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with suppress(StopForward):
                self.model(**_whole(ids))
        finally:
            handle.remove()
        return found[0]

    def logits(self, ids: Tensor, hidden: Tensor, acts: Mapping[Site, Act], keep: Tensor) -> Tensor:
        """(B, T) ids, (B, T, D) hidden, what is done at which site, (P,) positions -> (B, P, V) in fp32."""
        self._inject.hidden = hidden
        try:
            with self.hooks.applying(len(ids), {site: (act,) for site, act in acts.items()}):
                logits: Tensor = self._view(**_whole(ids), logits_to_keep=keep).logits
        finally:
            self._inject.hidden = None
        return logits.float()


def adding(delta: Tensor) -> Act:
    """Adds (B, T, D_out) to a site's output, gradients included."""
    return lambda _h_in, h_out: h_out + delta.to(h_out.dtype)


def placing(value: Tensor, where: Tensor) -> Act:
    """Puts (B, D_out) in place of a site's output `where` (B, T), gradients included."""
    return lambda _h_in, h_out: torch.where(where[..., None], value[:, None].to(h_out.dtype), h_out)


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
    return clone
