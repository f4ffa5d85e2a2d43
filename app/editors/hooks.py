"""The hooks on the frozen model. They stay attached and are idle unless a pass is opened; an error leaves none open.

Three kinds of pass: `capturing` reads the base activations that decisions are taken on, `applying` lets adaptors act on
a decode step, `adding` puts a fit's deltas where they are to be learned.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from app.editors.base import Site

Act = Callable[[Tensor, Tensor], Tensor]
"""(B, T, D_in), (B, T, D_out) -> (B, T, D_out)"""


class StopForward(Exception):
    """Ends a forward pass at a site: nothing above it is wanted."""


class SiteHooks:
    """One forward hook a site, on a model that is otherwise untouched."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
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
            # OPT runs its FFN on (B * T, D): an adaptor always sees (B, T, D)
            h_in, h_out = (x.reshape(self._rows, -1, x.shape[-1]) for x in (args[0], output))
            return act(h_in, h_out).reshape(output.shape)

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
    def capturing(self, sites: Sequence[Site], last: Tensor) -> Iterator[dict[Site, Tensor]]:
        """Yields a dict that the pass fills with each site's input at `last` (B,), the position wanted of each row.

        The output is left as it is: (B, D_in) fp32 comes out, nothing goes in.
        """
        found: dict[Site, Tensor] = {}
        rows = torch.arange(len(last), device=last.device)

        def capture(site: Site) -> Act:
            def act(h_in: Tensor, h_out: Tensor) -> Tensor:
                found[site] = h_in[rows, last].float()
                return h_out

            return act

        with self._pass(len(last), {site: capture(site) for site in sites}):
            yield found

    @contextmanager
    def applying(self, rows: int, acts: Mapping[Site, Sequence[Act]]) -> Iterator[None]:
        """Adaptors act, in order, on a pass of `rows` rows."""

        def chain(site_acts: Sequence[Act]) -> Act:
            def act(h_in: Tensor, h_out: Tensor) -> Tensor:
                for each in site_acts:
                    h_out = each(h_in, h_out)
                return h_out

            return act

        with self._pass(rows, {site: chain(site_acts) for site, site_acts in acts.items()}):
            yield

    @contextmanager
    def adding(self, site: Site, delta: Tensor) -> Iterator[None]:
        """Adds `delta` (B, T, D_out) to the site's output, gradients included."""
        with self._pass(len(delta), {site: lambda _h_in, h_out: h_out + delta.to(h_out.dtype)}):
            yield

    @contextmanager
    def stopping(self, site: Site, last: Tensor) -> Iterator[dict[Site, Tensor]]:
        """Like `capturing` one site, and the pass ends there: the layers above are not run."""
        found: dict[Site, Tensor] = {}
        rows = torch.arange(len(last), device=last.device)

        def act(h_in: Tensor, _h_out: Tensor) -> Tensor:
            found[site] = h_in[rows, last].float()
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

    def close(self) -> None:
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
