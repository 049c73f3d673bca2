"""Which linear layers of a backbone each name in ``lora.targets`` stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qlorabench.errors import UserError, nearest

KINDS = "torch.nn.Linear, GPT-2's Conv1D, and bitsandbytes' linear layers in 4 or 8 bits"
"""Modules that carry a LoRA adapter here."""


@dataclass(frozen=True)
class Layers:
    """The modules of a backbone, by what an adapter can do with them."""

    linear: tuple[str, ...]
    """Full names of the linear layers, in the model's order."""
    unreached: frozenset[str] = frozenset()
    """Those of them that run, but that the output does not depend on."""
    others: tuple[tuple[str, str], ...] = ()
    """Full name and class of every other module."""

    @property
    def reached(self) -> tuple[str, ...]:
        """Full names of the linear layers that an adapter can be trained on."""
        return tuple(name for name in self.linear if name not in self.unreached)


def wrong_targets(targets: Sequence[str], layers: Layers) -> dict[str, str]:
    """Return what is wrong with each target that cannot be adapted, by target; empty where all can."""
    problems = {}
    for target in targets:
        others = [f"{name} ({kind})" for name, kind in layers.others if _stands_for(target, name)]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            problems[target] = f"matches {others[0]}{more}, which is no linear layer; adapters go on {KINDS}"
        elif not (matched := [name for name in layers.linear if _stands_for(target, name)]):
            hint = nearest(target, _last_parts(layers.reached))
            problems[target] = f"matches nothing in the backbone.{hint}"
        elif not (set(matched) - layers.unreached):
            problems[target] = f"matches {matched[0]} alone, which the loss does not reach: it would never train"
    return problems


def match_targets(targets: Sequence[str], layers: Layers) -> dict[str, tuple[str, ...]]:
    """Return the full names of the linear layers that each target stands for, in the model's order.

    A target is the last part of a name, or several last parts (``attention.self.query``). Layers that the loss does
    not reach are left out. Raises UserError that names every target that matches no other layer, or a module that is
    no linear layer.
    """
    problems = wrong_targets(targets, layers)
    if problems:
        said = [f"lora.targets: '{target}' {problem}" for target, problem in problems.items()]
        said.append(f"Linear layers of the backbone: {', '.join(_last_parts(layers.reached)) or 'none'}.")
        raise UserError("\n".join(said))
    return {target: tuple(name for name in layers.reached if _stands_for(target, name)) for target in targets}


def summarised(names: Iterable[str]) -> str:
    """Return how many layers stand where, as in ``2 x encoder.layer.*.attention.self.query``."""
    counts: dict[str, int] = {}
    for name in names:
        pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)
        counts[pattern] = counts.get(pattern, 0) + 1
    return ", ".join(f"{count} x {pattern}" for pattern, count in counts.items())


def _stands_for(target: str, name: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _last_parts(names: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})
