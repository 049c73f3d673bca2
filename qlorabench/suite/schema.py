"""The suite file as typed models: tasks x defended systems x threat models x attacks x seeds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from qlorabench.tasks.canaries import CanaryConfig
from qlorabench.tasks.partitions import IidPartition, Partition

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]
"""A name that is safe in paths, tables and patterns."""

Reference = str | dict[str, dict[str, Any] | None]
"""A plug-in in a suite: its name, or a mapping of its one name to its configuration."""

T = TypeVar("T")

Objective = Literal["classification", "language-modeling"]
"""What clients train: to tell a text's label, or to tell its next token."""
Dropout = Literal["off", "model"] | Annotated[float, Field(gt=0, lt=1)]
"""Dropout while clients train."""
ENCODERS = ("minilm-l6", "toy")
"""Backbones by name that predict no next token."""


MOST_ROWS = 10_000_000
"""Texts of one client at most."""
LARGEST = 1e30
"""The largest number a suite may hold: float32, in which models compute, ends at 3e38."""


class Model(BaseModel):
    """Base of every part of a suite: frozen, unknown keys refused, numbers finite and bounded."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def refuse_twice(values: tuple[T, ...]) -> tuple[T, ...]:
    """Return ``values``; raises ValueError where one of them is listed twice, with its places."""
    first: dict[T, int] = {}
    for i, value in enumerate(values):
        if value in first:
            raise ValueError(f"{value} is listed twice, at places {first[value]} and {i} (counted from 0)")
        first[value] = i
    return values


class BackboneConfig(Model):
    """The frozen public language model under the adapters."""

    name: str = Field(
        min_length=1,
        max_length=1000,
        description="`minilm-l6` (an encoder, from its package), `smollm2-135m` (a causal language model: the instruct "
        "model's Q4_1 weights of its package, dequantized), a directory with a saved model, a hub name, or `toy` and "
        "`toy-lm` for trials",
    )
    revision: str | None = Field(
        default=None, max_length=200, description="hub revision to pin; none for the default one"
    )
    bits: Literal[4, 8] | None = Field(
        default=None, description="load the frozen weights in 4 (NF4, QLoRA) or 8 bits through bitsandbytes"
    )


class DataConfig(Model):
    """Which texts, and how many are kept away from every client."""

    source: Reference = Field(description="a data source by name, with its options where it has any")
    max_length: int = Field(default=32, ge=4, le=4096, description="tokens kept of a text, special ones included")
    test_rows: int = Field(default=1000, ge=20, le=1_000_000, description="texts on which utility is measured")
    holdout_rows: int = Field(
        default=600, ge=4, le=1_000_000, description="texts nobody trains on: non-members and negative controls"
    )


class LoraConfig(Model):
    """The adapter: W = W0 + (alpha / rank) B A."""

    rank: int = Field(default=8, ge=1, le=1024, description="rank r of the adapter")
    alpha: float = Field(
        default=16.0, gt=0, le=1e6, description="scaling numerator; the product is scaled by alpha / rank"
    )
    targets: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        default=("query", "key", "value"),
        min_length=1,
        max_length=100,
        description="last part of the adapted modules' names; of a Llama, q_proj, k_proj, v_proj",
    )

    @field_validator("targets")
    @classmethod
    def _each_once(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        return refuse_twice(targets)


class HeadConfig(Model):
    """The classification head on the mean of the token representations."""

    train: Literal["frozen", "shared"] = Field(
        default="frozen",
        description="`frozen` at its public random start, or trained and `shared` like the factors",
    )
    scale: float = Field(default=1.0, gt=0, le=1e6, description="standard deviation of the head's start, times sqrt(d)")


class OptimizerConfig(Model):
    """The clients' local optimizer; public, since attacks depend on it. It starts anew every round."""

    kind: Literal["sgd", "adamw"] = Field(default="sgd", description="`sgd` or `adamw`")
    lr: float = Field(default=0.5, gt=0, le=LARGEST, description="learning rate of the factors")
    head_lr: float | None = Field(
        default=None, gt=0, le=LARGEST, description="learning rate of a shared head; the same if absent"
    )
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0, description="momentum of sgd")
    weight_decay: float = Field(default=0.0, ge=0.0, le=1e6, description="decoupled weight decay of adamw")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="how the rate goes over the rounds: constant, or down to zero"
    )


class TrainingConfig(Model):
    """The federated schedule."""

    rounds: int = Field(default=20, ge=1, le=100_000, description="communication rounds")
    local_steps: int = Field(default=4, ge=1, le=100_000, description="optimizer steps of a client in a round")
    batch_size: int = Field(
        default=16,
        ge=1,
        le=100_000,
        description="examples in a local step; at most a quarter of the client's rows, at least one",
    )
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="local optimizer")
    dropout: Dropout = Field(
        default="off",
        description="dropout while clients train: `off` (the most that an update can show, and how the published "
        "attacks were measured), `model` (the rates that the backbone was made with), or one rate everywhere",
    )
    weighting: Literal["uniform", "examples"] = Field(
        default="uniform", description="weights of the aggregate: equal, or the clients' numbers of examples"
    )


