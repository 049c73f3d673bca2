"""Trains a federation with its clients spread over the workers of a pool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qlorabench.engines.pool import Pool
from qlorabench.federation.bench import SystemSpec, describe, train_client
from qlorabench.federation.client import Contribution
from qlorabench.federation.loop import train_federation
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.transcript import FederationStore


def ensure_trained(
    pool: Pool,
    spec: SystemSpec,
    out: Path,
    *,
    progress: Callable[[int], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Train the federation of ``spec`` into ``out``, or what is left of it; a finished one is left alone.

    ``progress`` takes the rounds done, ``say`` what is odd of the training as a whole.
    """
    store = FederationStore(out, spec.key)
    if store.finished:
        return
    facts, start = pool.submit(describe, spec).result()
    protocol = Protocol(facts, spec.build_defenses())
    largest_first = sorted(range(facts.clients), key=lambda client: -facts.client_rows[client])

    def train_clients(broadcast: bytes, previous: bytes | None, round: int) -> list[Contribution]:
        futures = {c: pool.submit(train_client, spec, facts, broadcast, previous, c, round) for c in largest_first}
        return [futures[client].result() for client in range(facts.clients)]

    by_examples = spec.task.training.weighting == "examples"
    train_federation(
        protocol,
        store,
        train_clients,
        start=start,
        weights=[float(n) if by_examples else 1.0 for n in facts.client_rows],
        seed=spec.random,
        progress=progress,
    )
    if zero := store.secrets.zero_updates():
        clients = ", ".join(map(str, sorted({client for _, client in zero})))
        total = facts.training.rounds * facts.clients
        say(f"{len(zero)} of {total} updates are zero (client {clients}): there the loss of the rows is at its least")
