"""Runs a plan: trains each federation once, measures its cells, and writes the journal in the plan's order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlorabench.engines.federations import ensure_trained
from qlorabench.engines.folder import held
from qlorabench.engines.foreseen import Foreseen, source_of
from qlorabench.engines.keys import cell_key, federation_key
from qlorabench.engines.measure import measure_bandwidth, measure_leakage, measure_utility
from qlorabench.engines.null import null_seed
from qlorabench.engines.outcome import Outcome
from qlorabench.engines.pool import JobFailed, JobTimeout, Pool, Timed, in_order, nothing, timed
from qlorabench.engines.scene import AttackSpec
from qlorabench.engines.sharing import share
from qlorabench.engines.watch import Watch
from qlorabench.errors import TaskError, UserError
from qlorabench.federation.bench import Bench, SystemSpec
from qlorabench.federation.transcript import Transcript
from qlorabench.files import write_atomic
from qlorabench.records.journal import Journal
from qlorabench.records.planned import planned, write_plan
from qlorabench.suite.plan import Cell, Plan
from qlorabench.suite.resolve import ResolvedSuite
from qlorabench.threats.claims import Goal

if TYPE_CHECKING:
    from qlorabench.tasks.backbones import Backbone
    from qlorabench.tasks.task import PreparedTask


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
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Content hashes and sizes of each task's data and backbone, for the manifest."""

    def execute(self, *, before: Callable[[Run], None] = lambda _: None) -> None:
        """Run what is missing; ``before`` is called once data and backbones are known."""
        with held(self.out):
            self._execute(before)

    def _execute(self, before: Callable[[Run], None]) -> None:
        journal = Journal(self.out / "records.jsonl")
        journal.recover()
        for line in self.plan.added_twins:
            self.watch.say(line)
        loaded = {task: self._load(task) for task in self.suite.systems}
        before(self)
        finished = journal.finished_keys()
        config = self.suite.config
        write_plan(self.out, planned(config.name, config.version, {self.key(c): c for c in self.plan.cells}))
        for task, (backbone, prepared) in loaded.items():
            cells = [c for c in self.plan.cells if c.task == task and self._wanted(c)]
            missing = [cell for cell in cells if self.key(cell) not in finished]
            self.watch.planned(cells=len(cells), done=len(cells) - len(missing))
            if missing:
                nulls = [other for cell in missing if (other := self._null(cell))]
                seeds = sorted({cell.seed for cell in [*missing, *nulls]})
                loaded_backbone = self._backbone(task, backbone)
                self._run_task(loaded_backbone, {seed: prepared[seed] for seed in seeds}, missing, journal)

    def _wanted(self, cell: Cell) -> bool:
        return self.only is None or cell.matches(self.only)

    def _load(self, task: str) -> tuple[Foreseen, dict[int, PreparedTask]]:
        """Return a task's backbone and its data under each seed; says what was left out."""
        from qlorabench.tasks.backbones import load_backbone, load_tokenizer
        from qlorabench.tasks.task import data_seed, deal, deal_report, load_data, tokenize

        config, seeds = self.suite.config.tasks[task], self.suite.config.seeds
        self.watch.say(f"{task}: {config.backbone.name} and its data")
        where: Any = {"base": self.suite.base, "objective": config.objective}
        with _placed(task):
            data = load_data(config, base=self.suite.base)
            backbone = Foreseen(
                source_of(config.backbone, **where),
                self.out / "inputs.json",
                lambda: load_backbone(config.backbone, **where),
            )
            corpus = tokenize(config, data, load_tokenizer(config.backbone, base=self.suite.base))
            report = deal_report(config, corpus, seeds=seeds)
            prepared = {seed: deal(config, corpus, seed=data_seed(seed)) for seed in seeds}
            sha256 = backbone.sha256
        for line in report.lines():
            self.watch.say(f"{task}: {line}")
        self.facts[task] = {
            "backbone": config.backbone.name,
            "backbone_sha256": sha256,
            "data": corpus.table.name,
            "data_sha256": corpus.fingerprint,
            **report.facts(),
        }
        for system in self.suite.systems[task].values():
            for seed in self.suite.config.seeds:
                key = federation_key(system, seed=seed, data=corpus.fingerprint, backbone=sha256)
                spec = SystemSpec(key, system.task, system.defenses, seed, self.suite.base)
                self._specs[task, system.name, seed] = spec
        return backbone, prepared

    def _backbone(self, task: str, foreseen: Foreseen) -> Backbone:
        """Return the loaded backbone of a task that has work to do; says which layers its adapters go on."""
        from qlorabench.tasks.inspection import check_positions
        from qlorabench.tasks.targets import summarised

        config = self.suite.config.tasks[task]
        with _placed(task):
            backbone = foreseen.loaded
            check_positions(config.data.max_length, backbone.facts.positions, backbone=backbone.name)
            matched = backbone.facts.match(config.lora.targets)
        for target, layers in matched.items():
            self.watch.say(f"{task}: target '{target}': {summarised(layers)}")
        return backbone

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
        other = self._null(cell)
        null = self.spec(other).key if other else None
        return cell_key(
            cell, federation=federation, twin=twin, suite=self.suite.config, insiders=self._insiders, null=null
        )

    def _null(self, cell: Cell) -> Cell | None:
        """Return the cell of another seed whose federation is the control of a membership attack's."""
        if cell.attack is None or cell.blind or cell.attack.cls.goal not in (Goal.MEMBERSHIP, Goal.VERIFICATION):
            return None
        seed = null_seed(cell.seed, self.suite.config.seeds)
        return None if seed is None else replace(cell, seed=seed)

    def _run_task(
        self, backbone: Backbone, prepared: dict[int, PreparedTask], missing: list[Cell], journal: Journal
    ) -> None:
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
                needed = {"the federation": trained[key]}
                if (other := self._null(cell)) is not None:
                    # before the cell that waits for it: drivers take what is queued first, so that none waits in vain
                    null = self.spec(other).key
                    if null not in trained:
                        trained[null] = drivers.submit(self._train, pool, other)
                    needed[f"its control, the federation of seed {other.seed},"] = trained[null]
                futures[cell.label] = drivers.submit(self._measure, pool, cell, needed)
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

    def _measure(self, pool: Pool, cell: Cell, trained: dict[str, Future[JobFailed | None]]) -> Outcome:
        if cell.blind:
            return Outcome("unsupported", [], 0.0, cell.blind)
        for name, federation in trained.items():
            if failure := federation.result():
                return Outcome("failed", [], 0.0, f"{name} was not trained: {failure.note}", details=str(failure))
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
        other = self._null(cell)
        attack = AttackSpec(
            threat=cell.threat,
            name=cell.attack.name,
            label=cell.attack.label,
            config=cell.attack.config,
            candidates=self.suite.config.candidates,
            insiders=self._insiders,
            null=self.spec(other) if other else None,
        )
        seconds = self.suite.config.attack_seconds
        return pool.submit(timed, measure_leakage, spec, self.out, attack, seconds=seconds, near=spec.key).result()  # type: ignore[no-any-return]

    def _commit(self, journal: Journal, cell: Cell, outcome: Outcome) -> None:
        outcome = self._explained(cell, outcome)
        if outcome.status in ("failed", "timeout"):
            self.failures += 1
            self.watch.say(f"{cell.label}: {outcome.status}: {outcome.note}")
        journal.append(outcome.records(cell, suite=self.suite.config.name, key=self.key(cell)))
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


@contextmanager
def _placed(task: str) -> Iterator[None]:
    """Say of what is wrong with the inputs of a task which task it is, and which of its keys, where that is known."""
    try:
        yield
    except UserError as error:
        place = f".{error.place}" if isinstance(error, TaskError) else ""
        raise UserError(f"tasks.{task}{place}: {error}") from error


def default_workers() -> int:
    """Return the number of processors this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
