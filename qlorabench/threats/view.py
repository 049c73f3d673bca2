"""What one seat observes: the only thing an attack gets. A facet that is not granted is not in the object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.state import State
from qlorabench.tasks.encoding import Encoded
from qlorabench.threats.capabilities import MEANING, Capability
from qlorabench.threats.lab import Lab


class NotGrantedError(Exception):
    """An attack asked its view for something that its threat model does not grant."""


@dataclass(frozen=True)
class Broadcast:
    """One message from the server; the one of round ``rounds`` ends the federation."""

    round: int
    data: bytes
    """Exact bytes."""
    payload: Mapping[str, Any]
    """The container's tensors: codes and scales where a codec is in use."""
    state: State
    """The travelling tensors as any receiver decodes them."""


@dataclass(frozen=True)
class Update:
    """One client's update of one round: the change of the travelling tensors, as the server decodes it."""

    round: int
    client: int
    data: bytes
    state: State
    noise: Mapping[str, Tensor] | None = None
    """Variance of each element that its reader knows of beside what the system's facts say; ``None`` for none."""


@dataclass(frozen=True)
class SecretPrompt:
    """One question of the extraction game: which secret of digits stood behind these words in training, if any did."""

    prompt: str
    """The text before the secret; secret and prompt joined are the text."""
    alphabet: tuple[str, ...]
    """The digits as they are written in a secret, one token each."""
    length: int
    """Digits of a secret."""
    references: tuple[str, ...]
    """Secrets of this form to be scored, distinct: the true one among others that were drawn at random."""


@dataclass(frozen=True)
class Exchange:
    """One chosen broadcast and what came of it."""

    broadcast: Broadcast
    """What the state became: the system's codec works on it too."""
    update: Update | None
    """The client's reply; ``None`` where its own checks refuse the broadcast."""


class Crafter(Protocol):
    """The power to send any adapter: a run of the server's own, instead of the honest federation."""

    @property
    def rounds(self) -> int:
        """How many broadcasts each client takes, refused ones included; then it is gone."""

    def send(self, state: State, *, client: int) -> Exchange:
        """Send ``state``, every travelling tensor, to ``client`` as its next broadcast.

        The client decodes it, checks it against the broadcast it accepted before, and trains on new batches with
        new coins. Raises RuntimeError where it is gone, where a tensor is missing, too many or of another shape,
        and where local training breaks down.
        """


@dataclass(frozen=True)
class View:
    """A seat's observations. Properties raise NotGrantedError for what the threat model withholds."""

    threat: str
    colluders: int
    """The seat's own clients are the first ``colluders`` of the federation."""
    facts: PublicFacts
    lab: Lab
    _facets: Mapping[Capability, Any]

    def has(self, capability: Capability) -> bool:
        """Tell whether ``capability`` is granted."""
        return capability in self._facets

    def _get(self, capability: Capability) -> Any:
        if capability not in self._facets:
            raise NotGrantedError(f"the {self.threat} seat is not granted {capability}: {MEANING[capability]}")
        return self._facets[capability]

    @property
    def broadcasts(self) -> tuple[Broadcast, ...]:
        """Every message from the server, in order; the last one is what is released."""
        return self._get(Capability.BROADCASTS)  # type: ignore[no-any-return]

    @property
    def released(self) -> State:
        """The adapter of the last broadcast, decoded."""
        return self._get(Capability.RELEASED_ADAPTER)  # type: ignore[no-any-return]

    @property
    def own_updates(self) -> tuple[Update, ...]:
        """The updates of the seat's own clients, by round and client."""
        return self._get(Capability.OWN_UPDATES)  # type: ignore[no-any-return]

    @property
    def updates(self) -> tuple[Update, ...]:
        """The updates of every client, by round and client."""
        return self._get(Capability.OTHERS_UPDATES)  # type: ignore[no-any-return]

    @property
    def aggregates(self) -> tuple[State, ...]:
        """The aggregated update of each round."""
        return self._get(Capability.AGGREGATE_UPDATE)  # type: ignore[no-any-return]

    @property
    def server_adapters(self) -> tuple[State, ...]:
        """The server's full-precision travelling tensors before each round, and after the last."""
        return self._get(Capability.SERVER_ADAPTER)  # type: ignore[no-any-return]

    @property
    def own_data(self) -> tuple[Encoded, ...]:
        """The examples of each of the seat's own clients."""
        return self._get(Capability.OWN_DATA)  # type: ignore[no-any-return]

    @property
    def candidates(self) -> Encoded:
        """The candidates of the membership game, members and non-members shuffled."""
        return self._get(Capability.CANDIDATES)  # type: ignore[no-any-return]

    @property
    def prompts(self) -> tuple[SecretPrompt, ...]:
        """The words before secrets, of which some stood in a client's texts; empty on a task without canaries."""
        return self._get(Capability.CANARY_PROMPTS)  # type: ignore[no-any-return]

    @property
    def crafted(self) -> Crafter:
        """The clients, for a server that sends what it likes."""
        return self._get(Capability.CHOSEN_BROADCASTS)  # type: ignore[no-any-return]
