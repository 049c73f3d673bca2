"""Builds views: from a transcript and the secrets, exactly what a threat model grants, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qlorabench.federation import wire
from qlorabench.federation.defense import aggregate
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.state import State
from qlorabench.federation.transcript import Secrets, Transcript
from qlorabench.tasks.task import PreparedTask
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.challenge import Challenge
from qlorabench.threats.crafting import CraftedRun, QueuedClients
from qlorabench.threats.lab import Lab
from qlorabench.threats.models import ThreatModel
from qlorabench.threats.prompts import ExtractionGame
from qlorabench.threats.view import Broadcast, Update, View


def observe(
    threat: ThreatModel,
    transcript: Transcript,
    secrets: Secrets,
    *,
    protocol: Protocol,
    task: PreparedTask,
    lab: Lab,
    challenge: Challenge,
    game: ExtractionGame,
    weights: Sequence[float],
    crafted: CraftedRun | None = None,
) -> View:
    """Return the view of ``threat``: every granted facet is built, no other is.

    ``crafted`` serves a seat that may choose its broadcasts. Raises UserError where the transcript is damaged.
    """
    broadcasts = lambda: _broadcasts(transcript, protocol)  # noqa: E731
    builders: dict[Capability, Callable[[], Any]] = {
        Capability.BROADCASTS: broadcasts,
        Capability.RELEASED_ADAPTER: lambda: _broadcasts(transcript, protocol, last=True)[0].state,
        Capability.OWN_UPDATES: lambda: _updates(transcript, protocol, range(threat.colluders)),
        Capability.OTHERS_UPDATES: lambda: _updates(transcript, protocol, range(protocol.facts.clients)),
        Capability.AGGREGATE_UPDATE: lambda: _aggregates(transcript, protocol, weights),
        Capability.SERVER_ADAPTER: lambda: tuple(
            secrets.server_adapter(round) for round in range(protocol.facts.training.rounds + 1)
        ),
        Capability.OWN_DATA: lambda: tuple(task.client(i) for i in range(threat.colluders)),
        Capability.CANDIDATES: lambda: task.encoded.take(challenge.rows),
        Capability.CANARY_PROMPTS: lambda: game.prompts,
        Capability.CHOSEN_BROADCASTS: lambda: _clients(crafted),
    }
    facets: Mapping[Capability, Any] = {c: builders[c]() for c in Capability if c in threat.grants}
    return View(threat.label, threat.colluders, protocol.facts, lab, facets)


def _clients(crafted: CraftedRun | None) -> QueuedClients:
    if crafted is None:
        raise ValueError("a seat that chooses its broadcasts needs a run of its own")
    return crafted.open()


def _broadcasts(transcript: Transcript, protocol: Protocol, *, last: bool = False) -> tuple[Broadcast, ...]:
    messages = transcript.select("down")[-1 if last else None :]
    return tuple(
        Broadcast(m.round, data, wire.from_bytes(data), protocol.decode_broadcast(data, round=m.round))
        for m in messages
        for data in [transcript.data(m)]
    )


def _updates(transcript: Transcript, protocol: Protocol, clients: range) -> tuple[Update, ...]:
    return tuple(
        Update(m.round, m.client, data, protocol.decode_update(data, round=m.round, client=m.client))
        for m in transcript.select("up")
        if m.client is not None and m.client in clients
        for data in [transcript.data(m)]
    )


def _aggregates(transcript: Transcript, protocol: Protocol, weights: Sequence[float]) -> tuple[State, ...]:
    updates = _updates(transcript, protocol, range(protocol.facts.clients))
    rounds = range(protocol.facts.training.rounds)
    return tuple(
        aggregate(protocol.defenses, [u.state for u in updates if u.round == r], weights, protocol.contexts(r, None))
        for r in rounds
    )
