"""Hold data against pydantic models; say every mistake in a reader's words, with its YAML path and line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, RootModel, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ..errors import Problem, SuiteError, nearest
from .yaml_marks import MarkedDocument, Place, yaml_path

M = TypeVar("M", bound=BaseModel)

_LOOKED_AT = 200
"""Mistakes of one check that are put into words: more of them are never read."""
_WHOLE = "expected a whole number"
_NUMBER = "expected a number"
_LIST = "expected a list"
_MAPPING = "expected a mapping of keys to values"
_BOOL = "expected true or false"
_TEXT = "expected text"
_WANTED = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} or fewer characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} or fewer entries",
    "none_required": "must be empty",
    "int_parsing_size": "number too large",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), _BOOL),
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), _TEXT),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), _LIST),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), _MAPPING),
    "path_type": "expected a path",
    "invalid_key": "a key must be text",
}


@dataclass
class Checker:
    """Collects the problems of one document over any number of checks, to be said at once."""

    marks: MarkedDocument
    """Document that the checked data come from; it knows the lines."""
    problems: list[Problem] = field(default_factory=list)
    """What is wrong so far, each thing once."""
    more: int = 0
    """How much else is wrong that was not looked at."""

    def validate(self, model: type[M], data: Any, *, prefix: Place = ()) -> M | None:
        """Return ``data``, which stands at ``prefix`` in the document, as a ``model``.

        What is wrong goes to ``problems``, and ``None`` is returned.
        """
        try:
            return model.model_validate(data)
        except ValidationError as error:
            details = error.errors(include_url=False)
            self.more += len(details[_LOOKED_AT:])
            details = details[:_LOOKED_AT]
        for place, message in _messages(model, details).items():
            self.report((*prefix, *place), message)
        return None

    def report(self, path: Sequence[str | int], message: str) -> None:
        """Add a problem that no single model can see, at ``path`` in the document; said twice, it counts once."""
        problem = Problem(yaml_path(path), message, self.marks.line(path))
        if problem not in self.problems:
            self.problems.append(problem)

    def wrong_at(self, path: Sequence[str | int]) -> bool:
        """Tell whether anything is wrong at ``path``, inside of it, or with what it stands in."""
        own = yaml_path(path)
        return any(
            inner == outer or (inner.startswith(outer) and inner[len(outer)] in ".[")
            for problem in self.problems
            for inner, outer in ((own, problem.path), (problem.path, own))
            if outer
        )

    def finish(self, *, file: str) -> None:
        """Raise SuiteError with all problems, if there are any."""
        if self.problems:
            raise SuiteError(file, self.problems, more=self.more)


@dataclass(frozen=True)
class _Spot:
    """Where an error stands: the path without pydantic's union labels, and the types met there."""

    path: Place
    kind: Any
    """Annotation of the value; ``None`` where it is not known."""
    parent: Any
    """Annotation of the mapping or list around it."""
    alternative: bool
    """Whether the error is that of one member of a plain union, as a whole."""


def places(model: type[BaseModel], error: ValidationError) -> list[Place]:
    """Return where values are wrong, without pydantic's labels of unions."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return [_locate(model, detail["loc"]).path for detail in details[:_LOOKED_AT]]


def _messages(model: type[BaseModel], details: Sequence[ErrorDetails]) -> dict[Place, str]:
    """Return one message a place; the alternatives of a plain union are joined by 'or'."""
    spots = [(error, _locate(model, error["loc"])) for error in details if not _follows(error)]
    found: dict[Place, list[str]] = {}
    for error, spot in spots:
        deeper = any(spot.path == s.path[:-1][: len(spot.path)] for _, s in spots)
        if not (spot.alternative and deeper):
            found.setdefault(_path(error, spot=spot), []).append(_message(error, spot=spot))
    return {path: "; or ".join(dict.fromkeys(messages)) for path, messages in found.items()}


def _follows(error: ErrorDetails) -> bool:
    """Whether a list is too short only because its items are wrong, which is said of the items."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def _path(error: ErrorDetails, *, spot: _Spot) -> Place:
    """Return the spot's path; for a wrong or missing tag of a discriminated union, that of the tag."""
    tag = re.match(r"'(\w+)'", str(error.get("ctx", {}).get("discriminator", "")))
    return (*spot.path, tag[1]) if tag else spot.path


def _message(error: ErrorDetails, *, spot: _Spot) -> str:
    kind, ctx, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "missing":
        return _missing(spot)
    if kind == "extra_forbidden":
        return _unknown_key(spot)
    if kind == "union_tag_not_found":
        tags = [tag for member in _members(spot.kind) for tag in _tags(member)]
        return "missing; must be one of " + ", ".join(f"'{tag}'" for tag in tags)
    if kind in ("value_error", "assertion_error"):
        return str(ctx.get("error") or error["msg"])
    found = ctx.get("tag", ctx.get("actual_length", value))
    return f"{_wanted(error)}, found {_show(found)}{_hint(error, spot=spot)}"


