"""A task made ready: texts without duplicates, tokenized, dealt to clients, with rows that nobody trains on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from qlorabench.errors import UserError
from qlorabench.plugins import registry
from qlorabench.seeding import Seed
from qlorabench.suite.references import split_reference
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.canaries import Canary, draw_canaries
from qlorabench.tasks.dataset import Indices, Split, Table, split
from qlorabench.tasks.encoding import Encoded, concatenate, encode, encode_causal
from qlorabench.tasks.partitions import ColumnPartition, partition


@dataclass(frozen=True)
class Data:
    """A data set as loaded, without exact duplicates."""

    table: Table
    duplicates: int
    """Rows that were removed because their text had occurred before."""


@dataclass(frozen=True)
class PreparedTask:
    """The data of one task under one seed.

    Row numbers are those of the table without duplicates; the inserted canaries stand behind its last row.
    """

    encoded: Encoded
    """Every row, tokenized."""
    texts: tuple[str, ...]
    label_names: tuple[str, ...]
    client_rows: tuple[Indices, ...]
    """The rows of each client; the row of a canary stands there as often as the client has a copy of it."""
    test: Indices
    holdout: Indices
    canaries: tuple[Canary, ...] = ()
    """All of them, inserted or not."""
    canary_rows: Indices = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Rows of the inserted canaries, in their order: texts that no membership game asks about."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Group columns of the data set, one value a row; the rows of canaries have none."""

    def client(self, index: int) -> Encoded:
        """Return the examples of one client."""
        return self.encoded.take(self.client_rows[index])

    @property
    def guessed(self) -> np.ndarray:
        """Which test rows have the most frequent training label, boolean, (rows,)."""
        train = self.encoded.labels[np.concatenate(self.client_rows)]
        hits: np.ndarray = self.encoded.labels[self.test] == np.bincount(train).argmax()
        return hits

    @property
    def majority(self) -> float:
        """Accuracy on the test rows of the most frequent training label."""
        return float(np.mean(self.guessed))


def load_data(config: TaskConfig, *, base: Path) -> Data:
    """Load the data set of a task and remove exact duplicates; raises UserError where that fails."""
    name, options = split_reference(config.data.source)
    source: Any = registry("tasks", base=base).load(name)
    table: Table = source(**options).load(base=base)
    table, duplicates = table.deduplicated()
    return Data(table, duplicates)


def prepare(config: TaskConfig, data: Data, tokenizer: Any, *, seed: Seed) -> PreparedTask:
    """Tokenize the data and deal it to the clients; raises UserError where there are too few rows.

    The draw depends on the seed and on the sizes asked for, not on the defenses: systems are compared on
    the same rows.
    """
    total = None if isinstance(config.partition, ColumnPartition) else sum(config.sizes)
    rows: Split = split(
        data.table,
        clients_rows=total,
        test_rows=config.data.test_rows,
        holdout_rows=config.data.holdout_rows,
        seed=seed,
    )
    clients = partition(
        config.partition,
        data.table,
        rows.train,
        clients=config.clients,
        rows_per_client=config.sizes,
        seed=seed,
    )
    encoder = encode if config.objective == "classification" else encode_causal
    encoded = encoder(tokenizer, data.table.texts, data.table.labels, max_length=config.data.max_length)
    task = PreparedTask(
        encoded,
        data.table.texts,
        data.table.label_names,
        tuple(clients),
        rows.test,
        rows.holdout,
        groups=data.table.groups,
    )
    return _with_canaries(task, config, tokenizer, seed=seed) if config.canaries else task


def _with_canaries(task: PreparedTask, config: TaskConfig, tokenizer: Any, *, seed: Seed) -> PreparedTask:
    """Return ``task`` with its canaries drawn, and the inserted ones among their clients' rows."""
    assert config.canaries
    canaries = draw_canaries(config.canaries, clients=config.clients, tokenizer=tokenizer, seed=seed.child("canaries"))
    inserted = [canary for canary in canaries if canary.inserted]
    texts = tuple(canary.text for canary in inserted)
    encoded = encode_causal(tokenizer, texts, [0] * len(texts), max_length=2**31)
    if (longest := int(encoded.lengths.max())) > config.data.max_length:
        raise UserError(
            f"data.max_length is {config.data.max_length}, but a canary has {longest} tokens: its secret would be cut "
            f"off. Set max_length to {longest} or more, or take fewer digits."
        )
    rows = len(task.texts) + np.arange(len(inserted), dtype=np.int64)
    copies = np.repeat(rows, config.canaries.repetitions)
    homes = np.repeat([canary.client for canary in inserted], config.canaries.repetitions)
    return replace(
        task,
        encoded=concatenate(task.encoded, encoded),
        texts=task.texts + texts,
        client_rows=tuple(np.concatenate([own, copies[homes == i]]) for i, own in enumerate(task.client_rows)),
        canaries=canaries,
        canary_rows=rows,
    )
