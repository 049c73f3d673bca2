"""Threat models: who the adversary is, what it is granted, and what the model leaves out."""

from __future__ import annotations

from dataclasses import dataclass, field

from qlorabench.errors import UserError, nearest
from qlorabench.threats.capabilities import MEANING, Capability

_C = Capability


@dataclass(frozen=True)
class ThreatModel:
    """One seat of an adversary, with its plain-language card."""

    name: str
    who: str
    grants: frozenset[Capability]
    assumed: str
    not_covered: str
    colluders: int = 0
    """How many clients sit in this seat: the first ones of the federation."""

    @property
    def label(self) -> str:
        """Name with its parameter, as in ``colluding-clients(2)``."""
        return f"{self.name}({self.colluders})" if self.name == "colluding-clients" else self.name

    @property
    def sees(self) -> list[str]:
        """What is granted, in plain words and a fixed order."""
        return [MEANING[c] for c in Capability if c in self.grants]

    def card(self) -> str:
        """Return the card as plain text of four lines."""
        return "\n".join(
            [
                f"who          {self.who}",
                f"sees         {'; '.join(self.sees)}",
                f"assumed      {self.assumed}",
                f"not covered  {self.not_covered}",
            ]
        )


_GAMES = frozenset({_C.CANDIDATES, _C.CANARY_PROMPTS})
"""Challenges, which every seat is posed."""
_CLIENT = frozenset({_C.BROADCASTS, _C.RELEASED_ADAPTER, _C.OWN_UPDATES, _C.OWN_DATA}) | _GAMES
_SERVER = (
    frozenset({_C.BROADCASTS, _C.RELEASED_ADAPTER, _C.OTHERS_UPDATES, _C.AGGREGATE_UPDATE, _C.SERVER_ADAPTER}) | _GAMES
)
_METHOD = "knows the method and every public parameter, follows the protocol"


def _models(k: int) -> dict[str, ThreatModel]:
    rows = [
        ThreatModel(
            "eavesdropper",
            "somebody who records the downlink",
            frozenset({_C.BROADCASTS, _C.RELEASED_ADAPTER}) | _GAMES,
            "knows the method and every public parameter; the downlink is not encrypted, the uplink is",
            "tampering; traffic analysis of the uplink",
        ),
        ThreatModel(
            "client",
            "one participating company (the first client), honest but curious",
            _CLIENT,
            _METHOD,
            "poisoned updates; more than one colluder",
            colluders=1,
        ),
        ThreatModel(
            "colluding-clients",
            f"the first {k} clients, who pool what they see",
            _CLIENT,
            _METHOD,
            "poisoned updates; collusion with the server",
            colluders=k,
        ),
        ThreatModel(
            "server",
            "the aggregation server, honest but curious",
            _SERVER,
            _METHOD,
            "secure aggregation; crafted broadcasts",
        ),
        ThreatModel(
            "server-secure-aggregation",
            "the aggregation server behind ideal secure aggregation",
            _SERVER - {_C.OTHERS_UPDATES},
            _METHOD + "; the aggregate is computed inside an ideal functionality",
            "weaknesses of a particular secure-aggregation protocol; drop-outs; crafted broadcasts",
        ),
        ThreatModel(
            "malicious-server",
            "the aggregation server, which sends whatever helps it",
            _SERVER | {_C.CHOSEN_BROADCASTS},
            "knows the method and every public parameter; the backbone is a public checkpoint that clients verify",
            "a tampered backbone; collusion with clients",
        ),
        ThreatModel(
            "end-user",
            "whoever is handed the released adapter",
            frozenset({_C.RELEASED_ADAPTER}) | _GAMES,
            "knows the method and every public parameter; holds the weights, not just query access",
            "repeated releases of one federation",
        ),
    ]
    return {row.name: row for row in rows}


@dataclass(frozen=True)
class ThreatSpec:
    """A preset by name, with the number of colluders where it takes one."""

    name: str
    k: int = field(default=2)

    def resolve(self) -> ThreatModel:
        """Return the threat model; raises UserError on an unknown name."""
        models = _models(self.k)
        if self.name not in models:
            known = ", ".join(models)
            raise UserError(f"unknown threat model '{self.name}'.{nearest(self.name, models)} Known: {known}")
        return models[self.name]


def presets() -> list[ThreatModel]:
    """Return every preset, with two colluders where a number is needed."""
    return list(_models(2).values())
