"""A task made ready: texts that the model can tell apart, tokenized, dealt to clients, with rows nobody trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qlorabench.errors import TaskError, UserError
from qlorabench.hashing import digest
from qlorabench.plugins import registry
from qlorabench.seeding import Seed
from qlorabench.suite.references import split_reference
from qlorabench.suite.schema import TaskConfig
from qlorabench.tasks.canaries import Canary, draw_canaries
from qlorabench.tasks.dataset import Indices, Split, Table, split
from qlorabench.tasks.encoding import (
    Encoded,
    concatenate,
    cut_rows,
    encode,
    encode_causal,
    encoding_sha256,
    known_tokens,
)
from qlorabench.tasks.partitions import IidPartition, partition
from qlorabench.tasks.report import DataReport, TokenReport
from qlorabench.tasks.sources import Source


@dataclass(frozen=True)
class Data:
    """A data set as loaded, without exact duplicates."""

    table: Table
    report: DataReport


@dataclass(frozen=True)
class Corpus:
    """The texts of a data set that one tokenizer, cutting at one length, can tell apart."""

    table: Table
    encoded: Encoded
    """Every row of the table, tokenized."""
    report: DataReport
    tokenizer: Any

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the rows that are left and of what the tokenizer makes of them, 64 hex digits."""
        return digest([self.table.fingerprint, encoding_sha256(self.tokenizer, self.encoded)], length=64)


@dataclass(frozen=True)
class PreparedTask:
    """The data of one task under one seed.

    Row numbers are those of the corpus; the inserted canaries stand behind its last row.
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
    table = _load(_source(config, base=base), base=base)
    if config.objective == "classification" and not table.labelled:
        raise UserError(f"data set '{table.name}' has one label alone; a classification needs two at least.")
    distinct, repeats = table.deduplicated()
    report = DataReport(
        name=table.name,
        read=len(table) + table.dropped,
        empty=table.dropped,
        repeated=repeats.removed,
        conflicting=repeats.conflicting if config.objective == "classification" else 0,
    )
    return Data(distinct, report)


def tokenize(config: TaskConfig, data: Data, tokenizer: Any) -> Corpus:
    """Tokenize the texts, and leave out those that the model cannot tell from an earlier one, or knows nothing of.

    Raises UserError where the tokenizer knows no token of any text.
    """
    table = data.table
    encoded = _encode(config, tokenizer, table)
    own, known = known_tokens(tokenizer, encoded)
    if len(table) and not known.any():
        raise UserError(
            f"the tokenizer of backbone '{config.backbone.name}' knows no token of the {len(table)} texts of "
            f"'{table.name}': all of them become [UNK] or nothing. Give the backbone its tokenizer files, or take one "
            "that is made for the texts' language."
        )
    seen = np.flatnonzero(known > 0)
    distinct, repeats = table.take(seen).deduplicated([encoded.ids[row].tobytes() for row in seen])
    kept = seen[list(repeats.kept)]
    cut = cut_rows(
        encoded.take(kept),
        lambda rows: _encode(config, tokenizer, distinct.take(rows), room=1),
        max_length=config.data.max_length,
    )
    tokens = TokenReport(
        max_length=config.data.max_length,
        blank=len(table) - len(seen),
        alike=repeats.removed,
        conflicting=repeats.conflicting if config.objective == "classification" else 0,
        unknown=float(1 - known.sum() / own.sum()),
        cut=float(cut.mean()),
    )
    return Corpus(distinct, encoded.take(kept), replace(data.report, tokens=tokens), tokenizer)


def deal(config: TaskConfig, corpus: Corpus, *, seed: Seed) -> PreparedTask:
    """Deal a corpus to the clients; raises UserError where there are too few rows.

    The draw depends on the seed and on the sizes asked for, not on the defenses: systems are compared on
    the same rows.
    """
    rows, clients = _deal_rows(config, corpus.table, corpus.report, seed=seed)
    table = corpus.table
    task = PreparedTask(
        corpus.encoded, table.texts, table.label_names, tuple(clients), rows.test, rows.holdout, groups=table.groups
    )
    return _with_canaries(task, config, corpus.tokenizer, seed=seed) if config.canaries else task


def prepare(config: TaskConfig, data: Data, tokenizer: Any, *, seed: Seed) -> PreparedTask:
    """Tokenize the data and deal it to the clients of one seed; see `tokenize` and `deal`."""
    return deal(config, tokenize(config, data, tokenizer), seed=seed)


def deal_report(config: TaskConfig, data: Data | Corpus, *, seeds: Sequence[int]) -> DataReport:
    """Return the report of ``data`` with what clients get under each of the suite's seeds.

    Raises UserError where a seed leaves a client without the rows it must have.
    """
    table, got, unheld = data.table, {}, {}
    labels = np.asarray(table.labels, dtype=np.int64)
    for seed in seeds:
        _, clients = _deal_rows(config, table, data.report, seed=data_seed(seed))
        got[seed] = tuple(len(rows) for rows in clients)
        held = np.bincount(labels[np.concatenate(clients)], minlength=len(table.label_names))
        missing = tuple(name for name, rows in zip(table.label_names, held, strict=True) if not rows)
        if missing and config.objective == "classification":
            unheld[seed] = missing
    counts = dict(zip(table.label_names, table.label_counts, strict=True)) if table.labelled else {}
    return replace(data.report, labels=counts, asked=tuple(config.sizes), got=got, unheld=unheld)


def data_seed(seed: int) -> Seed:
    """Return the node of the seed tree that rows are dealt from, for a root seed of a suite."""
    return Seed(seed, ("data",))


def check_data(config: TaskConfig, *, base: Path, tokenizer: Any = None, seeds: Sequence[int] = (0,)) -> DataReport:
    """Return what would become of a task's data; raises UserError where a run would refuse them.

    Nothing is fetched: a data set that is not on this machine yet is said to be unchecked. With the backbone's
    ``tokenizer`` the texts that the model cannot tell apart are left out, as in a run.
    """
    if missing := _source(config, base=base).to_fetch():
        return DataReport(missing, unchecked=f"{missing} is fetched at the first run")
    data = load_data(config, base=base)
    if tokenizer is None:
        return deal_report(config, data, seeds=seeds)
    corpus = tokenize(config, data, tokenizer)
    report = deal_report(config, corpus, seeds=seeds)
    if config.canaries:  # they are made of the tokenizer's tokens, which may not do
        for seed in seeds:
            deal(config, corpus, seed=data_seed(seed))
    return report


def _source(config: TaskConfig, *, base: Path) -> Source:
    """Return the task's data source; raises UserError where it has no labels for a task that needs them."""
    name, options = split_reference(config.data.source)
    cls: Any = registry("tasks", base=base).load(name)
    source: Source = cls(**options)
    if config.objective == "classification" and not source.labelled:
        raise UserError(
            f"data source '{name}' gives no labels, and 'objective: classification' needs them. Name the column that "
            "holds them with 'label', or set 'objective: language-modeling'."
        )
    return source


