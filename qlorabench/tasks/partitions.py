"""Who holds which rows: the division of a training pool among clients.

Every partition is a function of the table, the pool, the sizes and the seed. The rows of two clients never
overlap, no client is empty, and each client's rows come in random order. Under every kind but ``iid`` a
client's members differ in distribution from the held-out rows (in label or in group): a membership attack
then has something else to key on, which a suite must say or a control must match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qlorabench.errors import UserError, nearest
from qlorabench.seeding import Seed
from qlorabench.tasks.dataset import Indices, Table

Shares = NDArray[np.float64]
"""Share of each label in each client's rows, shape (clients, labels); every row sums to 1."""

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
_BINARY = {"mild": ((0.3, 0.7), (0.7, 0.3), (0.5, 0.5)), "severe": ((0.1, 0.9), (0.9, 0.1), (0.5, 0.5))}
_MAIN_SHARE = {"mild": 0.6, "severe": 0.9}


class IidPartition(BaseModel):
    """Each client draws uniformly from the pool."""

    model_config = _FROZEN
    kind: Literal["iid"] = "iid"


class LabelProportionsPartition(BaseModel):
    """Fixed label shares a client, as in FFA-LoRA (Sun et al., ICLR 2024, arXiv 2403.12313).

    Shares are used in turn: a preset begins anew when its list ends. For two labels, ``severe`` is
    [.1, .9], [.9, .1], [.5, .5], as reviews quote the paper; ``mild`` is [.3, .7], [.7, .3], [.5, .5] and is
    our choice, for we do not know the paper's numbers. With three labels or more, client k holds 90 %
    (severe) or 60 % (mild) of label k and equal shares of the others: our reading of "analogous". The shares
    are what the experiment is about: where the pool has too few rows of a label, the partition is refused.
    """

    model_config = _FROZEN
    kind: Literal["label-proportions"] = "label-proportions"
    level: Literal["mild", "severe"] | None = Field(default=None, description="A preset: mild or severe")
    proportions: tuple[tuple[Annotated[float, Field(ge=0, le=1)], ...], ...] | None = Field(
        default=None,
        min_length=1,
        description="One list of label shares a client, in the order of the label names; used in turn",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.level is None) == (self.proportions is None):
            raise ValueError("give either 'level' (mild or severe) or 'proportions', and not both")
        for i, shares in enumerate(self.proportions or ()):
            if abs(sum(shares) - 1) > 1e-6:
                raise ValueError(f"proportions[{i}] sums to {sum(shares):.6g}; label shares must sum to 1")
        return self


class DirichletPartition(BaseModel):
    """Random label shares a client, drawn from Dir(alpha x pool shares) (Hsu et al., arXiv 1909.06335).

    Sizes are kept: where a label runs out, a client takes the remainder from the labels that are left, in
    proportion to what is left of them. Clients draw in a random order, so that none is always the last.
    """

    model_config = _FROZEN
    kind: Literal["dirichlet"] = "dirichlet"
    alpha: float = Field(ge=0.01, le=1e6, description="Concentration: 0.1 is very skewed, 100 is almost iid")


class ColumnPartition(BaseModel):
    """Whole groups a client (all reviews of one film, all mails of one sender): natural clients.

    Groups come in random order; each goes to the client that is filled least, relative to the rows it asks
    for, and never to a second one. A group that does not fit is cut, and its other rows stay unused. So a
    client gets at most the rows it asks for, and fewer where the groups are used up.
    """

    model_config = _FROZEN
    kind: Literal["column"] = "column"
    column: str = Field(min_length=1, description="Group column of the data set, as in film")


Partition = Annotated[
    IidPartition | LabelProportionsPartition | DirichletPartition | ColumnPartition,
    Field(discriminator="kind"),
]
"""Any of the partitions, told apart by ``kind``."""


