"""MEMIT's recipe as CoachHooK publishes it: the new value at a subject's last token, and its pairs layer by layer.

This is sections 3.2 and 3.3 of arXiv 2403.05330, with the hooks of earlier edits in place. This module knows no scopes
and does not adapt thresholds.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from app.domain.errors import InvalidRequest
from app.domain.words import locate
from app.editors.base import FitProgress, FitRequest, Site
from app.editors.fitting.contexts import Contexts, collate
from app.editors.fitting.hooks import Act, StopForward
from app.editors.fitting.view import FitView
from app.editors.hook_layer.dual_form import Prior, WeightChange, solve
from app.editors.hook_layer.layer_spread import row_weights

Hooks = tuple[tuple[WeightChange, ...], tuple[float, ...]]
"""Hook layers, lowest first, and their thresholds alpha."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueFitParameters:
    """MEMIT's hyperparameters for LLaMA. The unit of `norm_cap` is the norm of the state at the subject before the
    edit, and a loss below `enough` ends the fit."""

    steps: int = 25
    learning_rate: float = 0.5
    kl: float = 0.0625
    weight_decay: float = 1e-3
    norm_cap: float = 4.0
    enough: float = 0.05


@dataclass(frozen=True, slots=True)
class SubjectRows:
    """The contexts that mention their subject, each edit's prompt first."""

    batch: Contexts
    subject_ends: Tensor
    """(R,) the position of the subject's last token."""
    prompt_lengths: Tensor
    """(R,) the number of tokens of each context, without the target."""


def subject_places(requests: Sequence[FitRequest], device: torch.device) -> SubjectRows:
    """Find the subject in each context. Raises InvalidRequest if a prompt does not mention its subject."""
    contexts: list[list[tuple[int, ...]]] = []
    places: list[int] = []
    for request in requests:
        rows: list[tuple[int, ...]] = []
        contexts_with_text = zip(request.contexts, request.context_texts, request.ends, strict=True)
        for index, (context, text, ends) in enumerate(contexts_with_text):
            end = locate(text, request.subject) if request.subject else None
            if end is None and index == 0:
                reason = f"it does not mention {request.subject!r}" if request.subject else "it names none"
                raise InvalidRequest(
                    f"The editor hook_layer/paper changes the model's knowledge of a subject, and finds no subject in "
                    f"the prompt {text!r}: {reason}. Give `subject` as it occurs in the prompt, or use another editor."
                )
            if end is not None:
                rows.append(context)
                places.append(next(token for token, token_end in enumerate(ends) if token_end >= end))
        contexts.append(rows)
    batch = collate(contexts, [request.target_ids for request in requests], device)
    prompts = torch.tensor([len(context) for rows in contexts for context in rows], device=device)
    return SubjectRows(batch, torch.tensor(places, device=device), prompts)


