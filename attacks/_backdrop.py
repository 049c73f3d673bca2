"""One update against the backdrop of what any texts would leave: gradients of single texts, whitened.

Gradients of two texts resemble each other, whatever they say: tokens that open and close them, directions in which the
head pulls. Divided by the covariance that the gradients of random words have, only what the words say is left: the
cosine of a text with the update grows steadily with the number of words that are right, from nearly nothing for words
that no text of the update has. Without it the gradients that all texts share drown the rest.

Shapes: N texts, n candidates for one of them, S slots of a text, T tokens, d width, C classes, D elements of all
tensors of the update, m gradients of all texts but one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ._gradients import _parts, linear_owners, watched
from ._relaxed import Body, Text

_TEXTS = 96
"""Random texts that make the backdrop."""
_RIDGE = 0.05
"""Share of the mean eigenvalue of the backdrop that is added to all."""
_DROWNED = 1e3
"""How many times a tensor's own power its known noise is held to have, at most."""
_LINEAR = 0.1
"""Gradients below this share of their root mean square count by size, larger ones by sign, where Adam steps."""
_CHUNK = 24


@dataclass(frozen=True)
class Target:
    """One tensor of the update."""

    value: Tensor
    noise: float
    """Variance of the known noise in its elements."""

    @property
    def drowned(self) -> float:
        """Power of the known noise over what is left of the tensor's without it, a thousand at most."""
        total, noise = float(self.value.square().sum()), self.noise * self.value.numel()
        return min(_DROWNED, noise / max(total - noise, 1e-300))


@dataclass(frozen=True)
class Filter:
    """What one tensor of the update is multiplied by on either side, and divided by."""

    left: Tensor
    right: Tensor
    """Both symmetric."""
    size: float
    """Norm of the whitened tensor of the update, so that all tensors count alike."""

    def whitened(self, gradients: Tensor) -> Tensor:
        """Return the whitened ``gradients`` (..., rows, columns).

        Either matrix comes from the right: one product then serves all gradients, in a third of the time or less that
        a product for each takes.
        """
        return ((gradients @ self.right).mT @ self.left).mT / self.size