def partition(
    config: IidPartition | LabelProportionsPartition | DirichletPartition | ColumnPartition,
    table: Table,
    pool: Indices,
    *,
    clients: int,
    rows_per_client: int | Sequence[int],
    seed: Seed,
) -> list[Indices]:
    """Return the rows of ``table`` that each client holds, all of them taken from ``pool``.

    ``rows_per_client`` is one size for all, or one size a client. The sizes are exact, but for ``column``,
    where they are upper bounds.
    """
    sizes = _sizes(rows_per_client, clients=clients)
    rng = seed.child("partition").numpy()
    if isinstance(config, ColumnPartition):
        groups = _groups(_group_values(table, column=config.column), pool=pool, rng=rng)
        _require_groups(config.column, found=len(groups), clients=clients)
        parts = _by_column(groups, sizes=sizes)
    else:
        _require_rows(table, pool=pool, sizes=sizes)
        parts = _by_label(config, table=table, pool=pool, sizes=sizes, rng=rng)
    return [rng.permutation(part) for part in parts]


def label_shares(config: LabelProportionsPartition, *, labels: int, clients: int) -> Shares:
    """Return the label shares of each client, shape (clients, labels)."""
    if config.proportions is not None:
        _require_shape(config.proportions, labels=labels, clients=clients)
        rows: Sequence[Sequence[float]] = config.proportions
    else:
        rows = _preset(config.level or "severe", labels=labels)
    return np.array([rows[client % len(rows)] for client in range(clients)], dtype=np.float64)


def _preset(level: Literal["mild", "severe"], *, labels: int) -> Sequence[Sequence[float]]:
    if labels == 2:
        return _BINARY[level]
    main = _MAIN_SHARE[level]
    rest = (1 - main) / (labels - 1)
    return [[main if label == client else rest for label in range(labels)] for client in range(labels)]


def _by_label(
    config: IidPartition | LabelProportionsPartition | DirichletPartition,
    *,
    table: Table,
    pool: Indices,
    sizes: list[int],
    rng: np.random.Generator,
) -> list[Indices]:
    if isinstance(config, IidPartition):
        return np.split(rng.permutation(pool), np.cumsum(sizes))[: len(sizes)]
    if not table.labelled:
        raise UserError(
            f"partition '{config.kind}' deals by label, and data set '{table.name}' has none. Name its label column, "
            "or take the kind 'iid' or 'column'."
        )
    labels = np.asarray(table.labels, dtype=np.int64)[pool]
    queues = [rng.permutation(pool[labels == label]) for label in range(len(table.label_names))]
    left = np.array([len(queue) for queue in queues], dtype=np.int64)
    if isinstance(config, LabelProportionsPartition):
        shares = label_shares(config, labels=len(left), clients=len(sizes))
        counts = np.array([_apportion(p, total=n) for p, n in zip(shares, sizes, strict=True)])
        _require_labels(table, left=left, needed=counts.sum(axis=0))
    else:
        counts = _dirichlet_counts(config.alpha, left=left, sizes=sizes, rng=rng)
    cuts = [np.split(queue, np.cumsum(counts[:, label])) for label, queue in enumerate(queues)]
    return [np.concatenate([cut[client] for cut in cuts]) for client in range(len(sizes))]


def _dirichlet_counts(
    alpha: float, *, left: NDArray[np.int64], sizes: list[int], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return how many rows of each label each client takes, shape (clients, labels)."""
    left = left.copy()
    present = left > 0
    prior = left[present] / left.sum()
    counts = np.zeros((len(sizes), len(left)), dtype=np.int64)
    for client in rng.permutation(len(sizes)):
        shares = np.zeros(len(left))
        shares[present] = rng.dirichlet(alpha * prior)
        counts[client] = _take(shares, total=sizes[client], left=left)
        left -= counts[client]
    return counts


def _take(shares: NDArray[np.float64], *, total: int, left: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return counts near ``shares`` that sum to ``total`` and do not exceed ``left``."""
    counts: NDArray[np.int64] = np.minimum(_apportion(shares, total=total), left)
    spare = left - counts
    if missing := total - int(counts.sum()):
        counts += _apportion(spare / spare.sum(), total=missing)
    return counts


def _apportion(shares: NDArray[np.float64], *, total: int) -> NDArray[np.int64]:
    """Round ``shares`` of ``total`` to whole numbers of that sum, by the largest remainders.

    A count never exceeds its exact value rounded up, so that shares of what is left cannot ask for more.
    """
    exact = shares / shares.sum() * total
    counts: NDArray[np.int64] = np.floor(exact + 1e-9).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]
    counts[largest] += 1
    return counts


