"""What an attack asserts. The harness holds it against the truth; a claim holds no metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from torch import Tensor


class Goal(StrEnum):
    """What an attack is after."""

    RECONSTRUCTION = "reconstruction"
    MEMBERSHIP = "membership"
    ADAPTER = "adapter"
    EXTRACTION = "extraction"
    VERIFICATION = "verification"
    """Telling which of a list of known texts were trained on, from the updates; never a reconstruction."""


@dataclass(frozen=True)
class ClientTexts:
    """What was read of one client."""

    client: int
    tokens: frozenset[int] = frozenset()
    """Token ids claimed to occur in the client's texts; special tokens do not count."""
    placed: frozenset[tuple[int, int]] = frozenset()
    """(position, token id) pairs claimed to occur, positions counted from 0 at the special first token."""
    texts: tuple[str, ...] = ()
    """Whole sentences, where the attack can assemble them."""
    note: str = ""
    """Why nothing is claimed, or how sure the attack is."""


@dataclass(frozen=True)
class ReconstructionClaim:
    """Texts of some or all clients."""

    clients: tuple[ClientTexts, ...]
    note: str = ""


@dataclass(frozen=True)
class MembershipClaim:
    """One score a candidate."""

    scores: np.ndarray
    """(candidates,), finite; higher means more likely a member."""
    note: str = ""


@dataclass(frozen=True)
class AdapterClaim:
    """The server's full-precision travelling tensors after the last round."""

    state: Mapping[str, Tensor]
    note: str = ""
    details: Mapping[str, float] = field(default_factory=dict)
    """Numbers that say how the claim was made (window length, inflation), for the record."""


@dataclass(frozen=True)
class ExtractionClaim:
    """The secrets behind the prompts, in the prompts' order."""

    guesses: tuple[tuple[str, ...], ...]
    """For each prompt the likeliest secrets of the whole space, distinct, best first; found without its references."""
    scores: np.ndarray
    """(prompts, references), finite; higher means that training more likely said it."""
    note: str = ""


Claim = ReconstructionClaim | MembershipClaim | AdapterClaim | ExtractionClaim
"""Any claim."""
