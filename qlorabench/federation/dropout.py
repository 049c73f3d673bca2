"""Dropout while a client trains: off, what the backbone was made with, or one rate in every place that has one.

It decides what an update shows. Without dropout a text's gradient is a function of the text alone, which the
attacks that search texts compute again; with it, the server would have to guess the client's coins as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from qlorabench.errors import UserError
from qlorabench.seeding import Seed
from qlorabench.suite.schema import Dropout

Place = tuple[nn.Module, str]
"""A module and the name of its attribute that holds a rate."""


def places(model: nn.Module) -> list[Place]:
    """Return every place of ``model`` that drops out: dropout layers, and rates that a layer hands to attention."""
    found: list[Place] = []
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            found.append((module, "p"))
            continue
        names = (name for name, value in vars(module).items() if "drop" in name and isinstance(value, float))
        found.extend((module, name) for name in names)
    return found


def highest_rate(model: nn.Module, setting: Dropout) -> float:
    """Return the highest rate at which ``model`` drops out under ``setting``; 0 where it never does."""
    if setting == "off":
        return 0.0
    if setting == "model":
        return max((float(getattr(module, name)) for module, name in places(model)), default=0.0)
    return setting


@contextmanager
def training_mode(model: nn.Module, setting: Dropout, *, seed: Seed) -> Iterator[None]:
    """Let ``model`` drop out as ``setting`` says within the block, by coins that follow from ``seed`` alone.

    Outside of it the model is in evaluation mode, with its own rates. Raises UserError where a rate is asked of a
    model that has no place for it.
    """
    if setting == "off":
        yield
        return
    rates = [(module, name, getattr(module, name)) for module, name in places(model)]
    if setting != "model" and not rates:
        raise UserError(
            f"training.dropout is {setting:g}, but the backbone has no dropout layer to set it in. Set it to 'off'."
        )
    try:
        model.train()
        if setting != "model":
            for module, name, _ in rates:
                setattr(module, name, setting)
        # layers draw from the library's global stream, which is given back as it was
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed.integer())
            yield
    finally:
        for module, name, rate in rates:
            setattr(module, name, rate)
        model.eval()
