"""What adapted modules read during a forward pass that is differentiated through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from qlorabench.federation.model import AdapterModel


class _EndError(Exception):
    """Ends a forward pass behind the last module that is asked for."""


@contextmanager
def tapped(model: AdapterModel, modules: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record the inputs of ``modules``, by name, while the block runs one forward pass, which ends with them."""
    layers = dict(model.encoder.get_base_model().named_modules())
    wanted, seen = set(modules), dict[str, Tensor]()

    def hook(name: str) -> Any:
        def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen[name] = inputs[0]
            if len(seen) == len(wanted):
                raise _EndError

        return keep

    handles = [layers[name].register_forward_pre_hook(hook(name)) for name in sorted(wanted)]
    try:
        with suppress(_EndError):
            yield seen
    finally:
        for handle in handles:
            handle.remove()