class TaskConfig(Model):
    """A backbone, a data set split over clients, an adapter and a schedule."""

    backbone: BackboneConfig = Field(description="frozen public model")
    objective: Objective = Field(
        default="classification",
        description="`classification` of the labels, or `language-modeling`: next tokens, without a head",
    )
    data: DataConfig = Field(description="data set")
    clients: int = Field(default=4, ge=1, le=10_000, description="number of clients; all take part in every round")
    rows_per_client: int | tuple[Annotated[int, Field(ge=1, le=MOST_ROWS)], ...] = Field(
        description="texts of each client: one number for all, or a list with one for each"
    )
    partition: Partition = Field(default=IidPartition(kind="iid"), description="how texts are dealt to clients")
    lora: LoraConfig = Field(default=LoraConfig(), description="adapter")
    head: HeadConfig = Field(default=HeadConfig(), description="classification head")
    training: TrainingConfig = Field(default=TrainingConfig(), description="federated schedule")
    canaries: CanaryConfig | None = Field(
        default=None, description="made-up secrets among the clients' texts, for `language-modeling`; none if absent"
    )

    @model_validator(mode="after")
    def _fits_the_objective(self) -> TaskConfig:
        if self.objective == "classification":
            if self.canaries:
                raise ValueError("canaries need 'objective: language-modeling': a classifier completes no text")
            return self
        if self.head.train == "shared":
            raise ValueError(
                "head.train is 'shared', but with 'objective: language-modeling' there is no head; drop it"
            )
        if self.backbone.name in ENCODERS:
            raise ValueError(
                f"backbone '{self.backbone.name}' is an encoder and predicts no next token; 'objective: "
                "language-modeling' needs a causal language model, such as smollm2-135m (or toy-lm for trials)"
            )
        return self

    @model_validator(mode="after")
    def _one_size_for_each_client(self) -> TaskConfig:
        sizes = self.rows_per_client
        if isinstance(sizes, tuple) and len(sizes) != self.clients:
            raise ValueError(f"rows_per_client lists {len(sizes)} numbers for {self.clients} clients")
        if isinstance(sizes, int) and not 1 <= sizes <= MOST_ROWS:
            raise ValueError(f"rows_per_client must be from 1 to {MOST_ROWS:,}")
        return self

    @property
    def sizes(self) -> list[int]:
        """Rows of the data set asked for each client."""
        sizes = self.rows_per_client
        return [sizes] * self.clients if isinstance(sizes, int) else list(sizes)

    @property
    def examples(self) -> list[int]:
        """Texts that each client is asked to train on, copies of canaries included."""
        copies = self.canaries.copies(self.clients) if self.canaries else [0] * self.clients
        return [size + extra for size, extra in zip(self.sizes, copies, strict=True)]


class SystemConfig(Model):
    """A defended system: an ordered list of defenses, and what it changes of the task."""

    defenses: tuple[Reference, ...] = Field(
        default=(), max_length=50, description="defenses in order; none is plain LoRA"
    )
    override: dict[str, Any] = Field(
        default={},
        description="parts of the task (`lora`, `head`, `training`) that this system sets otherwise",
    )
    note: str = Field(default="", max_length=300, description="one line for the leaderboard's readers")

    @model_validator(mode="after")
    def _only_what_a_system_may_set(self) -> SystemConfig:
        wrong = sorted(set(self.override) - {"lora", "head", "training"})
        if wrong:
            raise ValueError(f"override: cannot set {', '.join(wrong)}; allowed: head, lora, training")
        return self


class SuiteConfig(Model):
    """A whole suite."""

    name: Name = Field(description="name of the suite; its runs go to runs/<name>/")
    version: int = Field(
        default=1, ge=1, le=1_000_000, description="raised when results of the suite stop being comparable"
    )
    description: str = Field(default="", max_length=10_000, description="what the suite is for")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(
        default=(0,), min_length=1, max_length=1000, description="root seeds; every cell is run once for each"
    )
    tasks: dict[Name, TaskConfig] = Field(min_length=1, max_length=50, description="tasks by name")
    systems: dict[Name, SystemConfig] = Field(min_length=1, max_length=200, description="defended systems by name")
    threats: tuple[Reference, ...] = Field(default=(), max_length=50, description="threat models")
    attacks: tuple[Reference, ...] = Field(default=(), max_length=100, description="attacks")
    candidates: int = Field(
        default=300,
        ge=2,
        le=1_000_000,
        description="most members, and as many non-members, that a membership game asks about",
    )
    attack_seconds: float = Field(
        default=600.0,
        gt=0,
        le=7 * 24 * 3600,
        description="wall-clock limit of one attack on one system; past it the cell is a timeout",
    )

    @field_validator("seeds")
    @classmethod
    def _each_seed_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return refuse_twice(seeds)

    @model_validator(mode="after")
    def _plain_system_for_controls(self) -> SuiteConfig:
        if not any(not system.defenses for system in self.systems.values()):
            raise ValueError(
                "systems: one must have no defenses: it is the baseline and the positive control of every attack"
            )
        return self
