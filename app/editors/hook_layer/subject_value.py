"""MEMIT's recipe as CoachHooK publishes it: what shall stand at a subject's last token, and its pairs layer by layer.

Sections 3.2 and 3.3 of arXiv 2403.05330, with earlier edits' hooks in place. Knows no thresholds over time, no scopes.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from app.domain.errors import InvalidRequest
from app.domain.words import locate
from app.editors.base import FitRequest, Progress, Site
from app.editors.fitting.hooks import Act, StopForward
from app.editors.fitting.loop import Contexts, collate
from app.editors.fitting.view import FitView
from app.editors.hook_layer.dual_form import Prior, WeightChange, solve
from app.editors.hook_layer.layer_spread import row_weights

Hooks = tuple[tuple[WeightChange, ...], tuple[float, ...]]
"""Hook layers from the lowest, and their thresholds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueFit:
    """MEMIT's hyperparameters for LLaMA; `norm_cap` in units of the norm of what stood there."""

    steps: int = 25
    learning_rate: float = 0.5
    kl: float = 0.0625
    weight_decay: float = 1e-3
    norm_cap: float = 4.0
    enough: float = 0.05


@dataclass(frozen=True, slots=True)
class SubjectRows:
    """Contexts that mention their subject, the prompt first, with the token at which it ends (R,)."""

    batch: Contexts
    at: Tensor
    prompts: Tensor  # (R,) tokens of each context, without target


def subject_places(requests: Sequence[FitRequest], device: torch.device) -> SubjectRows:
    """Raises InvalidRequest where a prompt does not mention its subject: there is nothing to hook."""
    contexts: list[list[tuple[int, ...]]] = []
    places: list[int] = []
    for request in requests:
        rows: list[tuple[int, ...]] = []
        told = zip(request.contexts, request.context_texts, request.ends, strict=True)
        for at, (context, text, ends) in enumerate(told):
            end = locate(text, request.subject) if request.subject else None
            if end is None and at == 0:
                asked = f"the subject {request.subject!r} does not stand in it" if request.subject else "it names none"
                raise InvalidRequest(
                    f"The editor hook_layer/paper changes what the model knows of a subject, and finds none in the "
                    f"prompt {text!r}: {asked}. Give `subject` as it stands in the prompt, or take another editor."
                )
            if end is not None:
                rows.append(context)
                places.append(next(token for token, token_end in enumerate(ends) if token_end >= end))
        contexts.append(rows)
    batch = collate(contexts, [request.target_ids for request in requests], device)
    prompts = torch.tensor([len(context) for rows in contexts for context in rows], device=device)
    return SubjectRows(batch, torch.tensor(places, device=device), prompts)