def _by_column(groups: list[Indices], *, sizes: list[int]) -> list[Indices]:
    """Return each client's rows; there are at least as many groups as clients."""
    parts: list[list[Indices]] = [[] for _ in sizes]
    filled = [0] * len(sizes)
    for group in groups:
        client = min(range(len(sizes)), key=lambda k: filled[k] / sizes[k])
        fits = group[: sizes[client] - filled[client]]
        parts[client].append(fits)
        filled[client] += len(fits)
    return [np.concatenate(part) for part in parts]


def _groups(values: tuple[str, ...], *, pool: Indices, rng: np.random.Generator) -> list[Indices]:
    """Return the rows of each group, groups and rows in random order."""
    rows: dict[str, list[int]] = {}
    for row in np.sort(pool):
        rows.setdefault(values[row], []).append(int(row))
    names = sorted(rows)
    order = rng.permutation(len(names))
    return [rng.permutation(np.array(rows[names[i]], dtype=np.int64)) for i in order]


def _group_values(table: Table, *, column: str) -> tuple[str, ...]:
    if column in table.groups:
        return table.groups[column]
    there = ", ".join(table.groups) or "none; local files name one with 'group'"
    raise UserError(
        f"data set '{table.name}' has no group column '{column}'.{nearest(column, table.groups)} Group columns: {there}"
    )


def _sizes(rows_per_client: int | Sequence[int], *, clients: int) -> list[int]:
    if clients < 1:
        raise UserError(f"{clients} clients are asked for; a federation needs at least 1.")
    sizes = [rows_per_client] * clients if isinstance(rows_per_client, int) else list(rows_per_client)
    if len(sizes) != clients:
        raise UserError(
            f"rows_per_client lists {len(sizes)} sizes for {clients} clients. "
            "Give one size a client, or one number for all."
        )
    if min(sizes) < 1:
        raise UserError(f"rows_per_client is {min(sizes)} for a client; every client needs at least 1 row.")
    return sizes


def _require_groups(column: str, *, found: int, clients: int) -> None:
    if found < clients:
        raise UserError(
            f"column '{column}' has {found} groups in the training pool, too few for {clients} clients. "
            "Ask for fewer clients, or use another column or kind of partition."
        )


def _require_rows(table: Table, *, pool: Indices, sizes: list[int]) -> None:
    if sum(sizes) > len(pool):
        raise UserError(
            f"{len(sizes)} clients ask for {sum(sizes)} rows; "
            f"the training pool of '{table.name}' has {len(pool)}. "
            "Ask for fewer clients or rows, or set aside fewer test and held-out rows."
        )


def _require_labels(table: Table, *, left: NDArray[np.int64], needed: NDArray[np.int64]) -> None:
    if (needed > left).any():
        counts = zip(table.label_names, needed, left, strict=True)
        said = ", ".join(f"'{name}' {n} of {there}" for name, n, there in counts)
        raise UserError(
            f"these label proportions need more rows than the training pool of '{table.name}' has: {said}. "
            "Ask for fewer rows a client, milder proportions, or the kind 'dirichlet', which fills up."
        )


def _require_shape(proportions: Sequence[Sequence[float]], *, labels: int, clients: int) -> None:
    if wrong := {len(shares) for shares in proportions} - {labels}:
        raise UserError(
            f"proportions list {min(wrong)} labels for a client; the data set has {labels}. Give one share a label."
        )
    if len(proportions) > clients:
        raise UserError(
            f"proportions list {len(proportions)} clients; the federation has {clients}. List one a client at most."
        )
