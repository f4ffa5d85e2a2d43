"""A mixture of LoRAs with a router (ELDER, Li et al. 2024, arXiv 2408.11869, section 3): its maths and its fitting.

Knows nothing of edits, scopes or pages. At each of M sites there are A LoRAs of rank R and a linear router; one query a
sequence decides, for all of its tokens, which k LoRAs act at each site and how strongly.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from app.editors.base import Progress, Site
from app.editors.fitting.hooks import Act
from app.editors.fitting.loop import PATIENCE, Contexts, stalled
from app.editors.fitting.view import FitView


@dataclass(frozen=True, slots=True)
class Mixture:
    """down (M, A, R, D_in) | up (M, A, D_out, R) | router (M, A, D) and bias (M, A) over queries (D,)."""

    down: Tensor
    up: Tensor
    router: Tensor
    bias: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def digest(self) -> str:
        """Names what it holds: equal for equal tensors."""
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


CHECK_EVERY = 8


def new_mixture(
    sites: int, loras: int, rank: int, d_in: int, d_out: int, d_query: int, seed: int, down_bound: float | None = None
) -> Mixture:
    """As LoRAs begin: `down` uniform, `up` zero, so that a new mixture changes nothing. On the CPU, by seed.

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


def scores(mixture: Mixture, queries: Tensor, *, by_direction: bool = True) -> Tensor:
    """(B, D) queries -> (B, M, A): each site's softmax over its LoRAs.

    A query counts by its direction, its length set to sqrt(D); as published it counts as it is (section 3.2).
    """
    if by_direction:
        queries = F.normalize(queries, dim=-1) * queries.shape[-1] ** 0.5
    logits: Tensor = torch.einsum("bd,mad->bma", queries, mixture.router) + mixture.bias
    return logits.softmax(-1)


def top(scored: Tensor, k: int) -> Tensor:
    """(..., A) scores -> (..., A) bool: the k LoRAs that act. A sequence's allocation code is this over all sites."""
    chosen = scored.topk(min(k, scored.shape[-1]), dim=-1).indices
    return torch.zeros_like(scored, dtype=torch.bool).scatter(-1, chosen, True)


def hamming(code: Tensor, others: Tensor) -> Tensor:
    """(M, A) and (K, M, A) bool -> (K,): in how many places codes differ."""
    return (code[None] != others).flatten(1).sum(1)


def act_of(mixture: Mixture, at: int, gates: Tensor, scale: float = 1.0) -> Act:
    """What the mixture's site `at` does to rows under `gates` (B, A): scores of the LoRAs that act, 0 of the others.

    y = W x + sum_j g_j * scale * up_j (down_j x), scores as they are, not renormalised over the k (section 3.2).
    """
    down, up = mixture.down[at], mixture.up[at]

    def act(h_in: Tensor, h_out: Tensor) -> Tensor:
        inner = torch.einsum("btd,ard->btar", h_in.to(down.dtype), down)
        inner = inner * (gates * scale)[:, None, :, None].to(inner.dtype)
        return h_out + torch.einsum("btar,aor->bto", inner, up).to(h_out.dtype)

    return act


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureFit:
    """How a mixture is fitted. `guided` is the paper's lambda; `probability` None: all steps, whatever is right.
    `by_direction` is how `scores` takes queries."""

    k: int
    learning_rate: float
    steps: int
    guided: float
    probability: float | None
    by_direction: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """What of a batch belongs to one edit: its rows' token probabilities and where they stand."""

    steps: int
    converged: bool
    least: Tensor  # (E,) least probability of a target token over an edit's contexts


def fit_mixture(
    view: FitView,
    sites: Sequence[Site],
    start: Mixture,
    batch: Contexts,
    queries: Tensor,
    allocation: Tensor,
    how: MixtureFit,
) -> Generator[Progress, None, tuple[Mixture, Group]]:
    """Learn a batch: cross-entropy of the targets, and guided loss -log s_j for each LoRA j allocated (section 3.3).

    queries (R, D) of the batch's rows, allocation (R, M, A) bool. The forward uses the router's own choice. With a
    `probability` to reach, all rows are looked at every CHECK_EVERY steps, and those that hold are left out until the
    next look: what one edit of a batch still needs does not have to be computed for all.
    """
    device = view.device
    hidden = view.hidden_below(batch.ids)
    learned = Mixture(*(tensor.detach().float().to(device).requires_grad_() for tensor in start.tensors().values()))
    optimiser = torch.optim.Adam(list(learned.tensors().values()), lr=how.learning_rate)
    edits = int(batch.owner.max()) + 1
    contexts = torch.bincount(batch.owner, minlength=edits).float()  # of each edit
    least, held = torch.zeros(edits, device=device), torch.zeros(edits, dtype=torch.bool, device=device)
    surest, since = torch.full((edits,), 1e-30, device=device), torch.zeros(edits, device=device)
    taken = 0
    for step in range(how.steps + 1):
        check = step % CHECK_EVERY == 0 or step == how.steps or how.probability is None
        going = torch.ones(len(batch.ids), dtype=torch.bool, device=device) if check else ~held[batch.owner]
        some, asked = batch.only(going), queries[going]
        with torch.enable_grad():
            scored = scores(learned, asked, by_direction=how.by_direction)
            gates = scored * top(scored, how.k)
            acts: Mapping[Site, Act] = {site: act_of(learned, at, gates[:, at]) for at, site in enumerate(sites)}
            picked = view.logits(some.ids, hidden[going], acts, some.position)
            nll = F.cross_entropy(picked.flatten(0, 1), some.target.flatten(), reduction="none").view_as(some.real)
            nll = nll.masked_fill(~some.real, 0.0)
            by_row = nll.sum(1) / some.real.sum(1)
            guide = -(scored.clamp(min=1e-12).log() * allocation[going]).sum((1, 2))
            loss = ((by_row + how.guided * guide) / contexts[some.owner]).sum() / edits
        yield Progress(step=step, steps=how.steps, loss=loss.item())
        if check:
            right = ((picked.argmax(-1) == some.target) | ~some.real).all(1)
            routed = (top(scored.detach(), how.k) == allocation).all(2).all(1)
            worst = torch.exp(-nll.detach()).masked_fill(~some.real, 1.0).amin(1)
            least = torch.full((edits,), 2.0, device=device).scatter_reduce(0, some.owner, worst, "amin")
            if how.probability is not None:
                surest, since = stalled(least, surest, since)
                sure = (least >= how.probability) | (since >= PATIENCE // CHECK_EVERY)
                good = right & sure[some.owner] & (routed | (how.guided == 0))
                held = torch.ones_like(held).scatter_reduce(0, some.owner, good, "prod")
                if bool(held.all()):
                    break
        if step < how.steps:
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            taken += 1
    converged = bool(right.all()) if how.probability is None else bool((held & (least >= how.probability)).all())
    return learned.to(device), Group(taken, converged, least)


def allocate(edits: int, sites: int, loras: int, k: int, seed: int) -> Tensor:
    """(E, M, A) bool: for each edit k LoRAs a site at random, of all edits' sets distinct ones while there are any."""
    generator = torch.Generator().manual_seed(seed)
    drawn: list[Tensor] = []
    taken: set[tuple[bool, ...]] = set()
    for _ in range(edits):
        for _attempt in range(20):
            code = top(torch.rand(sites, loras, generator=generator), k)
            if tuple(code.flatten().tolist()) not in taken:
                break
        taken.add(tuple(code.flatten().tolist()))
        drawn.append(code)
    return torch.stack(drawn)
