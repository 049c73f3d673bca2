"""Courses of a server's adapter that are known from end to end, seen through quantized broadcasts."""

import torch

from qlorabench.federation import wire
from qlorabench.federation.facts import DefenseFacts, PublicFacts
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.state import Layout, TensorSpec
from qlorabench.plugins import registry
from qlorabench.seeding import Seed
from qlorabench.suite.schema import HeadConfig, LoraConfig, TrainingConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.view import Broadcast, Update, View

LAYOUT = Layout(
    tuple(
        spec
        for i in range(4)
        for spec in (TensorSpec(f"layer.{i}.query.A", (8, 64), "A"), TensorSpec(f"layer.{i}.query.B", (64, 8), "B"))
    )
)


def protocol_of(*, rounds, clients=1, **config):
    cls = registry("defenses").load("quantized-broadcast")
    defense = cls(cls.Config(**config))
    facts = PublicFacts(
        backbone="none",
        lora=LoraConfig(),
        head=HeadConfig(),
        training=TrainingConfig(rounds=rounds),
        client_rows=(10,) * clients,
        max_length=12,
        label_names=("a", "b"),
        defenses=(DefenseFacts(defense.name, defense.config.model_dump(mode="json")),),
        full=LAYOUT,
        travelling=LAYOUT,
    )
    return Protocol(facts, [defense])


def view_of(servers, *, updates=None, **config):
    """Return what a seat sees of ``servers``, flat states; ``updates`` are those of its one client, if it has one."""
    protocol = protocol_of(rounds=len(servers) - 1, **config)
    facets = {Capability.BROADCASTS: tuple(broadcast(protocol, r, s) for r, s in enumerate(servers))}
    if updates is not None:
        facets[Capability.OWN_UPDATES] = tuple(
            Update(r, 0, b"", LAYOUT.unflatten(update)) for r, update in enumerate(updates)
        )
    return View("made-up", int(updates is not None), protocol.facts, None, facets)


def broadcast(protocol, round, server):
    data = protocol.encode_broadcast(LAYOUT.unflatten(server), round=round, seed=Seed(round, ("coin",)))
    return Broadcast(round, data, wire.from_bytes(data), protocol.decode_broadcast(data, round=round))


def adapter(seed, scale=0.05):
    return torch.from_numpy(Seed(seed, ("adapter",)).numpy().normal(0, scale, LAYOUT.count)).float()


def error(state, truth):
    """Return the mean squared error of a claimed state."""
    return float((LAYOUT.flatten(state).double() - truth.double()).square().mean())
