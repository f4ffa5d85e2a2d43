"""The hooks on the frozen model. They stay attached and are idle unless a pass is opened; an error leaves none open.

Two kinds of pass: `applying` lets adaptors read and act on every layer's way up, `stopping` and `reading` end at a site
whose input is all that is wanted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from app.editors.base import Site

Act = Callable[[Tensor, Tensor], Tensor]
"""(B, T, D_in), (B, T, D_out) -> (B, T, D_out)"""


def capture(site: Site, last: Tensor, found: dict[Site, Tensor]) -> Act:
    """Leaves the output as it is, and the input (B, D_in) fp32 at `last` (B,), the position wanted of each row."""
    rows = torch.arange(len(last), device=last.device)

    def act(h_in: Tensor, h_out: Tensor) -> Tensor:
        found[site] = h_in[rows, last].float()
        return h_out

    return act


class StopForward(Exception):
    """Ends a forward pass at a site: nothing above it is wanted."""


class SiteHooks:
    """One forward hook a site, on a model that is otherwise untouched."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._acts: dict[Site, Act] = {}
        self._rows = 0
        self._handles: dict[Site, RemovableHandle] = {}

    def attach(self, site: Site) -> None:
        """Hang a hook at a site; once, however many adaptors share it."""
        if site not in self._handles:
            module = self._model.get_submodule(site.module)
            self._handles[site] = module.register_forward_hook(self._hook(site))

    def _hook(self, site: Site) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            act = self._acts.get(site)
            if act is None:
                return None
            # OPT runs its FFN on (B * T, D): an adaptor always sees (B, T, D). Where layers are on several devices it
            # sees them on the first, where what it has learned is
            h_in, h_out = (x.reshape(self._rows, -1, x.shape[-1]).to(self._device) for x in (args[0], output))
            return act(h_in, h_out).reshape(output.shape).to(output.device)

        return hook

    @contextmanager
    def _pass(self, rows: int, acts: Mapping[Site, Act]) -> Iterator[None]:
        assert not self._acts, "nested forward pass"
        self._rows, self._acts = rows, dict(acts)
        try:
            yield
        finally:
            self._acts = {}

    @contextmanager
    def applying(self, rows: int, acts: Mapping[Site, Sequence[Act]]) -> Iterator[None]:
        """Adaptors act, each site's in order, on a pass of `rows` rows; gradients flow through what they do."""

        def chain(site_acts: Sequence[Act]) -> Act:
            def act(h_in: Tensor, h_out: Tensor) -> Tensor:
                for each in site_acts:
                    h_out = each(h_in, h_out)
                return h_out

            return act

        with self._pass(rows, {site: chain(site_acts) for site, site_acts in acts.items()}):
            yield

    @contextmanager
    def stopping(self, site: Site, last: Tensor) -> Iterator[dict[Site, Tensor]]:
        """Yields a dict that gets the site's input at `last` (B,), and the pass ends there: no layer above is run."""
        found: dict[Site, Tensor] = {}
        read = capture(site, last, found)

        def act(h_in: Tensor, h_out: Tensor) -> Tensor:
            read(h_in, h_out)
            raise StopForward

        with self._pass(len(last), {site: act}), suppress(StopForward):
            yield found

    @contextmanager
    def reading(self, site: Site, rows: int) -> Iterator[dict[Site, Tensor]]:
        """Like `stopping`, but of every position: (B, T, D_in) fp32."""
        found: dict[Site, Tensor] = {}

        def act(h_in: Tensor, _h_out: Tensor) -> Tensor:
            found[site] = h_in.float()
            raise StopForward

        with self._pass(rows, {site: act}), suppress(StopForward):
            yield found

    @property
    def acting(self) -> Mapping[str, Act]:
        """What acts in the pass that is open, by the path of its module: for passes that call no modules."""
        return {site.module: act for site, act in self._acts.items()}

    def close(self) -> None:
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
