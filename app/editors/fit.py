"""The one fitting loop: residual deltas at a site, one a generated position, learned through the layers above it.

Knows the frozen model and a site; nothing of scopes, codebooks or requests under way. A vector at the prompt's last
token alone cannot carry a long answer, and without end-of-text as the last target free generation runs on, so an edit's
value is a matrix: row j is added where target token j is predicted, the last row where end-of-text is.
"""

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.editors.base import FitRequest, Fitted, Progress, Site
from app.editors.hooks import Act, SiteHooks, StopForward
from app.editors.sites import Architecture, layers_of

_KEYS_AT_ONCE = 64
AT_ONCE = 32
"""Edits whose contexts share a forward pass of a fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitParameters:
    """`learning_rate` and `norm_cap` are in units of the residual stream's RMS and norm at the site."""

    learning_rate: float = 0.15
    max_steps: int = 200
    """Most edits stop after some ten; what the model has hardly ever seen (27 bytes of Japanese) takes all of them."""
    probability: float = 0.95
    """Every target token must reach it, greedily right, in every context, before a row stops."""
    norm_cap: float = 6.0
    weight_decay: float = 1e-3


def by_parts(
    requests: Sequence[FitRequest],
    fit_some: Callable[[Sequence[FitRequest]], Generator[Progress, None, list[Fitted]]],
) -> Generator[Progress, None, list[Fitted]]:
    """Fits AT_ONCE edits at a time, where each is independent of the others: logits of more would not fit memory."""
    fitted: list[Fitted] = []
    for first in range(0, len(requests), AT_ONCE):
        some = yield from fit_some(requests[first : first + AT_ONCE])
        fitted.extend(some)
    return fitted


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
        for start in range(0, len(contexts), _KEYS_AT_ONCE):
            prompts = contexts[start : start + _KEYS_AT_ONCE]
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
        """Prompts (ids) -> each one's (T, D_in), many at a time."""
        found: list[Tensor] = []
        for start in range(0, len(prompts), _KEYS_AT_ONCE):
            some = prompts[start : start + _KEYS_AT_ONCE]
            ids = torch.zeros(len(some), max(map(len, some)), dtype=torch.long)
            for row, prompt in enumerate(some):
                ids[row, : len(prompt)] = torch.tensor(prompt)
            inputs = self.inputs(ids.to(self.device))
            found.extend(inputs[row, : len(prompt)] for row, prompt in enumerate(some))
        return found

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One edit's learned value (J, D) fp32, J target tokens, and how it went."""

    value: Tensor
    steps: int
    converged: bool
    probability: float
    """The least probability of a target token, over all contexts."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """Contexts of all edits as right-padded rows; pads come after all that is read, so the causal mask suffices."""

    ids: Tensor  # (R, T)
    owner: Tensor  # (R,) which edit a row belongs to
    position: Tensor  # (R, J) where target token j is predicted
    target: Tensor  # (R, J)
    real: Tensor  # (R, J) bool

    def only(self, rows: Tensor) -> "Contexts":
        """Some of the rows, (R,) bool; owners are called as before."""
        return Contexts(*(each[rows] for each in (self.ids, self.owner, self.position, self.target, self.real)))


def collate(contexts: Sequence[Sequence[Sequence[int]]], targets: Sequence[Sequence[int]], device: Any) -> Contexts:
    rows = [(edit, prompt, targets[edit]) for edit, prompts in enumerate(contexts) for prompt in prompts]
    length = max(len(prompt) + len(target) - 1 for _, prompt, target in rows)
    width = max(len(target) for _, _, target in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    position = torch.zeros(len(rows), width, dtype=torch.long)
    target_ids = torch.zeros(len(rows), width, dtype=torch.long)
    real = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (_, prompt, target) in enumerate(rows):
        fed = [*prompt, *target[:-1]]
        ids[row, : len(fed)] = torch.tensor(fed)
        position[row, : len(target)] = torch.arange(len(prompt) - 1, len(fed))
        target_ids[row, : len(target)] = torch.tensor(target)
        real[row, : len(target)] = True
    owner = torch.tensor([edit for edit, _, _ in rows])
    return Contexts(*(t.to(device) for t in (ids, owner, position, target_ids, real)))


def fit_deltas(
    view: FitView,
    contexts: Sequence[Sequence[Sequence[int]]],
    targets: Sequence[Sequence[int]],
    parameters: FitParameters,
    mix: Tensor | None = None,
) -> Generator[Progress, None, list[Fit]]:
    """Learn one value a target: `contexts[e]` are prompts (ids) that shall be continued by `targets[e]` (ids).

    `mix` (R, J, J), if given, says how much of each row of the value arrives at each of a context's positions; without
    it row j arrives at position j.
    Values are independent parameters and Adam works by element, so fitting a batch is fitting each alone; a row stops
    by itself when its answer is right with every token at least at `probability`.
    """
    device = view.device
    batch = collate(contexts, targets, device)
    hidden = view.hidden_below(batch.ids)
    prompt_end = hidden[torch.arange(len(batch.ids), device=device), batch.position[:, 0]].float()
    scale = prompt_end.pow(2).mean().sqrt().item()
    cap = parameters.norm_cap * prompt_end.norm(dim=-1).mean().item()
    edits, width = len(targets), batch.position.shape[1]
    value = torch.zeros(edits, width, hidden.shape[-1], device=device, requires_grad=True)
    optimiser = torch.optim.Adam([value], lr=parameters.learning_rate * scale)
    first = int(batch.position[:, 0].min())
    keep = torch.arange(first, batch.ids.shape[1], device=device)
    counts = torch.bincount(batch.owner, minlength=edits)  # contexts of each edit
    done: dict[int, Fit] = {}
    yield Progress(step=0, steps=parameters.max_steps, loss=float("nan"))
    for step in range(1, parameters.max_steps + 1):
        with torch.enable_grad():
            delta = _spread(value, batch, hidden, mix)
            logits = view.logits(batch.ids, hidden, {view.site: adding(delta)}, keep)
            at = (batch.position - first).clamp(min=0)
            picked = logits.gather(1, at[..., None].expand(-1, -1, logits.shape[-1]))  # (R, J, V)
            nll = F.cross_entropy(picked.flatten(0, 1), batch.target.flatten(), reduction="none").view_as(batch.real)
            nll = nll.masked_fill(~batch.real, 0.0)
            by_row = nll.sum(1) / batch.real.sum(1)
            loss = (by_row / counts[batch.owner]).sum()
            loss = loss + parameters.weight_decay * (value / scale).pow(2).mean(-1).sum()
        right = ((picked.argmax(-1) == batch.target) | ~batch.real).all(1)
        worst = torch.exp(-nll.detach()).masked_fill(~batch.real, 1.0).amin(1)  # (R,)
        for edit in range(edits):
            if edit not in done:
                rows = batch.owner == edit
                least = worst[rows].min().item()
                good = bool(right[rows].all()) and least >= parameters.probability
                if good or step == parameters.max_steps:
                    learned = value.detach()[edit, : len(targets[edit])].clone()
                    done[edit] = Fit(value=learned, steps=step - 1, converged=good, probability=least)
        yield Progress(step=step, steps=parameters.max_steps, loss=loss.item())
        if len(done) == edits:
            break
        going = torch.tensor([edit not in done for edit in range(edits)], device=device)[batch.owner]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            norm = value.norm(dim=-1, keepdim=True)
            value.mul_((cap / norm.clamp(min=1e-12)).clamp(max=1.0))
        if 2 * int(going.sum()) <= len(batch.ids):  # what has stopped is not computed on with what goes on
            batch, hidden = batch.only(going), hidden[going]
            mix = None if mix is None else mix[going]
    return [done[edit] for edit in range(edits)]


def _spread(value: Tensor, batch: Contexts, hidden: Tensor, mix: Tensor | None) -> Tensor:
    """(E, J, D) values -> (R, T, D) deltas: row j of an edit's value at the position that predicts target token j."""
    by_row = value[batch.owner] if mix is None else mix @ value[batch.owner]  # (R, J, D)
    rows = torch.arange(len(batch.ids), device=hidden.device)[:, None].expand_as(batch.position)
    delta = torch.zeros(hidden.shape, device=hidden.device)
    return delta.index_put((rows[batch.real], batch.position[batch.real]), by_row[batch.real])
