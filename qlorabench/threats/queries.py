"""What an attack asks of the public model, counted in rows: the same whatever a memo spares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from qlorabench.federation.model import AdapterModel


@dataclass
class Queries:
    """A running count."""

    rows: int = 0
    """Texts that went through the backbone, or whose result was remembered."""

    @contextmanager
    def counting(self, model: AdapterModel) -> Iterator[None]:
        """Count the rows of every forward pass of the backbone in ``model``, whoever calls it."""

        def count(_: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = (*positional, named.get("input_ids"), named.get("inputs_embeds"))
            self.rows += next(len(rows) for rows in given if rows is not None)

        handle = model.encoder.get_base_model().register_forward_pre_hook(count, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
