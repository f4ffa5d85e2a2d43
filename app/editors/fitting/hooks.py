"""The hooks on the frozen model. They stay attached, do nothing outside an open pass, and an error leaves no pass open.

There are two kinds of pass. In `applying`, edits read and change the output of every site. `stopping` and `reading`
end at one site, of which only the input is wanted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from app.editors.base import Site

Act = Callable[[Tensor, Tensor], Tensor]
"""The action of edits at a site: input (B, T, D_in), output (B, T, D_out) -> new output (B, T, D_out)."""


def capture(site: Site, last: Tensor, captured: dict[Site, Tensor]) -> Act:
    """Return an action that leaves the output unchanged and stores in `captured` the site's input (B, D_in) fp32 at
    position `last` (B,) of each row."""
    rows = torch.arange(len(last), device=last.device)

    def act(h_in: Tensor, h_out: Tensor) -> Tensor:
        captured[site] = h_in[rows, last].float()
        return h_out

    return act


class StopForward(Exception):
    """Ends a forward pass at a site, because nothing above it is wanted."""


class SiteHooks:
    """One forward hook for each site, on a model that is otherwise untouched."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._acts: dict[Site, Act] = {}
        self._rows = 0
        self._handles: dict[Site, RemovableHandle] = {}

    def attach(self, site: Site) -> None:
        """Attach a hook to a site. Adaptors at one site share its hook."""
        if site not in self._handles:
            module = self._model.get_submodule(site.module)
            self._handles[site] = module.register_forward_hook(self._hook(site))

    def _hook(self, site: Site) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            act = self._acts.get(site)
            if act is None:
                return None
            # OPT runs its FFN on (B * T, D), but an action always sees (B, T, D). If the layers are on several
            # devices, the action sees all tensors on the first, where its own tensors are.
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
        """Open a pass of `rows` rows in which edits act, those of one site in order. Gradients flow through them."""

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
        """Open a pass that ends at a site. The yielded dict receives the site's input (B, D_in) at `last` (B,)."""
        captured: dict[Site, Tensor] = {}
        read = capture(site, last, captured)

        def act(h_in: Tensor, h_out: Tensor) -> Tensor:
            read(h_in, h_out)
            raise StopForward

        with self._pass(len(last), {site: act}), suppress(StopForward):
            yield captured

    @contextmanager
    def reading(self, site: Site, rows: int) -> Iterator[dict[Site, Tensor]]:
        """Open a pass that ends at a site. The yielded dict receives the site's input (B, T, D_in) fp32."""
        captured: dict[Site, Tensor] = {}

        def act(h_in: Tensor, _h_out: Tensor) -> Tensor:
            captured[site] = h_in.float()
            raise StopForward

        with self._pass(rows, {site: act}), suppress(StopForward):
            yield captured

    @property
    def acting(self) -> Mapping[str, Act]:
        """The actions of the open pass by the path of their module, for passes that call no modules."""
        return {site.module: act for site, act in self._acts.items()}

    def close(self) -> None:
        """Remove all hooks from the model."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
