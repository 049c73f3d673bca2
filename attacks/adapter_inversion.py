"""What the released adapter alone still spans of the texts that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from qlorabench.federation.facts import PublicFacts
from qlorabench.federation.state import State
from qlorabench.threats.attack import Attack, AttackConfig
from qlorabench.threats.capabilities import Capability
from qlorabench.threats.claims import ClientTexts, Goal, ReconstructionClaim
from qlorabench.threats.view import View

from ._dictionary import Floats, Ints, read_dictionary
from ._evidence import Lens, find_projected_pairs
from ._noise import RELATIVE, privacy_variance, rounding_variances
from ._observed import first_modules
from ._residual import cell_variances, client_weights, server_step
from ._stacks import Shot, lenses, placed
from ._subspace import pair_residuals
from ._track import broadcast_codec


class AdapterInversionConfig(AttackConfig):
    """How sure a claim must be, and how far texts are read."""

    decoy_share: float = Field(
        default=0.3, gt=0, lt=1, description="a pair is claimed below this share of the best decoy's residual"
    )
    false_alarm: float = Field(default=1e-6, gt=0, lt=1, description="false claims expected by chance")
    max_positions: int | None = Field(
        default=None, ge=1, le=4096, description="positions looked at; the task's text length if absent"
    )


class AdapterInversion(Attack[AdapterInversionConfig]):
    """Where B started at zero, the rows of the final B are A h over all inputs h that were ever trained on.

    Let H hold the inputs of the first adapted layer, which no adapter changes, and R = A_0 H. A step of SGD adds
    D' X A' to B and B' D' X to A: the rows of B and the columns of A - A_0 stay in R by induction, so that A_T h lies
    in the rows of B_T for every h in H, and for hardly any other input as long as fewer than ``rank`` of them are
    independent. Momentum, local steps and averages of factors over clients are linear and keep to R: it holds for a
    federation as for one client, with A frozen or trained. This end-point certificate is our derivation; we know of no
    publication. It needs no update and no data, only the weights that are handed out.

    Modules of the layer give joint evidence against chance and decoys, as in the span attack under frozen A. A
    quantized broadcast blurs R by its last error alone where A is frozen, and hardly more where A moves little; AdamW
    leaves R. Under DP noise nothing shows above the noise, quantized uploads fill R^rank as too many inputs do: then
    nothing is claimed. Every pair found is claimed of each client, because nobody knows whose text it was.
    """

    name: ClassVar[str] = "adapter-inversion"
    goal: ClassVar[Goal] = Goal.RECONSTRUCTION
    Config: ClassVar[type[AttackConfig]] = AdapterInversionConfig
    requires: ClassVar[frozenset[Capability]] = frozenset({Capability.RELEASED_ADAPTER})
    paper: ClassVar[str] = "our derivation; the span check is that of Petrov et al., DAGER, NeurIPS 2024"

    def blind(self, facts: PublicFacts) -> str | None:
        """Return that an adaptive optimizer leaves the space; all else shows in the adapter itself."""
        if facts.training.optimizer.kind == "adamw":
            return "AdamW rescales every element of a step, so the rows of B leave the span of the inputs"
        return None

    def run(self, view: View, rng: np.random.Generator) -> ReconstructionClaim:
        """Return the words and places of all texts, for every client outside the seat."""
        positions = self.config.max_positions or view.facts.max_length
        dictionary = read_dictionary(view.lab.model.encoder.get_base_model(), positions=positions)
        if dictionary is None:
            return ReconstructionClaim((), note="the embeddings are not words plus positions under a LayerNorm")
        modules = first_modules(view.facts, width=dictionary.words.shape[1])
        if not modules:
            return ReconstructionClaim((), note="no adapter reads the embeddings")
        first = getattr(view.lab.tokenizer, "cls_token_id", None)
        decoy = dictionary.decoy(rng.permutation(dictionary.words.shape[1]))
        seen = lenses(_released(view, modules), dictionary=dictionary, decoy=decoy, first=first)
        found = find_projected_pairs(seen, false_alarm=self.config.false_alarm)
        if found.why:
            return _claim(view, found.items, found.items, note=found.why)
        words = _closer(found.items, seen, share=self.config.decoy_share)
        ranks = ", ".join(str(lens.space.rank) for lens in seen)
        note = f"{len(words)} pairs in {ranks} of {seen[0].space.width} dimensions"
        return _claim(view, words, placed(words, seen) if len(words) else words, note=note)


def _closer(pairs: Ints, seen: Sequence[Lens], *, share: float) -> Ints:
    """Return those of ``pairs``, (n, 2), that are much closer than the best decoy.

    Words of one meaning share directions and beat chance together with the one that was said; only that one is close.
    The mean over modules is geometric.
    """
    live = [lens for lens in seen if 0 < lens.space.rank < lens.space.width]
    false = np.mean([np.log(pair_residuals(lens.decoy, lens.space)) for lens in live], axis=0).min()
    tokens, rows = np.unique(pairs[:, 0], return_inverse=True)
    true = np.mean([np.log(pair_residuals(lens.dictionary.only(tokens), lens.space)) for lens in live], axis=0)
    kept: Ints = pairs[true[rows, pairs[:, 1]] < false + np.log(share)]
    return kept


def _released(view: View, modules: Sequence[str]) -> dict[str, Shot]:
    """Return A and B of every module that moved, with the noise of B."""
    state = {**view.lab.start, **view.released}
    variance = _known_variance(view)
    shots = {}
    for module in modules:
        b = state[f"{module}.B"]
        if bool(torch.isfinite(b).all()) and bool(b.any()):
            values = b.double().numpy()
            noise = variance[f"{module}.B"].double().numpy().mean(1) + _training_variance(view.facts, state, module)
            shots[module] = Shot(state[f"{module}.A"].double().numpy(), values, noise)
    return shots


def _training_variance(facts: PublicFacts, state: State, module: str) -> float:
    """Return the variance of an element of B that float32 training leaves, over all steps."""
    b = state[f"{module}.B"]
    steps = facts.training.rounds * facts.training.local_steps
    rounding: Floats = rounding_variances(torch.zeros_like(b), b, steps=steps)
    return float(rounding.mean() + RELATIVE**2 * b.double().square().mean())


def _known_variance(view: View) -> State:
    """Return the variance of each element of the travelling tensors: the last broadcast's cells, and DP-SGD's noise.

    What earlier broadcasts and quantized uploads did is not known here.
    """
    facts, codec = view.facts, broadcast_codec(view.facts)
    private = sum(_private_variance(facts, round=round) for round in range(facts.training.rounds))
    variance = torch.full((facts.travelling.count,), private, dtype=torch.float64)
    if codec is not None:  # encoding what was decoded gives the same cells again
        factors = facts.travelling.only("A", "B")
        payload = codec.encode(factors.segments(view.released), rng=np.random.default_rng(0))
        variance += cell_variances(codec, payload, facts.travelling)
    return facts.travelling.unflatten(variance)


def _private_variance(facts: PublicFacts, *, round: int) -> float:
    weights = np.array(client_weights(facts)) / sum(client_weights(facts))
    noise = np.array([privacy_variance(facts, client=i, round=round) for i in range(facts.clients)])
    return server_step(facts, round=round).rate ** 2 * float(weights**2 @ noise)


def _claim(view: View, words: Ints, pairs: Ints, *, note: str) -> ReconstructionClaim:
    special = {int(token) for token in view.lab.tokenizer.all_special_ids}
    tokens = frozenset(int(token) for token, _ in words) - special
    places = frozenset((int(place), int(token)) for token, place in pairs if int(token) not in special)
    outsiders = range(view.colluders, view.facts.clients)
    return ReconstructionClaim(tuple(ClientTexts(client, tokens, places, note=note) for client in outsiders))
