"""Nothing that is counted is without a bound, and no number may be infinite."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel, ValidationError

from qlorabench.plugins import registry
from qlorabench.suite.schema import SuiteConfig, TaskConfig


def parts(annotation: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield every type inside of an annotation with the constraints right at it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *marks = get_args(annotation)
        marks = [m for mark in marks for m in (getattr(mark, "metadata", None) or [mark])]
        for kind, more in parts(inner):
            yield kind, (*marks, *more)
    elif origin in (Union, types.UnionType, tuple, list, dict):
        for inner in get_args(annotation):
            yield from parts(inner)
    elif origin is not Literal:
        yield annotation, ()


def numbers(model: type[BaseModel], at: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield place and constraints of every number in a model and in the models inside of it."""
    for name, field in model.model_fields.items():
        for kind, marks in parts(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from numbers(kind, f"{at}.{name}")
            elif kind in (int, float):
                yield f"{at}.{name}", (*marks, *field.metadata)


def configs() -> list[tuple[str, type[BaseModel]]]:
    found: list[tuple[str, type[BaseModel]]] = [("suite", SuiteConfig)]
    for group in ("attacks", "defenses", "tasks"):
        known = registry(group)
        for name in known.names():
            cls: Any = known.load(name)
            found.append((name, cls if group == "tasks" else cls.Config))
    return found


@pytest.mark.parametrize(("name", "model"), configs())
def test_every_number_has_a_lower_and_an_upper_bound_and_is_finite(name: str, model: type[BaseModel]) -> None:
    by_validator = {"suite.tasks.rows_per_client"}  # one number or a list: a bound there would be told twice
    for place, marks in numbers(model, name):
        kinds = tuple(type(mark) for mark in marks)
        assert place in by_validator or {annotated_types.Le, annotated_types.Lt} & set(kinds), place
        assert place in by_validator or {annotated_types.Ge, annotated_types.Gt} & set(kinds), place
    assert model.model_config.get("allow_inf_nan") is False


@pytest.mark.parametrize("rows", [0, 10**30])
def test_rows_are_bounded_too(rows: int) -> None:
    with pytest.raises(ValidationError, match="from 1 to"):
        TaskConfig.model_validate({"backbone": {"name": "toy"}, "data": {"source": "toy"}, "rows_per_client": rows})
