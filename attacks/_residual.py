"""What outsiders' updates add up to, as a receiver of broadcasts works it out, with the noise that is left in it.

Under plain averaging s' = s + rate * mean(u); a receiver holds h = s - e, with e the error of the broadcast's codec.
So (h' - h) / rate = mean(u) + (carried * e - e') / rate, and what insiders sent can be taken out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from qlorabench.codecs import BlockCodec
from qlorabench.federation.facts import DefenseFacts, PublicFacts
from qlorabench.federation.state import Layout, State
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.view import Broadcast, Update, View

from ._noise import privacy_variance
from ._track import broadcast_codec

_UPLOAD = ("codebook", "bits", "block_size", "rounding", "double_quantization")


@dataclass(frozen=True)
class ServerStep:
    """How the server moves on in one round."""

    rate: float
    """Factor on the clients' mean."""
    carried: float
    """Share of the broadcast's quantization error that the server's next adapter holds."""


def server_step(facts: PublicFacts, *, round: int) -> ServerStep:
    """Return the step of ``round``, by the rule of quantized broadcasts where the system has them."""
    defense = facts.defense("quantized-broadcast")
    if defense is None:
        return ServerStep(1.0, 0.0)
    rule, rate = defense.config["server_rule"], float(defense.config["server_lr"])
    if rule == "keep-residual":
        return ServerStep(rate, 1.0)
    if rule == "drop-residual":
        return ServerStep(rate, 0.0)
    if rule == "towards-clients-decayed":
        rate *= (facts.training.rounds - round) / facts.training.rounds
    return ServerStep(rate, 1.0 - rate)


def outsiders_view(view: View) -> View:
    """Return the view of a server with one client: all outsiders as one, with their weighted mean as its updates."""
    updates = tuple(_residual(view, before, after) for before, after in pairwise(view.broadcasts))
    facets = {Capability.BROADCASTS: view.broadcasts, Capability.OTHERS_UPDATES: updates}
    if view.has(Capability.CANDIDATES):
        facets[Capability.CANDIDATES] = view.candidates  # type: ignore[assignment]
    return View(view.threat, 0, _merged(view.facts, insiders=view.colluders), view.lab, facets)


def _merged(facts: PublicFacts, *, insiders: int) -> PublicFacts:
    """Return the facts of the outsiders as one client, whose noise stands in its updates and not in these facts."""
    kept = [_noiseless(d, client=insiders) for d in facts.defenses if d.name != "quantized-upload"]
    return replace(facts, client_rows=(sum(facts.client_rows[insiders:]),), defenses=tuple(kept))


def _noiseless(defense: DefenseFacts, *, client: int) -> DefenseFacts:
    """Return ``defense`` with the guarantee of ``client`` alone, and its noise at zero."""
    if defense.name != "dp-sgd":
        return defense
    guarantee = {**defense.facts["clients"][client], "noise_multiplier": 0.0}
    return replace(defense, facts={**defense.facts, "clients": [guarantee]})


def _residual(view: View, before: Broadcast, after: Broadcast) -> Update:
    """Return the outsiders' mean update in the round of ``before``."""
    facts, layout = view.facts, view.facts.travelling
    step, weights = server_step(facts, round=before.round), client_weights(facts)
    outside = float(sum(weights[view.colluders :]))
    gain = float(sum(weights)) / (step.rate * outside)
    mean = gain * (layout.flatten(after.state).double() - layout.flatten(before.state).double())
    if view.has(Capability.OWN_UPDATES):
        for update in view.own_updates:
            if update.round == before.round:
                mean -= weights[update.client] / outside * layout.flatten(update.state).double()
    state = layout.unflatten(mean.float())
    broadcast = _broadcast_variance(facts, before, carried=step.carried) + _broadcast_variance(facts, after, carried=1)
    noise = gain**2 * (broadcast + _rounding_variance(layout, before.state, after.state))
    noise += _upload_variance(facts, state, insiders=view.colluders, round=before.round)
    return Update(before.round, 0, b"", state, layout.unflatten(noise.float()))


def client_weights(facts: PublicFacts) -> list[float]:
    """Return the weight of each client in the mean, not normalised."""
    return [float(rows) if facts.training.weighting == "examples" else 1.0 for rows in facts.client_rows]


def _broadcast_variance(facts: PublicFacts, broadcast: Broadcast, *, carried: float) -> Tensor:
    """Return the variance of ``carried`` times the codec's error of each element, (elements,) in float64."""
    codec, layout = broadcast_codec(facts), facts.travelling
    if codec is None:
        return torch.zeros(layout.count, dtype=torch.float64)
    return carried**2 * cell_variances(codec, broadcast.payload, layout)


def cell_variances(codec: BlockCodec, payload: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """Return the variance within the cells of a message, (elements,): as `codec_variances`, and 0 in a head."""
    factors = layout.only("A", "B")
    cells = codec.cells(dict(payload), lengths=factors.lengths)
    share = 12 if codec.rounding == "nearest" else 24
    widths = factors.unflatten([(cell.high.double() - cell.low.double()).square() / share for cell in cells])
    heads = {spec.name: torch.zeros(spec.shape) for spec in layout.only("head")}
    return layout.flatten({**widths, **heads}).double()


def _rounding_variance(layout: Layout, before: State, after: State) -> Tensor:
    """Return the variance of the server's float32 sum, (elements,)."""
    largest = np.maximum(np.abs(layout.flatten(before).numpy()), np.abs(layout.flatten(after).numpy()))
    return torch.from_numpy(np.spacing(largest).astype(np.float64) ** 2 / 12)


def _upload_variance(facts: PublicFacts, mean: State, *, insiders: int, round: int) -> Tensor:
    """Return the variance of what DP-SGD and the codec of uploads add to the outsiders' ``mean``, (elements,).

    The uploads' cells are not seen: those that the mean itself would have stand in for them.
    """
    weights = client_weights(facts)[insiders:]
    shares = np.array(weights) / sum(weights)
    private = [privacy_variance(facts, client=insiders + i, round=round) for i in range(len(shares))]
    variance = torch.full((facts.travelling.count,), float(shares**2 @ private), dtype=torch.float64)
    defense = facts.defense("quantized-upload")
    if defense is not None:
        codec = BlockCodec(**{name: defense.config[name] for name in _UPLOAD})
        payload = codec.encode(facts.travelling.only("A", "B").segments(mean), rng=np.random.default_rng(0))
        variance += float((shares**2).sum()) * cell_variances(codec, payload, facts.travelling)
    return variance
