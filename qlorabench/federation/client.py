"""A client: starts from what was broadcast, trains locally, and returns an update as bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlorabench.federation.defense import Defense, refusal
from qlorabench.federation.dropout import training_mode
from qlorabench.federation.local import (
    LocalTraining,
    Sampler,
    ShuffledBatches,
    make_optimizer,
    plain_training,
    schedule_factor,
)
from qlorabench.federation.model import AdapterModel
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.state import State, max_abs_difference, subtract
from qlorabench.seeding import Seed
from qlorabench.tasks.encoding import Encoded


class BroadcastRefused(RuntimeError):
    """A client does not train from what it was sent; the text says why."""


@dataclass(frozen=True)
class Contribution:
    """What a client hands back to the harness: the message, and what stays secret of its making."""

    message: bytes
    batches: list[list[int]]
    """Local row indices of each step."""
    zero: bool = False
    """Whether training left every weight as it was, as it does where the client has fitted its rows."""


def contribute(
    model: AdapterModel,
    protocol: Protocol,
    data: Encoded,
    broadcast: bytes,
    *,
    previous: bytes | None,
    start: State,
    client: int,
    round: int,
    seed: Seed,
    draws: Seed,
) -> Contribution:
    """Train ``client`` for one round on its ``data`` and return its encoded update.

    ``previous`` is the broadcast that this client got before, ``None`` at its first. ``start`` holds the public
    values of what never travels; batches follow ``draws``, all else ``seed``. Raises BroadcastRefused where the
    client's own checks object, and RuntimeError where training does not reach the adapter, moved a frozen tensor, or
    diverged: none of it may pass in silence. A client whose gradients are zero sends a zero update.
    """
    facts = protocol.facts
    model.load(start)
    held = protocol.decode_broadcast(broadcast, round=round)
    _check_broadcast(protocol, held, previous, start=start, client=client, round=round, seed=seed)
    model.load(held)
    with training_mode(model, facts.training.dropout, seed=seed.child("dropout")):
        training = local_training(model, protocol.defenses, protocol, data, client=client, round=round, seed=seed)
        drawn = training.run(draws.numpy())
    after = model.state()
    moved = _check_moves(after, held, start, client=client, round=round)
    if moved == 0.0:
        _check_fitted(model, protocol, data, drawn, client=client, round=round)
    update = subtract({name: after[name] for name in facts.travelling.names}, held)
    message = protocol.encode_update(update, round=round, client=client, seed=seed.child("upload"))
    return Contribution(message, [[int(i) for i in rows] for rows in drawn], zero=moved == 0.0)


def local_training(
    model: AdapterModel,
    defenses: Sequence[Defense[Any]],
    protocol: Protocol,
    data: Encoded,
    *,
    client: int,
    round: int,
    seed: Seed,
) -> LocalTraining:
    """Return the local training of a round with every defense's changes to it, in order."""
    facts = protocol.facts
    sampler = ShuffledBatches(len(data), facts.schedule.batch(client), facts.training.local_steps)
    training = _undefended(model, protocol, data, sampler, round=round)
    contexts = protocol.contexts(round, seed.child("local"), client=client)
    for defense in defenses:
        training = defense.local_training(training, contexts[defense.name])
    return training


def _undefended(
    model: AdapterModel, protocol: Protocol, data: Encoded, sampler: Sampler, *, round: int
) -> LocalTraining:
    schedule = protocol.facts.training
    slots = model.train_only(protocol.facts.travelling)
    parameters = [parameter for _, parameter in slots]
    factor = schedule_factor(schedule.optimizer, round=round, rounds=schedule.rounds)
    optimizer = make_optimizer(parameters, [s.role for s, _ in slots], schedule.optimizer, factor=factor)
    return plain_training(model, parameters, data, sampler, optimizer)


def _check_broadcast(
    protocol: Protocol,
    held: State,
    previous: bytes | None,
    *,
    start: State,
    client: int,
    round: int,
    seed: Seed,
) -> None:
    before = None if previous is None else protocol.decode_broadcast(previous, round=round - 1)
    contexts = protocol.contexts(round, seed.child("accept"), client=client)
    if why := refusal(protocol.defenses, held, previous=before, start=start, contexts=contexts):
        raise BroadcastRefused(f"client {client} refuses the broadcast of round {round}: {why}")


def _check_moves(after: State, held: State, start: State, *, client: int, round: int) -> float:
    """Return the largest change of a weight; raises RuntimeError where it is not finite, or a frozen one changed."""
    moved = max_abs_difference(after, held)
    if not math.isfinite(moved):
        raise RuntimeError(
            f"local training diverged (client {client}, round {round}): a weight is no longer finite; lower the rate"
        )
    frozen = {name: value for name, value in start.items() if name not in held}
    if max_abs_difference(frozen, after) != 0.0:
        raise RuntimeError("local training moved a tensor that the system keeps frozen")
    return moved


@dataclass(frozen=True)
class _Drawn:
    """The batches that were drawn before, once more."""

    drawn: Sequence[np.ndarray]

    @property
    def steps(self) -> int:
        return len(self.drawn)

    def batches(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        return iter(self.drawn)


def _check_fitted(
    model: AdapterModel, protocol: Protocol, data: Encoded, drawn: Sequence[np.ndarray], *, client: int, round: int
) -> None:
    """Raise RuntimeError unless undefended steps on the same batches would move no weight of ``model`` either.

    Gradients that are zero, or whose step is below the resolution of float32, are those of a client that has fitted
    its rows. What should have moved the weights and did not is an optimizer that steps something else.
    """
    training = _undefended(model, protocol, data, _Drawn(drawn), round=round)
    reached = moves = False

    def after(last: bool) -> None:
        nonlocal reached, moves
        for group in training.optimizer.param_groups if last else ():
            for parameter in group["params"]:
                if parameter.grad is not None:
                    reached = True
                    step = _step(training.optimizer, group, parameter.grad)
                    moves = moves or not torch.equal(parameter - step, parameter)
        if last:
            training.optimizer.zero_grad(set_to_none=True)

    replace(training, after_microbatch=after).run(np.random.default_rng(0))
    what = f"local training of client {client} moved no weight in round {round}"
    if any(map(len, drawn)) and not reached:
        raise RuntimeError(f"{what}: the loss gives no tensor that travels a gradient")
    if moves:
        raise RuntimeError(f"{what}, though its gradients would: the optimizer does not reach the adapter")


def _step(optimizer: torch.optim.Optimizer, group: dict[str, Any], gradient: Tensor) -> Tensor:
    """Return what the first step of the local optimizer takes from a tensor, weight decay left out."""
    if isinstance(optimizer, torch.optim.AdamW):
        gradient = gradient / (gradient.abs() + group["eps"])
    return float(group["lr"]) * gradient
