"""A mixture of LoRAs with a router (ELDER, Li et al. 2024, arXiv 2408.11869, section 3): its maths and its fitting.

Each of M sites has A LoRAs of rank R and a linear router. One query per sequence decides, for all of the sequence's
tokens, which k LoRAs act at each site and how strongly. This module knows nothing of edits, scopes or pages.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from app.editors.base import FitProgress, Site
from app.editors.fitting.contexts import Contexts
from app.editors.fitting.hooks import Act
from app.editors.fitting.value_search import MIN_GAIN, PATIENCE
from app.editors.fitting.view import FitView

CHECK_EVERY = 8
"""The number of steps between two checks of all rows."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """The tensors of a mixture: down (M, A, R, D_in), up (M, A, D_out, R), and the router over queries (D,), router
    (M, A, D) and bias (M, A)."""

    down: Tensor
    up: Tensor
    router: Tensor
    bias: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def digest(self) -> str:
        """Return a name for the content: equal for equal tensors."""
        digest = hashlib.sha256()
        for name, tensor in self.tensors().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:24]

    def to(self, *args: Any) -> "Mixture":
        return Mixture(*(tensor.detach().to(*args) for tensor in self.tensors().values()))

    @property
    def held_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors().values())


def mixture_layers(count: int) -> range:
    """Return the layers that a model with `count` layers gets mixtures in.

    As published, they are the last but one fifth (LLaMA-2: 21 to 26 of 32).
    """
    last = min(count - 1, round(0.8 * count))
    return range(max(0, last + 1 - min(6, max(2, count // 2))), last + 1)


def new_mixture(
    sites: int, loras: int, rank: int, d_in: int, d_out: int, d_query: int, seed: int, down_bound: float | None = None
) -> Mixture:
    """Return a mixture on the CPU as LoRAs begin: `down` is uniform by seed and `up` zero, so that it changes nothing.

    `down` lies within `down_bound`, by default 1 / sqrt(D_in), as in LoRA and PEFT.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        bound = (1 / shape[-1]) ** 0.5  # kaiming_uniform_ with a = sqrt(5), as LoRA and nn.Linear use it
        drawn: Tensor = (torch.rand(*shape, generator=generator) * 2 - 1) * bound
        return drawn

    down = uniform(sites, loras, rank, d_in)
    return Mixture(
        down=down if down_bound is None else down * (down_bound * d_in**0.5),
        up=torch.zeros(sites, loras, d_out, rank),
        router=uniform(sites, loras, d_query),
        bias=torch.zeros(sites, loras),
    )


def scores(mixture: Mixture, queries: Tensor, *, normalise_queries: bool = True) -> Tensor:
    """Return each site's softmax over its LoRAs: queries (B, D) -> (B, M, A).

    Normalised queries have the length sqrt(D). As published, queries keep their length (section 3.2).
    """
    if normalise_queries:
        queries = F.normalize(queries, dim=-1) * queries.shape[-1] ** 0.5
    logits: Tensor = torch.einsum("bd,mad->bma", queries, mixture.router) + mixture.bias
    return logits.softmax(-1)


def top_k_mask(scored: Tensor, k: int) -> Tensor:
    """Mark the k LoRAs that act: scores (..., A) -> (..., A) bool. Over all sites this is the allocation code."""
    chosen = scored.topk(min(k, scored.shape[-1]), dim=-1).indices
    return torch.zeros_like(scored, dtype=torch.bool).scatter(-1, chosen, True)


def hamming(code: Tensor, others: Tensor) -> Tensor:
    """Return the number of places in which codes differ: (M, A) and (K, M, A) bool -> (K,)."""
    return (code[None] != others).flatten(1).sum(1)


def mixture_act(mixture: Mixture, site: int, gates: Tensor) -> Act:
    """Return the action of a mixture at one of its sites, given by index.

    `gates` (B, A) are the scores of the LoRAs that act, and 0 for the others:
    y = W x + sum_j g_j * up_j (down_j x). Scores are not renormalised over the k (section 3.2).
    """
    down, up = mixture.down[site], mixture.up[site]

    def act(h_in: Tensor, h_out: Tensor) -> Tensor:
        inner = torch.einsum("btd,ard->btar", h_in.to(down.dtype), down)
        inner = inner * gates[:, None, :, None].to(inner.dtype)
        return h_out + torch.einsum("btar,aor->bto", inner, up).to(h_out.dtype)

    return act


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureFitParameters:
    """The hyperparameters of a fit of a mixture."""

    k: int
    learning_rate: float
    steps: int
    """The number of steps, or with `probability` the greatest number."""
    guided: float
    """The weight of the guided loss, lambda in the paper."""
    probability: float | None
    """The probability that every target token must reach before the fit stops. None takes all steps."""
    normalise_queries: bool = True
    """See `scores`."""


@dataclass(frozen=True, slots=True)
class MixtureOutcome:
    """The course of a fit of E edits."""

    steps: int
    converged: bool
    least: Tensor
    """(E,) the least probability of a target token over an edit's contexts."""