def _load(source: Source, *, base: Path) -> Table:
    """Return the table of a source; what a plug-in's code raises becomes one message."""
    try:
        table: object = source.load(base=base)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"data source '{source.name}' failed: {type(error).__name__}: {error}") from error
    if not isinstance(table, Table):
        raise UserError(f"data source '{source.name}' gave a {type(table).__name__}; 'load' must return a Table.")
    return table


def _encode(config: TaskConfig, tokenizer: Any, table: Table, *, room: int = 0) -> Encoded:
    """Tokenize a table as the task's objective asks for, with ``room`` tokens more than its limit."""
    encoder = encode if config.objective == "classification" else encode_causal
    return encoder(tokenizer, table.texts, table.labels, max_length=config.data.max_length + room)


def _deal_rows(config: TaskConfig, table: Table, report: DataReport, *, seed: Seed) -> tuple[Split, list[Indices]]:
    """Return the split of a table and the rows of each client; what was left out before is told where rows lack.

    An even draw takes the clients' rows from the pool as they come. Every other partition chooses among all rows that
    are left: a pool cut to the rows asked for would already have fixed its labels and groups.
    """
    total = sum(config.sizes) if isinstance(config.partition, IidPartition) else None
    place = "rows_per_client"
    try:
        rows = split(
            table,
            clients_rows=total,
            test_rows=config.data.test_rows,
            holdout_rows=config.data.holdout_rows,
            seed=seed,
        )
        place = "partition"
        clients = partition(
            config.partition,
            table,
            rows.train,
            clients=config.clients,
            rows_per_client=config.sizes,
            seed=seed,
        )
    except UserError as error:
        raise TaskError(f"{error}{report.lost}", place) from None
    return rows, clients


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
