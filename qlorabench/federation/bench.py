"""What a worker process holds: one frozen backbone, the prepared tasks, and the jobs it can do on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qlorabench.federation.client import Contribution, contribute
from qlorabench.federation.defense import Defense
from qlorabench.federation.facts import DefenseFacts, PublicFacts
from qlorabench.federation.model import AdapterModel, initial_state
from qlorabench.federation.protocol import Protocol
from qlorabench.federation.state import Layout, Role, State
from qlorabench.hashing import digest
from qlorabench.plugins import registry
from qlorabench.seeding import Seed
from qlorabench.suite.schema import LoraConfig, TaskConfig
from qlorabench.tasks.backbones import Backbone
from qlorabench.tasks.task import PreparedTask


@dataclass(frozen=True)
class SystemSpec:
    """One defended system on one task under one seed: all that its federation depends on."""

    key: str
    """Content hash of everything that changes the federation's bytes."""
    task: TaskConfig
    """The task with the system's overrides."""
    defenses: tuple[tuple[str, dict[str, Any]], ...]
    """Name and config of each defense, in order."""
    seed: int
    base: Path
    """Folder of the suite, for plug-ins and files given by path."""

    @property
    def random(self) -> Seed:
        """Root of the random streams of this federation.

        It follows from the settings that differ from their defaults, and not from the key: an edit of a defense's
        file or a new setting trains anew, but draws the same noise. Batches follow the root seed alone, so that
        systems are compared on the same ones.
        """
        defenses = [[d.name, d.config.model_dump(mode="json", exclude_defaults=True)] for d in self.build_defenses()]
        settings = digest([self.task.model_dump(mode="json", exclude_defaults=True), defenses])
        return Seed(self.seed, ("federation", settings))

    def build_defenses(self) -> list[Defense[Any]]:
        """Return the defenses, in order."""
        found = registry("defenses", base=self.base)
        built = []
        for name, config in self.defenses:
            cls: Any = found.load(name)
            built.append(cls(cls.Config.model_validate(config)))
        return built


@dataclass
class Bench:
    """The context of every job. The adapted model is rebuilt only when a system has another LoRA shape."""

    backbone: Backbone
    tasks: dict[int, PreparedTask]
    """Prepared data by seed."""
    memo: dict[str, bytes] = field(default_factory=dict)
    """Logits that were computed before; see `qlorabench.threats.lab.Lab`."""
    _model: tuple[LoraConfig, AdapterModel] | None = None

    def model(self, spec: SystemSpec) -> AdapterModel:
        """Return the adapted model in the shape of ``spec``, its adapter left as the last job left it."""
        if self._model is None or self._model[0] != spec.task.lora:
            if self._model is not None:
                self._model[1].unload()
            task = self.tasks[spec.seed]
            model = AdapterModel(
                self.backbone.model,
                spec.task.lora,
                classes=len(task.label_names),
                width=self.backbone.width,
                objective=spec.task.objective,
            )
            self._model = (spec.task.lora, model.eval())
        return self._model[1]

    def start(self, spec: SystemSpec, defenses: Sequence[Defense[Any]]) -> State:
        """Return the public start of every tensor, with what the defenses do to it."""
        model = self.model(spec)
        seed = Seed(spec.seed, ("public-start",))
        state = initial_state(model, head=spec.task.head, seed=seed)
        weights = model.frozen_weights()
        for defense in defenses:
            rng = seed.child(defense.name).numpy()
            state = defense.initialise(state, frozen_weights=weights, rng=rng)
        return state

    def describe(self, spec: SystemSpec) -> PublicFacts:
        """Return the public facts of a system; calibrates what has to be calibrated."""
        task = self.tasks[spec.seed]
        defenses = spec.build_defenses()
        full = self.model(spec).layout
        facts = PublicFacts(
            backbone=spec.task.backbone.name,
            lora=spec.task.lora,
            head=spec.task.head,
            training=spec.task.training,
            client_rows=tuple(len(rows) for rows in task.client_rows),
            max_length=spec.task.data.max_length,
            label_names=task.label_names,
            defenses=(),
            full=full,
            travelling=_travelling(full, spec, defenses),
            objective=spec.task.objective,
            canaries=spec.task.canaries,
        )
        return PublicFacts(
            **{
                **vars(facts),
                "defenses": tuple(
                    DefenseFacts(d.name, d.config.model_dump(mode="json"), d.public_facts(facts.schedule))
                    for d in defenses
                ),
            }
        )


def describe(bench: Bench, spec: SystemSpec) -> tuple[PublicFacts, State]:
    """Job: return the public facts and the public start of a system."""
    return bench.describe(spec), bench.start(spec, spec.build_defenses())


def train_client(
    bench: Bench,
    spec: SystemSpec,
    facts: PublicFacts,
    broadcast: bytes,
    previous: bytes | None,
    client: int,
    round: int,
) -> Contribution:
    """Job: train one client for one round; batches come back as rows of the data set.

    ``previous`` is the broadcast of the round before, ``None`` in the first.
    """
    defenses = spec.build_defenses()
    task = bench.tasks[spec.seed]
    contribution = contribute(
        bench.model(spec),
        Protocol(facts, defenses),
        task.client(client),
        broadcast,
        previous=previous,
        start=bench.start(spec, defenses),
        client=client,
        round=round,
        seed=spec.random.child("round", round, "client", client),
        draws=Seed(spec.seed, ("batches", str(round), str(client))),
    )
    rows = task.client_rows[client]
    return replace(contribution, batches=[[int(rows[i]) for i in step] for step in contribution.batches])


def _travelling(full: Layout, spec: SystemSpec, defenses: Sequence[Defense[Any]]) -> Layout:
    factors: tuple[Role, ...] = ("A", "B")
    every: tuple[Role, ...] = factors if spec.task.head.train == "frozen" else (*factors, "head")
    return full.only(*(role for role in every if all(d.trains(role) for d in defenses)))
