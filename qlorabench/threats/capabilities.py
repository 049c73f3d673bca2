"""The closed vocabulary of what an adversary may see or do."""

from __future__ import annotations

from enum import StrEnum


class Capability(StrEnum):
    """One thing that a threat model grants and an attack requires."""

    BROADCASTS = "broadcasts"
    """Every message from the server, the last one included."""
    RELEASED_ADAPTER = "released-adapter"
    """The adapter of the last broadcast, as its receiver decodes it."""
    OWN_UPDATES = "own-updates"
    """The updates that the seat's own clients sent."""
    OTHERS_UPDATES = "others-updates"
    """The update of every client, one by one."""
    AGGREGATE_UPDATE = "aggregate-update"
    """The aggregate of the clients' updates in each round, and nothing finer."""
    SERVER_ADAPTER = "server-adapter"
    """The server's full-precision adapter at the start of each round."""
    OWN_DATA = "own-data"
    """The examples of the seat's own clients."""
    AUXILIARY_DATA = "auxiliary-data"
    """Public examples of the same distribution."""
    CANDIDATES = "candidates"
    """A list of examples, some of them members: the challenge of a membership game."""
    CANARY_PROMPTS = "canary-prompts"
    """The words that stand before secrets, with the secrets' form: the challenge of an extraction game."""
    CHOSEN_BROADCASTS = "chosen-broadcasts"
    """The power to send any adapter instead of the protocol's, in a run that takes the honest one's place."""


MEANING: dict[Capability, str] = {
    Capability.BROADCASTS: "every message from the server",
    Capability.RELEASED_ADAPTER: "the adapter of the last broadcast",
    Capability.OWN_UPDATES: "its own clients' updates",
    Capability.OTHERS_UPDATES: "the update of every single client",
    Capability.AGGREGATE_UPDATE: "the aggregate of the updates in each round",
    Capability.SERVER_ADAPTER: "the full-precision global adapter",
    Capability.OWN_DATA: "its own clients' examples",
    Capability.AUXILIARY_DATA: "public examples of the same distribution",
    Capability.CANDIDATES: "a list of candidate examples to tell members from non-members",
    Capability.CANARY_PROMPTS: "the words before secrets, and the secrets' form",
    Capability.CHOSEN_BROADCASTS: "may broadcast any adapter it likes",
}
"""Plain words for each capability, for cards and messages."""