@dataclass(frozen=True)
class Backdrop:
    """The update and the gradients of texts, as they stand out."""

    body: Body
    layers: Mapping[nn.Linear, Mapping[str, str]]
    filters: Mapping[str, Filter]
    target: Tensor
    """The update, (D,), of unit length."""
    noise: float = 0.0
    """Share of the update's power that is known noise."""
    signs: bool = False
    """Whether the update is made of the gradients' signs, as Adam's first steps are: then nothing is whitened."""

    def features(self, slots: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the whitened gradients of texts with word embeddings ``slots`` (N, S, d), (N, C - 1, D).

        Of each text the first of ``lengths`` slots count. A text's loss pulls at its gradients by unknown amounts, one
        for each class but the first: features are the gradients of the differences of logits.
        """
        found = text_gradients(self.body, self.layers, slots, lengths)
        if self.signs:
            found = {name: _softly_signed(gradients) for name, gradients in found.items()}
        return torch.cat([f.whitened(found[name]).flatten(2) for name, f in self.filters.items()], dim=2)

    def of_words(self, texts: Sequence[Text]) -> Tensor:
        """Return the features of ``texts`` of token ids, (N, C - 1, D), without a graph."""
        chunks = [texts[i : i + _CHUNK] for i in range(0, len(texts), _CHUNK)]
        return torch.cat([self.features(*self.body.embedded(chunk)).detach() for chunk in chunks])


def _softly_signed(gradients: Tensor) -> Tensor:
    return gradients / (gradients.abs() + _LINEAR * gradients.square().mean((-2, -1), keepdim=True).sqrt() + 1e-30)


@dataclass(frozen=True)
class Spanned:
    """The objective of a descent on free embeddings: the share of the update that no text's gradients span."""

    backdrop: Backdrop
    lengths: Sequence[Sequence[int]]
    """Slots that count, (C, N)."""

    def distance(self, slots: Tensor, *, progress: float) -> Tensor:
        """Return (C,) for word embeddings ``slots`` (C, N, S, d), whatever ``progress``."""
        features = self.backdrop.features(slots.flatten(0, 1), [n for each in self.lengths for n in each])
        return 1 - explained(features.reshape(len(slots), -1, features.shape[-1]), self.backdrop.target)


@dataclass
class Matched:
    """Texts of whole words whose gradients span an update (a `Fit`)."""

    backdrop: Backdrop
    texts: list[Text]

    def __post_init__(self) -> None:
        self.features = self.backdrop.of_words(self.texts)

    @property
    def body(self) -> Body:
        """The backbone that the texts are read by."""
        return self.backdrop.body

    @property
    def share(self) -> float:
        """Of the update, what the texts' gradients span."""
        return float(explained(self.features.flatten(0, 1), self.backdrop.target))

    @property
    def word_cost(self) -> float:
        """What a word must explain to be told from one that was drawn at random: ln V nats of likelihood.

        Gaussian noise of share f in D elements has -D / (2 f) of what is not explained as its logarithm.
        """
        backdrop = self.backdrop
        return 2 * backdrop.noise * math.log(len(backdrop.body.allowed)) / len(backdrop.target)

    def place(self, k: int) -> MatchedPlace:
        """Return the place of text ``k``."""
        rest = [i for i in range(len(self.texts)) if i != k]
        basis: Tensor = torch.linalg.qr(self.features[rest].flatten(0, 1).T)[0]
        target = self.backdrop.target
        left = target - basis @ (basis.T @ target)
        cost = self.word_cost / max(float(left.square().sum()), 1e-30)  # the others may explain it all
        return MatchedPlace(self.backdrop, self.texts[k], basis, left, cost)

    def put(self, k: int, text: Text) -> None:
        """Replace text ``k``."""
        self.texts[k] = text
        self.features[k] = self.backdrop.of_words([text])[0]


@dataclass(frozen=True)
class MatchedPlace:
    """The place of one text among others whose gradients are known."""

    backdrop: Backdrop
    text: Text
    basis: Tensor
    """Orthonormal, of the others' gradients, (D, m)."""
    left: Tensor
    """What these leave of the update, (D,)."""
    word_cost: float
    """What a word must explain of it."""

    def shares(self, texts: Sequence[Text]) -> Tensor:
        """Return the share of what the others leave that each of ``texts`` explains, (n,)."""
        return self._share(self.backdrop.of_words(texts))

    def slopes(self, slots: Tensor) -> Tensor:
        """Return its gradient by ``slots`` (n, S, d)."""
        free = slots.clone().requires_grad_()
        share = self._share(self.backdrop.features(free, [free.shape[1]] * len(free)))
        (slope,) = torch.autograd.grad(share.sum(), free)
        return slope

    def _share(self, features: Tensor) -> Tensor:
        return explained(features - (features @ self.basis) @ self.basis.T, self.left)


def make_backdrop(
    body: Body,
    targets: Mapping[str, Target],
    *,
    lengths: Sequence[int],
    rng: np.random.Generator,
    signs: bool = False,
) -> Backdrop:
    """Return the backdrop of random words in texts of ``lengths`` slots, for ``targets``: an update by tensor.

    With ``signs`` the update and the gradients are held against each other by their signs, without a backdrop.
    """
    layers = linear_owners(body.model, list(targets))
    if signs:
        signed = {name: target.value.sign() for name, target in targets.items()}
        filters = {
            n: Filter(torch.eye(len(v)), torch.eye(v.shape[1]), float(v.norm()) or 1.0) for n, v in signed.items()
        }
        whole = torch.cat([v.flatten() / filters[n].size for n, v in signed.items()])
        return Backdrop(body, layers, filters, whole / whole.norm(), signs=True)
    words = [rng.choice(body.allowed, int(rng.choice(list(lengths)))).tolist() for _ in range(_TEXTS)]
    unit = {n: Filter(torch.eye(len(t.value)), torch.eye(t.value.shape[1]), 1.0) for n, t in targets.items()}
    plain = Backdrop(body, layers, unit, torch.zeros(0))
    flat = plain.of_words(words).flatten(0, 1)
    sizes = [target.value.numel() for target in targets.values()]
    filters, parts = {}, []
    for (name, target), block in zip(targets.items(), torch.split(flat, sizes, dim=1), strict=True):
        value, ridge = target.value, _RIDGE + target.drowned
        gradients = block.reshape(-1, *value.shape)
        left = _inverse_root(torch.einsum("nor,npr->op", gradients, gradients), ridge)
        right = _inverse_root(torch.einsum("nor,nos->rs", gradients, gradients), ridge)
        size = float(Filter(left, right, 1.0).whitened(value).norm()) or 1.0
        filters[name] = Filter(left, right, size)
        parts.append(filters[name].whitened(value).flatten())
    whole = torch.cat(parts)
    drowned = np.array([target.drowned for target in targets.values()])
    return Backdrop(body, layers, filters, whole / whole.norm(), noise=float((drowned / (1 + drowned)).mean()))


def _inverse_root(covariance: Tensor, ridge: float) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance.double())
    damped = values.clamp(min=0) + ridge * values.mean() + 1e-300
    root: Tensor = ((vectors * damped.rsqrt()) @ vectors.T).float()
    return root


def text_gradients(
    body: Body, layers: Mapping[nn.Linear, Mapping[str, str]], slots: Tensor, lengths: Sequence[int]
) -> dict[str, Tensor]:
    """Return by tensor the gradients of logit c less logit 0 of each text alone, (N, C - 1, *shape)."""
    wants = slots.requires_grad
    given = slots if wants else slots.detach().requires_grad_()
    with torch.enable_grad(), watched(list(layers)) as seen:
        hidden, mask = body.encode(given, lengths)
        assert body.model.head is not None
        logits = body.model.head((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        outputs = [y for _, _, y in seen]
        gaps = [(logits[:, c] - logits[:, 0]).sum() for c in range(1, logits.shape[1])]
        slopes = [torch.autograd.grad(gap, outputs, create_graph=wants, retain_graph=True) for gap in gaps]
    found: dict[str, list[Tensor]] = {}
    for of_gap in slopes:
        for (layer, x, _), slope in zip(seen, of_gap, strict=True):
            for name, part in _parts(layers[layer], x if wants else x.detach(), slope):
                found.setdefault(name, []).append(part)
    return {name: torch.stack(parts, dim=1) for name, parts in found.items()}


def explained(features: Tensor, target: Tensor) -> Tensor:
    """Return the share of ``target`` (D,) that each set of ``features`` (..., m, D) spans, (...)."""
    heard = features @ target
    products = features @ features.transpose(-1, -2)
    load = 1e-4 * products.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + 1e-30
    solved = torch.linalg.solve(products + load * torch.eye(products.shape[-1]), heard[..., None])[..., 0]
    share: Tensor = (solved * heard).sum(-1) / target.square().sum()
    return share
