"""A task made ready: texts without duplicates, tokenized, dealt to clients, with rows that nobody trains on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qlorabench.plugins import registry
from qlorabench.seeding import Seed
from qlorabench.suite.references import split_reference
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.dataset import Indices, Split, Table, split
from qlorabench.tasks.encoding import Encoded, encode
from qlorabench.tasks.partitions import ColumnPartition, partition


@dataclass(frozen=True)
class Data:
    """A data set as loaded, without exact duplicates."""

    table: Table
    duplicates: int
    """Rows that were removed because their text had occurred before."""


@dataclass(frozen=True)
class PreparedTask:
    """The data of one task under one seed. Row numbers are those of the table without duplicates."""

    encoded: Encoded
    """Every row, tokenized."""
    texts: tuple[str, ...]
    label_names: tuple[str, ...]
    client_rows: tuple[Indices, ...]
    test: Indices
    holdout: Indices

    def client(self, index: int) -> Encoded:
        """Return the examples of one client."""
        return self.encoded.take(self.client_rows[index])

    @property
    def majority(self) -> float:
        """Accuracy on the test rows of the most frequent training label."""
        train = self.encoded.labels[np.concatenate(self.client_rows)]
        return float(np.mean(self.encoded.labels[self.test] == np.bincount(train).argmax()))


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
    encoded = encode(tokenizer, data.table.texts, data.table.labels, max_length=config.data.max_length)
    return PreparedTask(encoded, data.table.texts, data.table.label_names, tuple(clients), rows.test, rows.holdout)
