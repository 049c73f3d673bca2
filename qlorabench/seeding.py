"""One tree of random streams: a child for every name, nothing seeded globally.

A stream depends only on the root seed and on the names along its path, never on the order in which
streams are asked for; so work may be split over processes, resumed or left out without moving any draw.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Seed:
    """A node of the tree: a root seed and the path of names that leads here."""

    root: int
    path: tuple[str, ...] = ()

    def child(self, *names: str | int) -> Seed:
        """Return the node below this one along ``names``."""
        return Seed(self.root, self.path + tuple(str(name) for name in names))

    def sequence(self) -> np.random.SeedSequence:
        """Return the ``SeedSequence`` of this node (128 bits of spawn key per name)."""
        return np.random.SeedSequence(self.root, spawn_key=[w for name in self.path for w in _words(name)])

    def numpy(self) -> np.random.Generator:
        """Return a fresh numpy generator; two calls give the same stream."""
        return np.random.Generator(np.random.PCG64(self.sequence()))

    def integer(self) -> int:
        """Return a 63-bit integer, for libraries that take a plain seed."""
        return int(self.sequence().generate_state(1, np.uint64)[0] >> np.uint64(1))


def _words(name: str) -> tuple[int, ...]:
    digest = hashlib.sha256(name.encode()).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
