import math
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    Tag,
    field_validator,
    model_validator,
)

from qlorabench.errors import SuiteError
from qlorabench.suite.validation import Checker
from qlorabench.suite.yaml_marks import MarkedDocument, load_marked


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DpSgd(Part):
    kind: Literal["dp-sgd"]
    clip_norm: float = Field(gt=0, description="largest L2 norm of an example's gradient")
    epsilon: float | None = Field(default=None, gt=0, lt=100, allow_inf_nan=False)


class Quantized(Part):
    kind: Literal["quantized"]
    bits: Literal[2, 4, 8] = 4
    block: int = Field(default=64, ge=2, le=4096, multiple_of=2)


class Mean(StrEnum):
    FACTORS = "factors"
    PRODUCT = "product"


class Layers(RootModel[list[int]]):
    pass


Defense = Annotated[DpSgd | Quantized, Field(discriminator="kind")]


def _shape(value: Any) -> str:
    return "many" if isinstance(value, list) else "one"


class System(Part):
    rank: int = Field(default=4, ge=1, le=64)
    defenses: list[Defense] = Field(default=[], max_length=2)
    main: Defense | None = None
    mean: Mean = Mean.FACTORS
    alpha: float = 1.0
    frozen: bool = False
    note: str = Field(default="", min_length=0, max_length=5)
    code: str = Field(default="ab", min_length=2, pattern="^[a-z]+$")
    targets: tuple[str, ...] = Field(default=("q",), min_length=1)
    span: tuple[int, int] = (0, 1)
    clients: int | Literal["all"] | list[int] = "all"
    plugin: str | dict[str, dict[str, int]] = "x"
    layers: Layers = Layers([1])
    seeds: set[int] = set()
    empty: None = None
    picked: Annotated[Annotated[int, Tag("one")] | Annotated[list[int], Tag("many")], Discriminator(_shape)] = 0
    learning_rate: float = Field(default=0.1, validation_alias="lr", lt=1)

    @field_validator("note")
    @classmethod
    def _polite(cls, note: str) -> str:
        if note == "bad":
            raise ValueError("a note may not be 'bad'")
        return note

    @model_validator(mode="after")
    def _consistent(self) -> "System":
        if self.rank == 13:
            raise AssertionError("rank 13 brings bad luck")
        return self


class Suite(Part):
    name: str = Field(description="name of the suite")
    rounds: int = Field(default=1, ge=1)
    systems: dict[Annotated[str, Field(pattern="^[a-z]+$")], System] = Field(default={}, min_length=0)


def problems(data, *, model=Suite, prefix=()):
    checker = Checker(MarkedDocument(data={}))
    assert checker.validate(model, data, prefix=prefix) is None
    return {problem.path: problem.message for problem in checker.problems}


def of_system(**parts):
    return problems({"name": "n", "systems": {"s": parts}})


@pytest.mark.parametrize(
    ("parts", "path", "message"),
    [
        ({"rank": 0}, "rank", "must be at least 1, found 0"),
        ({"rank": 65}, "rank", "must be at most 64, found 65"),
        ({"lr": 1.0}, "lr", "must be less than 1, found 1.0"),
        ({"rank": "abc"}, "rank", "expected a whole number, found 'abc'"),
        ({"rank": []}, "rank", "expected a whole number, found a list"),
        ({"rank": None}, "rank", "expected a whole number, found nothing"),
        ({"rank": 1.5}, "rank", "expected a whole number, found 1.5"),
        ({"alpha": "x"}, "alpha", "expected a number, found 'x'"),
        ({"alpha": {}}, "alpha", "expected a number, found a mapping"),
        ({"frozen": "maybe"}, "frozen", "expected true or false, found 'maybe'"),
        ({"frozen": []}, "frozen", "expected true or false, found a list"),
        ({"note": 3}, "note", "expected text, found 3 (quote it to make it text)"),
        ({"note": False}, "note", "expected text, found false (quote it to make it text)"),
        ({"note": []}, "note", "expected text, found a list"),
        ({"note": "sixsix"}, "note", "must have 5 or fewer characters, found 'sixsix'"),
        ({"code": "a"}, "code", "must have 2 or more characters, found 'a'"),
        ({"code": "A1"}, "code", "must match the pattern ^[a-z]+$, found 'A1'"),
        ({"note": "bad"}, "note", "a note may not be 'bad'"),
        (
            {"mean": "factor"},
            "mean",
            "must be 'factors' or 'product', found 'factor'. Did you mean 'factors'?",
        ),
        ({"defenses": "x"}, "defenses", "expected a list, found 'x'"),
        ({"defenses": [{"kind": "quantized"}] * 3}, "defenses", "must have 2 or fewer entries, found 3"),
        ({"targets": "q"}, "targets", "expected a list, found 'q'"),
        ({"targets": []}, "targets", "must have 1 or more entries, found 0"),
        ({"span": [1, 2, 3]}, "span", "must have 2 or fewer entries, found 3"),
        ({"span": [1]}, "span[1]", "missing"),
        ({"span": [1, "x"]}, "span[1]", "expected a whole number, found 'x'"),
        ({"seeds": 3}, "seeds", "expected a list, found 3"),
        ({"layers": [1, "x"]}, "layers[1]", "expected a whole number, found 'x'"),
        ({"empty": 1}, "empty", "must be empty, found 1"),
        ({"picked": ["x"]}, "picked[0]", "expected a whole number, found 'x'"),
        ({"picked": "x"}, "picked", "expected a whole number, found 'x'"),
    ],
)
def test_values(parts, path, message):
    assert of_system(**parts) == {f"systems.s.{path}": message}