def fit_mixture(
    view: FitView,
    sites: Sequence[Site],
    start: Mixture,
    batch: Contexts,
    queries: Tensor,
    allocation: Tensor,
    parameters: MixtureFitParameters,
) -> Generator[FitProgress, None, tuple[Mixture, MixtureOutcome]]:
    """Learn a batch by cross-entropy of the targets and the guided loss -log s_j of each allocated LoRA j (section
    3.3).

    The rows of the batch have `queries` (R, D) and an `allocation` (R, M, A) bool. The forward pass uses the router's
    own choice. With a `probability` to reach, all rows are checked every CHECK_EVERY steps, and the rows of edits that
    hold are left out until the next check, so that one slow edit does not make all others run on. Some rows are a
    micro-step.
    """
    device, rows_at_once = view.device, view.rows_at_once(batch.ids.shape[1])
    progress = FitProgress(step=0, steps=parameters.steps, loss=float("nan"))
    hidden = yield from view.by_passes(batch.ids.shape, lambda rows: view.hidden_below(batch.ids[rows]), progress)
    learned = Mixture(*(tensor.detach().float().to(device).requires_grad_() for tensor in start.tensors().values()))
    optimiser = torch.optim.Adam(list(learned.tensors().values()), lr=parameters.learning_rate)
    edits = int(batch.owner.max()) + 1
    contexts = torch.bincount(batch.owner, minlength=edits).float()  # (E,) the number of each edit's contexts
    least, holds = torch.zeros(edits, device=device), torch.zeros(edits, dtype=torch.bool, device=device)
    best, checks_since_gain = torch.full((edits,), 1e-30, device=device), torch.zeros(edits, device=device)
    steps_taken = 0
    for step in range(parameters.steps + 1):
        check = step % CHECK_EVERY == 0 or step == parameters.steps or parameters.probability is None
        active = torch.ones(len(batch.ids), dtype=torch.bool, device=device) if check else ~holds[batch.owner]
        optimiser.zero_grad()
        results: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for some in torch.split(active.nonzero()[:, 0], rows_at_once):
            if results:
                yield progress
            rows = batch.only(some)
            with torch.set_grad_enabled(step < parameters.steps):
                scored = scores(learned, queries[some], normalise_queries=parameters.normalise_queries)
                gates = scored * top_k_mask(scored, parameters.k)
                acts: Mapping[Site, Act] = {
                    site: mixture_act(learned, index, gates[:, index]) for index, site in enumerate(sites)
                }
                logits = view.logits(rows.ids, hidden[some], acts, rows.position)
                nll = F.cross_entropy(logits.flatten(0, 1), rows.target.flatten(), reduction="none").view_as(rows.real)
                nll = nll.masked_fill(~rows.real, 0.0)
                by_row = nll.sum(1) / rows.real.sum(1)
                guide = -(scored.clamp(min=1e-12).log() * allocation[some]).sum((1, 2))
                loss = ((by_row + parameters.guided * guide) / contexts[rows.owner]).sum() / edits
            if step < parameters.steps:
                torch.autograd.backward(loss)  # Gradients of all the step's rows add up.
            right = ((logits.argmax(-1) == rows.target) | ~rows.real).all(1)
            as_allocated = (top_k_mask(scored.detach(), parameters.k) == allocation[some]).all(2).all(1)
            least_of_row = torch.exp(-nll.detach()).masked_fill(~rows.real, 1.0).amin(1)
            results.append((loss.detach(), right, as_allocated, least_of_row))
        losses, *of_rows = zip(*results, strict=True)
        progress = FitProgress(step=step, steps=parameters.steps, loss=sum(each.item() for each in losses))
        yield progress
        if check:
            correct, routed, least_of_rows = (torch.cat(each) for each in of_rows)
            least = torch.full((edits,), 2.0, device=device).scatter_reduce(0, batch.owner, least_of_rows, "amin")
            if parameters.probability is not None:
                best, checks_since_gain = _stalled_checks(least, best, checks_since_gain)
                probable = (least >= parameters.probability) | (checks_since_gain >= PATIENCE // CHECK_EVERY)
                good = correct & probable[batch.owner] & (routed | (parameters.guided == 0))
                holds = torch.ones_like(holds).scatter_reduce(0, batch.owner, good, "prod")
                if bool(holds.all()):
                    break
        if step < parameters.steps:
            optimiser.step()
            steps_taken += 1
    if parameters.probability is None:
        converged = bool(correct.all())
    else:
        converged = bool((holds & (least >= parameters.probability)).all())
    return learned.to(device), MixtureOutcome(steps_taken, converged, least)


def _stalled_checks(least: Tensor, best: Tensor, checks_since_gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best of the least token probabilities so far (E,), and the number of checks since it last grew (E,).

    `least` (E,) are each edit's least token probabilities at this check.
    """
    gained = least.log() > MIN_GAIN * best.log()
    return torch.where(gained, least, best), torch.where(gained, 0.0, checks_since_gain + 1)


def allocate_loras(edits: int, sites: int, loras: int, k: int, seed: int) -> Tensor:
    """Return k random LoRAs a site for each edit, (E, M, A) bool. No two edits get the same sets while sets last."""
    generator = torch.Generator().manual_seed(seed)
    drawn: list[Tensor] = []
    taken: set[tuple[bool, ...]] = set()
    for _ in range(edits):
        for _attempt in range(20):
            code = top_k_mask(torch.rand(sites, loras, generator=generator), k)
            if tuple(code.flatten().tolist()) not in taken:
                break
        taken.add(tuple(code.flatten().tolist()))
        drawn.append(code)
    return torch.stack(drawn)
