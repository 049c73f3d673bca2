"""How a suite names a plug-in: ``span``, or ``span: {option: value}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def split_reference(reference: str | Mapping[str, Mapping[str, Any] | None]) -> tuple[str, dict[str, Any]]:
    """Return name and options of a reference; raises ValueError where it names none or more than one."""
    if isinstance(reference, str):
        return reference, {}
    if len(reference) != 1:
        raise ValueError(f"expected one name with its options, found {sorted(reference)}")
    name, options = next(iter(reference.items()))
    return name, dict(options or {})