@pytest.mark.parametrize(
    ("defense", "path", "message"),
    [
        ({"kind": "dp-sgd"}, ".clip_norm", "missing; largest L2 norm of an example's gradient"),
        ({"kind": "dp-sgd", "clip_norm": 0}, ".clip_norm", "must be greater than 0, found 0"),
        (
            {"kind": "dp-sgd", "clip_norm": 1, "epsilon": math.inf},
            ".epsilon",
            "must be a finite number, found inf",
        ),
        ({"kind": "quantized", "bits": "4"}, ".bits", "must be 2, 4 or 8, found '4'"),
        ({"kind": "quantized", "block": 3}, ".block", "must be a multiple of 2, found 3"),
        (
            {"kind": "quantized", "bit": 4},
            ".bit",
            "unknown key 'bit'. Did you mean 'bits'? Allowed: kind, bits, block",
        ),
        (
            {"kind": "dp_sgd"},
            ".kind",
            "must be one of 'dp-sgd', 'quantized', found 'dp_sgd'. Did you mean 'dp-sgd'?",
        ),
        ({"clip_norm": 1}, ".kind", "missing; must be one of 'dp-sgd', 'quantized'"),
        (
            "dp-sgd",
            "",
            "expected a mapping of keys to values, found 'dp-sgd'. Allowed keys: kind, clip_norm, epsilon, bits, block",
        ),
    ],
)
def test_discriminated_unions_leave_no_tag_in_the_path(defense, path, message):
    assert of_system(defenses=[defense]) == {f"systems.s.defenses[0]{path}": message}
    assert of_system(main=defense) == {f"systems.s.main{path}": message}


def test_plain_union_says_its_alternatives_in_one_problem():
    assert of_system(clients="al") == {
        "systems.s.clients": "expected a whole number, found 'al'; or must be 'all', found 'al'. "
        "Did you mean 'all'?; or expected a list, found 'al'"
    }


def test_plain_union_with_a_problem_further_in_keeps_to_it():
    assert of_system(clients=[1, "x"]) == {"systems.s.clients[1]": "expected a whole number, found 'x'"}
    assert of_system(plugin={"p": {"q": "x"}}) == {"systems.s.plugin.p.q": "expected a whole number, found 'x'"}


def test_too_short_only_for_wrong_items_is_not_told():
    assert of_system(targets=[3]) == {"systems.s.targets[0]": "expected text, found 3 (quote it to make it text)"}


def test_unknown_missing_and_misspelt_at_the_top():
    assert problems({"roundz": 3}) == {
        "name": "missing; name of the suite",
        "roundz": "unknown key 'roundz'. Did you mean 'rounds'? Allowed: name, rounds, systems",
    }


def test_unknown_key_with_aliases_and_without_a_near_one():
    (message,) = of_system(zzz=1).values()
    assert message.startswith("unknown key 'zzz'. Allowed: rank, defenses,")
    assert message.endswith(", lr")


def test_keys_of_mappings():
    found = problems({"name": "n", "systems": {"a b": {}, 3: {}}})
    assert found["systems['a b']"] == "must match the pattern ^[a-z]+$, found 'a b'"
    assert found["systems[3]"] == "expected text, found 3 (quote it to make it text)"


def test_key_that_is_no_text():
    assert problems({"name": "n", 3: 1}) == {"[3]": "a key must be text, found 3"}


def test_wrong_mappings():
    assert problems({"name": "n", "systems": [1]}) == {"systems": "expected a mapping of keys to values, found a list"}
    assert problems([1]) == {
        "": "expected a mapping of keys to values, found a list. Allowed keys: name, rounds, systems"
    }


def test_assertions_of_a_model_stand_at_the_model():
    assert of_system(rank=13) == {"systems.s": "rank 13 brings bad luck"}


def test_other_errors_keep_pydantics_words():
    class Frozen(Part):
        names: frozenset[str] = frozenset()
        data: bytes = b""

    assert problems({"data": 3}, model=Frozen) == {"data": "must be a valid bytes, found 3"}
    assert problems({"names": 3}, model=Frozen) == {"names": "expected a list, found 3"}


def test_long_values_are_cut():
    assert len(of_system(note="x" * 500)["systems.s.note"]) < 120


def test_lines_prefix_and_several_checks():
    document = load_marked("name: n\nsystems:\n  s:\n    rank: 0\n    defenses:\n    - kind: no\n", file="s.yaml")
    checker = Checker(document)
    assert checker.validate(System, document.data["systems"]["s"], prefix=("systems", "s")) is None
    checked = checker.validate(Suite, {"name": "n"})
    assert checked == Suite(name="n")
    checker.report(["systems", "s", "absent"], "does not fit")
    assert [(p.path, p.line) for p in checker.problems] == [
        ("systems.s.rank", 4),
        ("systems.s.defenses[0].kind", 6),
        ("systems.s.absent", 3),
    ]
    with pytest.raises(SuiteError, match="3 problems"):
        checker.finish(file="s.yaml")


def test_finish_without_problems():
    Checker(MarkedDocument(data={})).finish(file="s.yaml")
