"""The federated round, on one screen; it names no defense."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qlorabench.federation.client import Contribution
from qlorabench.federation.defense import aggregate, update_server
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.state import State
from qlorabench.federation.transcript import FederationStore
from qlorabench.seeding import Seed

TrainClients = Callable[[bytes, bytes | None, int], Sequence[Contribution]]
"""Maps a broadcast, the one before it and the round to the contribution of every client, in the clients' order."""


def train_federation(
    protocol: Protocol,
    store: FederationStore,
    train_clients: TrainClients,
    *,
    start: State,
    weights: Sequence[float],
    seed: Seed,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Train a federation to its end, from the last round that ``store`` holds whole.

    ``start`` maps every tensor to its public start. Per round r: broadcast Q(server), collect the clients'
    updates, aggregate them, update the server. After the last round the adapter is broadcast once more.
    """
    facts = protocol.facts
    server = {name: start[name] for name in facts.travelling.names}
    first = store.begin(facts)
    if first:
        server = store.secrets.server_adapter(first)
    previous = store.broadcast(first - 1) if first else None
    for round in range(first, facts.training.rounds):
        coin = seed.child("round", round, "server")
        broadcast = protocol.encode_broadcast(server, round=round, seed=coin)
        held = protocol.decode_broadcast(broadcast, round=round)
        contributions = train_clients(broadcast, previous, round)
        messages = [contribution.message for contribution in contributions]
        updates = [protocol.decode_update(m, round=round, client=i) for i, m in enumerate(messages)]
        contexts = protocol.contexts(round, coin.child("aggregate"))
        mean = aggregate(protocol.defenses, updates, weights, contexts)
        following = update_server(protocol.defenses, server, held, mean, contexts)
        store.write_round(
            round,
            server=server,
            following=following,
            broadcast=broadcast,
            updates=messages,
            batches=[contribution.batches for contribution in contributions],
            zero=[client for client, contribution in enumerate(contributions) if contribution.zero],
        )
        server, previous = following, broadcast
        progress(round + 1)
    coin = seed.child("round", facts.training.rounds, "server")
    store.write_last(protocol.encode_broadcast(server, round=facts.training.rounds, seed=coin))