class SubjectSweep:
    """`view` is at the lowest hooked layer with all `sites`, `above` at the layer that follows the highest."""

    def __init__(self, view: FitView, above: FitView, sites: Sequence[Site]) -> None:
        self.view, self._above, self.sites = view, above, tuple(sites)

    def values(self, rows: SubjectRows, hooks: Hooks | None, how: ValueFit) -> Generator[Progress, None, Tensor]:
        """(E, D_out): what to add at the highest hooked layer's output, at the subject (section 3.2).

        loss = mean NLL of the target + kl KL(base | edited) at the subject + wd |delta|^2 / |h|^2.
        """
        view, batch, lengths = self.view, rows.batch, self._lengths(rows)
        index = torch.arange(len(batch.ids), device=view.device)
        stood = self.out(batch.ids, self._validated(hooks, lengths))[index, rows.at]  # (R, D)
        edits = int(batch.owner.max()) + 1
        norms = torch.zeros(edits, device=view.device).scatter_reduce(
            0, batch.owner, stood.norm(dim=-1), "mean", include_self=False
        )
        hidden = view.hidden_below(batch.ids)
        delta = torch.zeros(edits, stood.shape[1], device=view.device, requires_grad=True)
        base: Tensor | None = None
        optimiser = torch.optim.Adam([delta], lr=how.learning_rate)
        contexts = torch.bincount(batch.owner, minlength=edits).float()
        done = torch.zeros(edits, dtype=torch.bool, device=view.device)
        for step in range(how.steps + 1):
            going = ~done[batch.owner]  # rows of the other edits need not be computed
            some, at, own = batch.only(going), rows.at[going], torch.arange(int(going.sum()), device=view.device)
            acts = self._validated(hooks, lengths[going])
            with torch.enable_grad():
                top = self.sites[-1]
                placed = torch.zeros((len(own), *hidden.shape[1:]), device=view.device)
                placed = placed.index_put((own, at), delta[some.owner])
                chained = {**acts, top: _after(acts.get(top), placed)}
                logits = view.logits(some.ids, hidden[going], chained, torch.cat([some.position, at[:, None]], 1))
                picked = logits[:, :-1]  # (R, J, V)
                nll = F.cross_entropy(picked.flatten(0, 1), some.target.flatten(), reduction="none")
                nll = nll.view_as(some.real).masked_fill(~some.real, 0.0).sum(1) / some.real.sum(1)
                here = logits[:, -1].log_softmax(-1)
                base = here.detach() if base is None else base
                kl = F.kl_div(here, base[going], log_target=True, reduction="none").sum(-1)
                by_edit = torch.zeros(edits, device=view.device).index_add(0, some.owner, nll + how.kl * kl) / contexts
                by_edit = by_edit + how.weight_decay * delta.pow(2).sum(-1) / norms.pow(2)
                loss = by_edit.masked_fill(done, 0.0).sum()
            yield Progress(step=step, steps=how.steps, loss=by_edit.sum().item())
            done = done | (by_edit.detach() < how.enough)
            if bool(done.all()) or step == how.steps:
                break
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            held = delta.detach().clone()
            optimiser.step()
            with torch.no_grad():
                delta.mul_(
                    (how.norm_cap * norms[:, None] / delta.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
                )
                delta[done] = held[done]
        return delta.detach()

    def pairs(
        self,
        rows: SubjectRows,
        deltas: Tensor,
        before: tuple[Tensor, Tensor, Tensor] | None,
        hooks: Hooks | None,
        priors: Sequence[Prior],
    ) -> Generator[Progress, None, tuple[tuple[Tensor, Tensor, Tensor], tuple[WeightChange, ...]]]:
        """K, P, E (E, M, D) of the batch, and the hook layers with it (section 3.3).

        `before` are the pairs that are live already. Temporary hooks, on for all tokens, stand until their layer's
        turn.
        """
        batch, index = rows.batch, torch.arange(len(rows.batch.ids), device=self.view.device)
        lengths = self._lengths(rows)
        validated = self._validated(hooks, lengths)
        wanted = self.out(batch.ids, validated)[index, rows.at] + deltas[batch.owner]
        acts: dict[Site, Act] = (
            {} if hooks is None else {site: _always(layer) for site, layer in zip(self.sites, hooks[0], strict=True)}
        )
        weights = row_weights(batch.owner)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        layers: list[WeightChange] = []
        for at, (site, prior) in enumerate(zip(self.sites, priors, strict=True)):
            key = weights @ self._inputs(site, batch.ids, rows.at, acts)
            missing = wanted - self.out(batch.ids, acts)[index, rows.at]
            residual = weights @ missing / (len(self.sites) - at)
            if hooks is not None:
                residual = residual + hooks[0][at].change(key)  # the implied target is W_{t-1} k + r
            p = prior.solve(key)
            old = (key[:0], p[:0], residual[:0]) if before is None else tuple(each[:, at] for each in before)
            both = [torch.cat([ours, new]) for ours, new in zip(old, (key, p, residual), strict=True)]
            layers.append(solve(*both))
            alpha = 2.2 if hooks is None else hooks[1][at]
            acts[site] = _where_it_stands_out(layers[-1], alpha, lengths)
            found.append((key, p, residual))
            yield Progress(step=at + 1, steps=len(self.sites), loss=missing.norm(dim=-1).mean().item())
        keys, solved, residuals = (torch.stack(each, 1) for each in zip(*found, strict=True))
        return (keys, solved, residuals), tuple(layers)

    @torch.no_grad()
    def changes(self, prompt: Sequence[int], layers: Sequence[WeightChange], alphas: Sequence[float]) -> list[Tensor]:
        """By layer, how much each token of a prompt would be changed, hooks of the layers below validated: (T,)."""
        ids = torch.tensor([list(prompt)], device=self.view.device)
        lengths = torch.tensor([len(prompt)], device=self.view.device)
        acts: dict[Site, Act] = {}
        found: list[Tensor] = []
        for site, layer, alpha in zip(self.sites, layers, alphas, strict=True):
            rows = torch.arange(len(prompt), device=self.view.device)[None]
            x = self._inputs(site, ids.expand(1, -1), rows, acts)
            found.append(layer.change(x[0]).norm(dim=-1))
            acts[site] = _where_it_stands_out(layer, alpha, lengths)
        return found

    def _lengths(self, rows: SubjectRows) -> Tensor:
        """(R,) tokens fed of each row: prompt, and target without its last."""
        return rows.prompts + rows.batch.real.sum(1) - 1

    def _validated(self, hooks: Hooks | None, lengths: Tensor) -> dict[Site, Act]:
        if hooks is None:
            return {}
        return {
            site: _where_it_stands_out(layer, alpha, lengths)
            for site, layer, alpha in zip(self.sites, *hooks, strict=True)
        }

    @torch.no_grad()
    def out(self, ids: Tensor, acts: Mapping[Site, Act]) -> Tensor:
        """(R, T, D) fp32: the block output of the highest hooked layer, with `acts` in place."""
        with self.view.hooks.applying(len(ids), {site: (act,) for site, act in acts.items()}):
            return self._above.hidden_below(ids).float()

    @torch.no_grad()
    def _inputs(self, site: Site, ids: Tensor, at: Tensor, acts: Mapping[Site, Act]) -> Tensor:
        """fp32: the site's input at `at` (R,) -> (R, D_in), or (R, J) -> (R, J, D_in)."""
        found: list[Tensor] = []
        rows = torch.arange(len(ids), device=at.device)
        rows = rows if at.ndim == 1 else rows[:, None]

        def read(h_in: Tensor, _h_out: Tensor) -> Tensor:
            found.append(h_in[rows, at].float())
            raise StopForward

        below = {other: (act,) for other, act in acts.items() if other != site}
        with self.view.hooks.applying(len(ids), {**below, site: (read,)}), suppress(StopForward):
            self.view.run(ids)
        return found[0]


def _always(layer: WeightChange) -> Act:
    """A temporary hook: every token is answered by the hook layer."""
    return lambda h_in, h_out: h_out + layer.change(h_in.float()).to(h_out.dtype)


def _after(first: Act | None, placed: Tensor) -> Act:
    def act(h_in: Tensor, h_out: Tensor) -> Tensor:
        return (h_out if first is None else first(h_in, h_out)) + placed.to(h_out.dtype)

    return act


def _where_it_stands_out(layer: WeightChange, alpha: float, lengths: Tensor) -> Act:
    """A validated hook over whole sequences (R, T) of `lengths` tokens: z over each row's own, without its first."""

    def act(h_in: Tensor, h_out: Tensor) -> Tensor:
        change = layer.change(h_in.float())
        size = change.norm(dim=-1)  # (R, T)
        positions = torch.arange(size.shape[1], device=size.device)[None]
        counted = (positions > 0) & (positions < lengths[:, None])
        count = counted.sum(1, keepdim=True).clamp(min=1)
        mean = (size * counted).sum(1, keepdim=True) / count
        variance = ((size - mean).pow(2) * counted).sum(1, keepdim=True) / (count - 1).clamp(min=1)
        z = (size - mean) / variance.sqrt().clamp(min=1e-9)
        passes = (z >= alpha) & counted & (count > 1) & (variance > 1e-18)
        return torch.where(passes[..., None], h_out + change.to(h_out.dtype), h_out)

    return act
