"""Runs a plan: trains each federation once, measures its cells, and writes the journal in the plan's order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlorabench.engines.federations import ensure_trained
from qlorabench.engines.folder import held
from qlorabench.engines.foreseen import Foreseen, source_of
from qlorabench.engines.keys import cell_key, federation_key
from qlorabench.engines.measure import AttackSpec, measure_bandwidth, measure_leakage, measure_utility
from qlorabench.engines.pool import JobFailed, JobTimeout, Pool, Timed, in_order, nothing, timed
from qlorabench.engines.sharing import share
from qlorabench.engines.watch import Watch
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.federation.transcript import Transcript
from qlorabench.files import write_atomic
from qlorabench.records.journal import Journal, latest
from qlorabench.records.record import Record, Status, validated
from qlorabench.scoring.score import Score
from qlorabench.seeding import Seed
from qlorabench.suite.plan import Cell, Plan
from qlorabench.suite.resolve import ResolvedSuite

if TYPE_CHECKING:
    from qlorabench.tasks.backbones import Backbone
    from qlorabench.tasks.task import Data


@dataclass(frozen=True)
class Outcome:
    """What a cell gave."""

    status: Status
    scores: list[Score]
    seconds: float
    note: str = ""
    peak_bytes: int | None = None
    details: str = ""
    """Of a failure: everything that is known of it."""


@dataclass
class Run:
    """One suite being run into one folder."""

    suite: ResolvedSuite
    plan: Plan
    out: Path
    workers: int
    watch: Watch
    only: str | None = None
    debug: bool = False
    """Whether everything that is known of a failure is said, beside what its note tells."""
    failures: int = 0
    _specs: dict[tuple[str, str, int], SystemSpec] = field(default_factory=dict)
    _twins: dict[str, dict[str, Record]] = field(default_factory=dict)
    """Rows of undefended cells by key and metric: the positive controls of the others."""
    facts: dict[str, dict[str, str | int]] = field(default_factory=dict)
    """Content hashes and sizes of each task's data and backbone, for the manifest."""

    def execute(self, *, before: Callable[[Run], None] = lambda _: None) -> None:
        """Run what is missing; ``before`` is called once data and backbones are known."""
        with held(self.out):
            self._execute(before)

    def _execute(self, before: Callable[[Run], None]) -> None:
        journal = Journal(self.out / "records.jsonl")
        journal.recover()
        loaded = {task: self._load(task) for task in self.suite.systems}
        before(self)
        finished = journal.finished_keys()
        self._remember(latest(journal.read()))
        for task, (backbone, data) in loaded.items():
            cells = [c for c in self.plan.cells if c.task == task and self._wanted(c)]
            missing = [cell for cell in cells if self.key(cell) not in finished]
            self.watch.planned(cells=len(cells), done=len(cells) - len(missing))
            if missing:
                self._run_task(task, backbone.loaded, data, missing, journal)

    def _wanted(self, cell: Cell) -> bool:
        return self.only is None or fnmatch(cell.label, self.only) or fnmatch(cell.label, f"*{self.only}*")

    def _load(self, task: str) -> tuple[Foreseen, Data]:
        from qlorabench.tasks.backbones import load_backbone
        from qlorabench.tasks.task import load_data

        config = self.suite.config.tasks[task]
        self.watch.say(f"{task}: {config.backbone.name} and its data")
        where: Any = {"base": self.suite.base, "objective": config.objective}
        backbone = Foreseen(
            source_of(config.backbone, **where),
            self.out / "inputs.json",
            lambda: load_backbone(config.backbone, **where),
        )
        data = load_data(config, base=self.suite.base)
        self.facts[task] = {
            "backbone": config.backbone.name,
            "backbone_sha256": backbone.sha256,
            "data": data.table.name,
            "data_sha256": data.table.fingerprint,
            "rows": len(data.table),
            "duplicates_removed": data.duplicates,
        }
        for system in self.suite.systems[task].values():
            for seed in self.suite.config.seeds:
                key = federation_key(system, seed=seed, data=data.table.fingerprint, backbone=backbone.sha256)
                spec = SystemSpec(key, system.task, system.defenses, seed, self.suite.base)
                self._specs[task, system.name, seed] = spec
        return backbone, data

    @property
    def _insiders(self) -> int:
        return max((threat.colluders for threat in self.suite.threats), default=0)

    def spec(self, cell: Cell) -> SystemSpec:
        """Return the federation that a cell looks at."""
        return self._specs[cell.task, cell.system.name, cell.seed]

    def key(self, cell: Cell) -> str:
        """Return the content key of a cell."""
        twin = self._specs[cell.task, cell.system.twin, cell.seed].key
        federation = self.spec(cell).key
        return cell_key(cell, federation=federation, twin=twin, suite=self.suite.config, insiders=self._insiders)

    def _run_task(self, task: str, backbone: Backbone, data: Data, missing: list[Cell], journal: Journal) -> None:
        from qlorabench.tasks.task import prepare

        config = self.suite.config.tasks[task]
        seeds = sorted({cell.seed for cell in missing})
        prepared = {s: prepare(config, data, backbone.tokenizer, seed=Seed(s, ("data",))) for s in seeds}
        share(backbone.model)
        drivers = ThreadPoolExecutor(self.workers + 1)
        try:
            with Pool(Bench, backbone, prepared, workers=self.workers, overheard=self.watch.say) as pool:
                drivers.submit(self._wait_for_workers, pool)
                measured, trained = self._submit(drivers, pool, missing)
                for cell, outcome in in_order(measured, beside=trained):
                    self._commit(journal, cell, outcome)
        finally:
            # what ended the run ends them as well: the pool is closed, and takes no job of theirs
            drivers.shutdown(wait=True, cancel_futures=True)

    def _wait_for_workers(self, pool: Pool) -> None:
        with self.watch.starting(self.workers):
            pool.submit(nothing).result()

    def _submit(
        self, drivers: ThreadPoolExecutor, pool: Pool, missing: list[Cell]
    ) -> tuple[list[tuple[Cell, Future[Outcome]]], list[Future[JobFailed | None]]]:
        """Queue every cell and every federation: cells of one federation behind the training of the next."""
        by_key: dict[str, list[Cell]] = {}
        for cell in missing:
            by_key.setdefault(self.spec(cell).key, []).append(cell)
        trained: dict[str, Future[JobFailed | None]] = {}
        futures: dict[str, Future[Outcome]] = {}
        keys = list(by_key)
        for i, key in enumerate(keys):
            for ahead in keys[i : i + self.workers]:
                if ahead not in trained:
                    trained[ahead] = drivers.submit(self._train, pool, by_key[ahead][0])
            for cell in by_key[key]:
                futures[cell.label] = drivers.submit(self._measure, pool, cell, trained[key])
        return [(cell, futures[cell.label]) for cell in missing], list(trained.values())

    def _train(self, pool: Pool, cell: Cell) -> JobFailed | None:
        """Train the federation of a cell; return what its cells fail with where a client or a defense does."""
        spec = self.spec(cell)
        name = f"{cell.system.name}" + (f" seed {cell.seed}" if len(self.suite.config.seeds) > 1 else "")

        def say(text: str) -> None:
            self.watch.say(f"{name}: {text}")

        try:
            with self.watch.federation(name, rounds=spec.task.training.rounds) as progress:
                ensure_trained(pool, spec, self.out, progress=progress, say=say)
        except JobFailed as error:
            return error
        return None

    def _measure(self, pool: Pool, cell: Cell, trained: Future[JobFailed | None]) -> Outcome:
        if cell.blind:
            return Outcome("unsupported", [], 0.0, cell.blind)
        if failure := trained.result():
            return Outcome("failed", [], 0.0, f"the federation was not trained: {failure.note}", details=str(failure))
        start = time.monotonic()
        try:
            with self.watch.cell(cell.label):
                measured = self._scores(pool, cell)
        except JobTimeout:
            limit = self.suite.config.attack_seconds
            note = f"longer than {limit:g} s, the suite's attack_seconds"
            return Outcome("timeout", [], time.monotonic() - start, note)
        except JobFailed as error:
            return Outcome("failed", [], time.monotonic() - start, error.note, details=str(error))
        return Outcome("ok", measured.value, measured.seconds, peak_bytes=measured.peak_bytes)

    def _scores(self, pool: Pool, cell: Cell) -> Timed:
        spec = self.spec(cell)
        if cell.kind == "bandwidth":
            start = time.monotonic()
            scores = measure_bandwidth(Transcript(self.out / "transcripts" / spec.key))
            return Timed(scores, time.monotonic() - start)
        if cell.kind == "utility":
            return pool.submit(timed, measure_utility, spec, self.out, near=spec.key).result()  # type: ignore[no-any-return]
        assert cell.threat
        assert cell.attack
        attack = AttackSpec(
            threat=cell.threat,
            name=cell.attack.name,
            label=cell.attack.label,
            config=cell.attack.config,
            candidates=self.suite.config.candidates,
            insiders=self._insiders,
        )
        seconds = self.suite.config.attack_seconds
        return pool.submit(timed, measure_leakage, spec, self.out, attack, seconds=seconds, near=spec.key).result()  # type: ignore[no-any-return]

    def _commit(self, journal: Journal, cell: Cell, outcome: Outcome) -> None:
        outcome = self._explained(cell, outcome)
        if outcome.status in ("failed", "timeout"):
            self.failures += 1
            self.watch.say(f"{cell.label}: {outcome.status}: {outcome.note}")
        records = list(self._records(cell, outcome))
        journal.append(records)
        self._remember(records)
        self.watch.committed(cell.label)

    def _explained(self, cell: Cell, outcome: Outcome) -> Outcome:
        """Keep everything that is known of a failure in a file, and name it in the note."""
        name = f"errors/{self.key(cell)}.txt"
        if not outcome.details:
            (self.out / name).unlink(missing_ok=True)  # of a former try
            return outcome
        write_atomic(self.out / name, f"{cell.label}\n\n{outcome.details}\n".encode("utf-8", "backslashreplace"))
        if self.debug:
            self.watch.say(outcome.details)
        return replace(outcome, note=f"{outcome.note} (traceback: {name})")

    def _remember(self, records: Iterable[Record]) -> None:
        for record in records:
            self._twins.setdefault(record.key, {})[record.metric] = record

    def _records(self, cell: Cell, outcome: Outcome) -> Iterator[Record]:
        scores = outcome.scores or [Score("none", None, headline=True, note=outcome.note)]
        key = self.key(cell)
        twin = self._twins.get(self.key(self.plan.twin(cell)), {}) if cell.kind == "leakage" else {}
        for score in scores:
            yield Record(
                suite=self.suite.config.name,
                task=cell.task,
                system=cell.system.name,
                seed=cell.seed,
                kind=cell.kind,
                threat=cell.threat.label if cell.threat else None,
                attack=cell.attack.label if cell.attack else None,
                goal=cell.attack.cls.goal.value if cell.attack else None,
                status=outcome.status,
                metric=score.metric,
                value=score.value,
                low=score.low,
                high=score.high,
                n=score.n,
                control=score.control,
                leakage=score.leakage,
                leakage_low=score.leakage_low,
                leakage_high=score.leakage_high,
                validated=self._validated(cell, score, twin),
                headline=score.headline,
                note=score.note,
                seconds=round(outcome.seconds, 3),
                key=key,
                peak_bytes=outcome.peak_bytes,
            )

    def _validated(self, cell: Cell, score: Score, twins: Mapping[str, Record]) -> bool | None:
        if cell.kind == "utility":
            return score.learned
        own = cell.system.name == cell.system.twin
        return validated(score, score if own else twins.get(score.metric))


def default_workers() -> int:
    """Return the number of processors this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