def _wanted(error: ErrorDetails) -> str:
    template = _WANTED.get(error["type"])
    if template is None:
        return re.sub(r"^Input should be", "must be", error["msg"])
    return template.format_map({key: str(x).removesuffix(".0") for key, x in error.get("ctx", {}).items()})


def _hint(error: ErrorDetails, *, spot: _Spot) -> str:
    """Return how to mend it: the nearest allowed value, the keys of a mapping, quotes around a text."""
    kind, ctx, value = error["type"], error.get("ctx", {}), error["input"]
    near = nearest(
        str(ctx.get("tag", value if isinstance(value, str) else "")), re.findall(r"'([^']*)'", _wanted(error))
    )
    if kind in ("literal_error", "enum", "union_tag_invalid"):
        return f".{near}" if near else ""
    if kind in ("model_type", "model_attributes_type"):
        return f". Allowed keys: {', '.join(keys)}" if (keys := _keys(spot.kind)) else ""
    if _WANTED.get(kind) == _TEXT and isinstance(value, bool | int | float):
        return " (quote it to make it text)"
    return ""


def _missing(spot: _Spot) -> str:
    found = _field(spot.parent, spot.path[-1]) if spot.path else None
    return f"missing; {found.description}" if found and found.description else "missing"


def _unknown_key(spot: _Spot) -> str:
    name, allowed = str(spot.path[-1]), _keys(spot.parent)
    return f"unknown key '{name}'.{nearest(name, allowed)} Allowed: {', '.join(allowed) or 'none'}"


def _show(value: Any) -> str:
    """Return a value as it would stand in YAML, cut to one short piece."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, Mapping | list | tuple):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    if isinstance(value, int) and abs(value) >= 10**60:
        return "a number of more than 60 digits"
    shown = repr(value[:100] if isinstance(value, str) else value)
    return shown if len(shown) <= 60 else f"{shown[:56]} ..."


def _locate(model: type[BaseModel], loc: Place) -> _Spot:
    """Follow a pydantic location through the types; labels of union members are no part of the path."""
    path: Place = ()
    kind: Any = model
    parent: Any = None
    alternative = False
    for part in loc:
        members = _members(kind)
        alternative = len(members) > 1
        if alternative:
            kind = _choose(members, label=part)
        elif part != "[key]":
            parent, path = members[0], (*path, part)
            kind = _child(parent, part)
    return _Spot(path=path, kind=kind, parent=parent, alternative=alternative)


def _members(kind: Any) -> list[Any]:
    """Return the members of a union, None left out; of any other annotation, the bare type alone."""
    bare = _bare(kind)
    if get_origin(bare) not in (Union, UnionType):
        return [bare]
    members = [member for member in get_args(bare) if member is not NoneType]
    return members if len(members) > 1 else _members(members[0])


def _bare(kind: Any) -> Any:
    """Return an annotation without Annotated, type aliases and root models around it."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if isinstance(kind, type) and issubclass(kind, RootModel):
        return _bare(kind.model_fields["root"].annotation)
    return _bare(kind.__value__) if hasattr(kind, "__value__") else kind


def _choose(members: Sequence[Any], *, label: str | int) -> Any:
    """Return the member that pydantic's label stands for: a tag, a model's name, or as in ``list[int]``."""
    for member in members:
        bare = _bare(member)
        names = (getattr(bare, "__name__", None), getattr(get_origin(bare), "__name__", None))
        if label in _tags(member) or str(label).split("[")[0] in names:
            return member
    return None


def _tags(member: Any) -> list[str]:
    """Return the texts that can select a member of a discriminated union: all its fields of one literal."""
    explicit = [mark.tag for mark in getattr(member, "__metadata__", ()) if isinstance(mark, Tag)]
    fields = getattr(_bare(member), "model_fields", {}).values()
    literals = [get_args(f.annotation) for f in fields if get_origin(f.annotation) is Literal]
    return explicit or [str(values[0]) for values in literals if len(values) == 1]


def _child(parent: Any, part: str | int) -> Any:
    """Return the annotation of a model's field, a mapping's value or a list's item."""
    if found := _field(parent, part):
        return found.annotation
    args = [arg for arg in get_args(parent) if arg is not Ellipsis]
    by_place = get_origin(parent) is tuple and isinstance(part, int) and part < len(args)
    return args[int(part) if by_place else -1] if args else None


def _field(parent: Any, part: str | int) -> FieldInfo | None:
    fields: dict[str, FieldInfo] = getattr(parent, "model_fields", {})
    return next((f for name, f in fields.items() if part in (name, _key(name, f))), None)


def _keys(kind: Any) -> list[str]:
    """Return the keys that the model, or the members of a union of models, may have."""
    models = [getattr(_bare(member), "model_fields", {}) for member in _members(kind)]
    return list(dict.fromkeys(_key(name, f) for fields in models for name, f in fields.items()))


def _key(name: str, info: FieldInfo) -> str:
    alias = info.validation_alias
    return alias if isinstance(alias, str) else name
