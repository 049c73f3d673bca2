"""Both ends of the wire for one system: states become exact bytes and come back from those bytes alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from qlorabench.errors import UserError
from qlorabench.federation import wire
from qlorabench.federation.defense import Defense, RoundContext
from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.state import State
from qlorabench.seeding import Seed


@dataclass(frozen=True)
class Protocol:
    """The encoders and decoders of a system's defenses, in order."""

    facts: PublicFacts
    defenses: Sequence[Defense[Any]]

    def contexts(self, round: int, seed: Seed | None, *, client: int | None = None) -> dict[str, RoundContext]:
        """Return the context of each defense's hooks; without a seed (a receiver) they get a fixed coin."""
        known = {d.name: d.facts for d in self.facts.defenses}
        return {
            d.name: RoundContext(
                round=round,
                rounds=self.facts.training.rounds,
                layout=self.facts.travelling,
                facts=known[d.name],
                rng=seed.child("defense", d.name).numpy() if seed else np.random.default_rng(0),
                client=client,
            )
            for d in self.defenses
        }

    def encode_broadcast(self, state: State, *, round: int, seed: Seed) -> bytes:
        """Return the bytes that the server sends for its adapter ``state``."""
        contexts = self.contexts(round, seed)
        payload = wire.pack(state, self.facts.travelling)
        for defense in self.defenses:
            payload = defense.encode_broadcast(payload, contexts[defense.name])
        return wire.to_bytes(payload)

    def decode_broadcast(self, data: bytes, *, round: int) -> State:
        """Return the travelling tensors as every receiver decodes them; raises UserError on damaged bytes."""
        contexts = self.contexts(round, None)
        payload = wire.from_bytes(data)
        with _damaged("broadcast", round):
            for defense in reversed(self.defenses):
                payload = defense.decode_broadcast(payload, contexts[defense.name])
            return wire.unpack(payload, self.facts.travelling)

    def encode_update(self, update: Mapping[str, Any], *, round: int, client: int, seed: Seed) -> bytes:
        """Return the bytes that ``client`` sends for its ``update``."""
        contexts = self.contexts(round, seed, client=client)
        payload = wire.pack(update, self.facts.travelling)
        for defense in self.defenses:
            payload = defense.encode_update(payload, contexts[defense.name])
        return wire.to_bytes(payload)

    def decode_update(self, data: bytes, *, round: int, client: int) -> State:
        """Return the update as the server decodes it; raises UserError on damaged bytes."""
        contexts = self.contexts(round, None, client=client)
        payload = wire.from_bytes(data)
        with _damaged("update", round):
            for defense in reversed(self.defenses):
                payload = defense.decode_update(payload, contexts[defense.name])
            return wire.unpack(payload, self.facts.travelling)


@contextmanager
def _damaged(what: str, round: int) -> Iterator[None]:
    """Turn what a decoder raises on ill-fitting tensors into a message for the reader."""
    try:
        yield
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"the {what} of round {round} is damaged: {error}") from error