class SubjectSpread:
    """`view` is at the lowest hooked layer with all `sites`, and `above` at the layer that follows the highest."""

    def __init__(self, view: FitView, above: FitView, sites: Sequence[Site]) -> None:
        self.view, self._above, self.sites = view, above, tuple(sites)

    def values(
        self, rows: SubjectRows, hooks: Hooks | None, parameters: ValueFitParameters
    ) -> Generator[FitProgress, None, Tensor]:
        """Return the vectors (E, D_out) to add to the highest hooked layer's output at the subject (section 3.2).

        loss = mean NLL of the target + kl KL(base | edited) at the subject + weight_decay |delta|^2 / |h|^2.
        """
        view, batch, lengths = self.view, rows.batch, self._lengths(rows)
        index = torch.arange(len(batch.ids), device=view.device)
        before = self._block_output(batch.ids, self._validated(hooks, lengths))[index, rows.subject_ends]  # (R, D)
        edits = int(batch.owner.max()) + 1
        norms = torch.zeros(edits, device=view.device).scatter_reduce(
            0, batch.owner, before.norm(dim=-1), "mean", include_self=False
        )
        hidden = view.hidden_below(batch.ids)
        delta = torch.zeros(edits, before.shape[1], device=view.device, requires_grad=True)
        base: Tensor | None = None
        optimiser = torch.optim.Adam([delta], lr=parameters.learning_rate)
        contexts = torch.bincount(batch.owner, minlength=edits).float()
        done = torch.zeros(edits, dtype=torch.bool, device=view.device)
        for step in range(parameters.steps + 1):
            active = ~done[batch.owner]  # Rows of finished edits need not be computed.
            some, subject_ends = batch.only(active), rows.subject_ends[active]
            own = torch.arange(int(active.sum()), device=view.device)
            acts = self._validated(hooks, lengths[active])
            with torch.enable_grad():
                top = self.sites[-1]
                placed = torch.zeros((len(own), *hidden.shape[1:]), device=view.device)
                placed = placed.index_put((own, subject_ends), delta[some.owner])
                chained = {**acts, top: _after(acts.get(top), placed)}
                logits = view.logits(
                    some.ids, hidden[active], chained, torch.cat([some.position, subject_ends[:, None]], 1)
                )
                target_logits = logits[:, :-1]  # (R, J, V)
                nll = F.cross_entropy(target_logits.flatten(0, 1), some.target.flatten(), reduction="none")
                nll = nll.view_as(some.real).masked_fill(~some.real, 0.0).sum(1) / some.real.sum(1)
                at_subject = logits[:, -1].log_softmax(-1)
                base = at_subject.detach() if base is None else base
                kl = F.kl_div(at_subject, base[active], log_target=True, reduction="none").sum(-1)
                by_edit = (
                    torch.zeros(edits, device=view.device).index_add(0, some.owner, nll + parameters.kl * kl) / contexts
                )
                by_edit = by_edit + parameters.weight_decay * delta.pow(2).sum(-1) / norms.pow(2)
                loss = by_edit.masked_fill(done, 0.0).sum()
            yield FitProgress(step=step, steps=parameters.steps, loss=by_edit.sum().item())
            done = done | (by_edit.detach() < parameters.enough)
            if bool(done.all()) or step == parameters.steps:
                break
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            previous = delta.detach().clone()
            optimiser.step()
            with torch.no_grad():
                delta.mul_(
                    (parameters.norm_cap * norms[:, None] / delta.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(
                        max=1
                    )
                )
                delta[done] = previous[done]
        return delta.detach()

    def pairs(
        self,
        rows: SubjectRows,
        deltas: Tensor,
        before: tuple[Tensor, Tensor, Tensor] | None,
        hooks: Hooks | None,
        priors: Sequence[Prior],
    ) -> Generator[FitProgress, None, tuple[tuple[Tensor, Tensor, Tensor], tuple[WeightChange, ...]]]:
        """Return K, P and E of the batch, (E, M, D) each, and the hook layers that include it (section 3.3).

        `before` are the pairs of the live edits. Until a layer's turn comes, its hook is temporary and acts on all
        tokens.
        """
        batch, index = rows.batch, torch.arange(len(rows.batch.ids), device=self.view.device)
        lengths = self._lengths(rows)
        validated = self._validated(hooks, lengths)
        goal = self._block_output(batch.ids, validated)[index, rows.subject_ends] + deltas[batch.owner]
        acts: dict[Site, Act] = (
            {}
            if hooks is None
            else {site: _temporary_hook(layer) for site, layer in zip(self.sites, hooks[0], strict=True)}
        )
        weights = row_weights(batch.owner)
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        layers: list[WeightChange] = []
        for layer, (site, prior) in enumerate(zip(self.sites, priors, strict=True)):
            key = weights @ self._inputs(site, batch.ids, rows.subject_ends, acts)
            missing = goal - self._block_output(batch.ids, acts)[index, rows.subject_ends]
            residual = weights @ missing / (len(self.sites) - layer)
            if hooks is not None:
                residual = residual + hooks[0][layer].change(key)  # The implied target is W_{t-1} k + r.
            solved_key = prior.solve(key)
            old = (
                (key[:0], solved_key[:0], residual[:0]) if before is None else tuple(each[:, layer] for each in before)
            )
            all_pairs = [torch.cat([live, new]) for live, new in zip(old, (key, solved_key, residual), strict=True)]
            layers.append(solve(*all_pairs))
            alpha = 2.2 if hooks is None else hooks[1][layer]
            acts[site] = _validated_hook(layers[-1], alpha, lengths)
            pairs.append((key, solved_key, residual))
            yield FitProgress(step=layer + 1, steps=len(self.sites), loss=missing.norm(dim=-1).mean().item())
        keys, solved, residuals = (torch.stack(each, 1) for each in zip(*pairs, strict=True))
        return (keys, solved, residuals), tuple(layers)

    @torch.no_grad()
    def changes(self, prompt: Sequence[int], layers: Sequence[WeightChange], alphas: Sequence[float]) -> list[Tensor]:
        """Return the norm of each layer's change of each token of a prompt, (T,) a layer. The layers below act where a
        token passes their threshold."""
        ids = torch.tensor([list(prompt)], device=self.view.device)
        lengths = torch.tensor([len(prompt)], device=self.view.device)
        acts: dict[Site, Act] = {}
        changes: list[Tensor] = []
        for site, layer, alpha in zip(self.sites, layers, alphas, strict=True):
            rows = torch.arange(len(prompt), device=self.view.device)[None]
            x = self._inputs(site, ids.expand(1, -1), rows, acts)
            changes.append(layer.change(x[0]).norm(dim=-1))
            acts[site] = _validated_hook(layer, alpha, lengths)
        return changes

    def _lengths(self, rows: SubjectRows) -> Tensor:
        """Return the number of tokens that each row feeds, (R,): the prompt, and the target without its last token."""
        return rows.prompt_lengths + rows.batch.real.sum(1) - 1

    def _validated(self, hooks: Hooks | None, lengths: Tensor) -> dict[Site, Act]:
        """Return the actions of live hook layers with their thresholds."""
        if hooks is None:
            return {}
        return {
            site: _validated_hook(layer, alpha, lengths) for site, layer, alpha in zip(self.sites, *hooks, strict=True)
        }

    @torch.no_grad()
    def _block_output(self, ids: Tensor, acts: Mapping[Site, Act]) -> Tensor:
        """Return the highest hooked layer's block output (R, T, D) fp32, with `acts` in place."""
        with self.view.hooks.applying(len(ids), {site: (act,) for site, act in acts.items()}):
            return self._above.hidden_below(ids).float()

    @torch.no_grad()
    def _inputs(self, site: Site, ids: Tensor, positions: Tensor, acts: Mapping[Site, Act]) -> Tensor:
        """Return the site's input fp32 at positions (R,) -> (R, D_in), or (R, J) -> (R, J, D_in)."""
        inputs: list[Tensor] = []
        rows = torch.arange(len(ids), device=positions.device)
        rows = rows if positions.ndim == 1 else rows[:, None]

        def read(h_in: Tensor, _h_out: Tensor) -> Tensor:
            inputs.append(h_in[rows, positions].float())
            raise StopForward

        below = {other: (act,) for other, act in acts.items() if other != site}
        with self.view.hooks.applying(len(ids), {**below, site: (read,)}), suppress(StopForward):
            self.view.run(ids)
        return inputs[0]


def _temporary_hook(layer: WeightChange) -> Act:
    """Return the action of a temporary hook: the hook layer answers every token."""
    return lambda h_in, h_out: h_out + layer.change(h_in.float()).to(h_out.dtype)


def _after(first: Act | None, placed: Tensor) -> Act:
    """Return an action that adds `placed` (R, T, D) to the output, after `first` if given."""

    def act(h_in: Tensor, h_out: Tensor) -> Tensor:
        return (h_out if first is None else first(h_in, h_out)) + placed.to(h_out.dtype)

    return act


def _validated_hook(layer: WeightChange, alpha: float, lengths: Tensor) -> Act:
    """Return the action of a hook on whole sequences of `lengths` (R,) tokens: the hook layer answers where the z-score
    over the row's own tokens, without its first, reaches alpha."""

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
