"""A client: starts from what was broadcast, trains locally, and returns an update as bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qlorabench.federation.defense import Defense, refusal
from qlorabench.federation.dropout import training_mode
from qlorabench.federation.local import (
    LocalTraining,
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
    client's own checks object, and RuntimeError where training left every travelling tensor as it was, moved a frozen
    one, or diverged: none of it may pass in silence.
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
    _check_moves(after, held, start)
    update = subtract({name: after[name] for name in facts.travelling.names}, held)
    message = protocol.encode_update(update, round=round, client=client, seed=seed.child("upload"))
    return Contribution(message, [[int(i) for i in rows] for rows in drawn])


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
    schedule = facts.training
    slots = model.train_only(facts.travelling)
    parameters = [parameter for _, parameter in slots]
    factor = schedule_factor(schedule.optimizer, round=round, rounds=schedule.rounds)
    optimizer = make_optimizer(parameters, [s.role for s, _ in slots], schedule.optimizer, factor=factor)
    sampler = ShuffledBatches(len(data), facts.schedule.batch(client), schedule.local_steps)
    training = plain_training(model, parameters, data, sampler, optimizer)
    contexts = protocol.contexts(round, seed.child("local"), client=client)
    for defense in defenses:
        training = defense.local_training(training, contexts[defense.name])
    return training


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


def _check_moves(after: State, held: State, start: State) -> None:
    moved = max_abs_difference(after, held)
    if not math.isfinite(moved):
        raise RuntimeError("local training diverged: a weight is no longer finite; lower the learning rate")
    if moved == 0.0:
        raise RuntimeError("local training moved no weight: the optimizer does not reach the adapter")
    frozen = {name: value for name, value in start.items() if name not in held}
    if max_abs_difference(frozen, after) != 0.0:
        raise RuntimeError("local training moved a tensor that the system keeps frozen")
