"""The contract of a defense: hooks on the federated round, every one the identity until overridden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from qlorabench.federation.state import Layout, Role, State, add, weighted_mean
from qlorabench.federation.wire import Payload

if TYPE_CHECKING:
    from torch import Tensor

    from qlorabench.federation.local import LocalTraining


class DefenseConfig(BaseModel):
    """Base of every defense's configuration: frozen, unknown keys refused, every field described and ranged."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ConfigT = TypeVar("ConfigT", bound=DefenseConfig)


@dataclass(frozen=True)
class RoundContext:
    """What a hook may know of where it stands. Everything here is public but ``rng``, the coin of its caller."""

    round: int
    rounds: int
    layout: Layout
    """The travelling tensors of this system."""
    facts: Mapping[str, Any]
    """What this defense said in `Defense.public_facts`."""
    rng: np.random.Generator
    client: int | None = None
    """Index of the client whose hook runs; ``None`` on the server."""


@dataclass(frozen=True)
class Schedule:
    """The public shape of the training of a federation."""

    rounds: int
    local_steps: int
    batch_size: int
    client_rows: tuple[int, ...]
    """Number of local examples of each client."""

    def batch(self, client: int) -> int:
        """Return the batch size of ``client``: the suite's, at most a quarter of its rows, at least one."""
        return max(1, min(self.batch_size, self.client_rows[client] // 4))


class Defense(Generic[ConfigT]):
    """A defense: one file, one frozen config, and an override for every hook it changes.

    A defended system is an ordered list of defenses. Encoders run in that order, decoders in the reverse
    order, so each decoder meets exactly what its own encoder made.
    """

    name: ClassVar[str]
    """Name in suites, as registered."""
    version: ClassVar[int] = 1
    """Raised when the meaning of the defense changes."""
    Config: ClassVar[type[DefenseConfig]]
    paper: ClassVar[str] = ""
    """Where the defense comes from."""
    exclusive: ClassVar[frozenset[str]] = frozenset()
    """Slots that this defense fills alone; two defenses that fill the same one cannot stand together."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def conflict(self, others: Sequence[Defense[Any]], *, optimizer: str) -> str | None:
        """Return why this defense cannot stand with ``others`` (or with the local optimizer), else ``None``."""
        return None

    def trains(self, role: Role) -> bool:
        """Tell whether tensors of ``role`` train and travel."""
        return True

    def initialise(self, state: State, *, frozen_weights: Mapping[str, Tensor], rng: np.random.Generator) -> State:
        """Return the adapter to start from. ``frozen_weights`` maps adapted modules to W0, (d_out, d_in)."""
        return state

    def public_facts(self, schedule: Schedule) -> dict[str, Any]:
        """Return what the adversary is told beside the config, as JSON; computed once, before round 0."""
        return {}

    def encode_broadcast(self, payload: Payload, context: RoundContext) -> Payload:
        """Turn the payload of the global adapter into what the server sends."""
        return payload

    def decode_broadcast(self, payload: Payload, context: RoundContext) -> Payload:
        """Invert `encode_broadcast`, as far as it can be, from the received tensors alone."""
        return payload

    def local_training(self, training: LocalTraining, context: RoundContext) -> LocalTraining:
        """Return the local training to run, its sampler, gradients or optimizer wrapped."""
        return training

    def accept(
        self, received: State, *, previous: State | None, start: Mapping[str, Tensor], context: RoundContext
    ) -> str | None:
        """Return why the client refuses to train from what it ``received``, else ``None``.

        ``received`` is the broadcast as the client decodes it, ``previous`` the one before it (``None`` at the
        client's first), ``start`` the public start of every tensor, which the client holds itself.
        """
        return None

    def encode_update(self, payload: Payload, context: RoundContext) -> Payload:
        """Turn the payload of a client's update into what the client sends."""
        return payload

    def decode_update(self, payload: Payload, context: RoundContext) -> Payload:
        """Invert `encode_update`, as far as it can be, from the received tensors alone."""
        return payload

    def aggregate(self, updates: Sequence[State], weights: Sequence[float], context: RoundContext) -> State | None:
        """Return the aggregate of the decoded updates, or ``None`` to leave it to the mean of factors."""
        return None

    def update_server(self, server: State, held: State, mean: State, context: RoundContext) -> State | None:
        """Return the server's next adapter, or ``None`` to leave it to ``server + mean``.

        ``held`` is what clients decoded from this round's broadcast; ``mean`` the aggregated update.
        """
        return None


def defense_problems(cls: type) -> list[str]:
    """Return what a defense's class leaves out or gets wrong, one sentence each; empty for a class as it should be."""
    problems = []
    if not isinstance(name := getattr(cls, "name", None), str) or not name:
        problems.append(f"it has no name: set 'name' to a text, found {name!r}")
    config = getattr(cls, "Config", None)
    if not (isinstance(config, type) and issubclass(config, DefenseConfig)):
        problems.append(f"its Config must be a class derived from DefenseConfig, found {config!r}")
    slots = getattr(cls, "exclusive", None)
    if not isinstance(slots, frozenset) or not all(isinstance(slot, str) for slot in slots):
        problems.append(f"its 'exclusive' must be a frozenset of texts (it may be empty), found {slots!r}")
    return problems


def refusal(
    defenses: Sequence[Defense[Any]],
    received: State,
    *,
    previous: State | None,
    start: Mapping[str, Tensor],
    contexts: Mapping[str, RoundContext],
) -> str | None:
    """Return why the first of ``defenses`` that objects refuses a broadcast, with its name, else ``None``."""
    for defense in defenses:
        why = defense.accept(received, previous=previous, start=start, context=contexts[defense.name])
        if why is not None:
            return f"{defense.name}: {why}"
    return None


def aggregate(
    defenses: Sequence[Defense[Any]],
    updates: Sequence[State],
    weights: Sequence[float],
    contexts: Mapping[str, RoundContext],
) -> State:
    """Return the aggregate by the first defense that has one, else the weighted mean of the factors (FedIT)."""
    for defense in defenses:
        result = defense.aggregate(updates, weights, contexts[defense.name])
        if result is not None:
            return result
    return weighted_mean(updates, weights)


def update_server(
    defenses: Sequence[Defense[Any]],
    server: State,
    held: State,
    mean: State,
    contexts: Mapping[str, RoundContext],
) -> State:
    """Return the server's next adapter by the first defense that has a rule, else ``server + mean``."""
    for defense in defenses:
        result = defense.update_server(server, held, mean, contexts[defense.name])
        if result is not None:
            return result
    return add(server, mean)
