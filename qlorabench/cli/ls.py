"""``qlorabench ls``: what is installed."""

from __future__ import annotations

from importlib.resources import files
from textwrap import fill
from typing import Any

from qlorabench.errors import UserError
from qlorabench.plugins import Group, registry
from qlorabench.terminal import plain, plain_line


def print_listing(what: str) -> None:
    """Print the known attacks, defenses, threat models, tasks or suites."""
    if what == "threats":
        _print_threats()
    elif what == "suites":
        _print_suites()
    else:
        _print_plugins(what)  # type: ignore[arg-type]


def _print_threats() -> None:
    from qlorabench.threats.models import presets

    for model in presets():
        print(model.name + (" (k: number of colluders)" if model.name == "colluding-clients" else ""))
        for line in model.card().splitlines():
            print(fill(line, 98, initial_indent="  ", subsequent_indent=" " * 15))
        print()


def _print_suites() -> None:
    import yaml

    for file in sorted(files("qlorabench.suites").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            print(f"{file.name.removesuffix('.yaml'):24} {yaml.safe_load(file.read_text()).get('description', '')}")


def _print_plugins(group: Group) -> None:
    found = registry(group)
    for name in found.names():
        print(plain_line(name))
        try:
            cls: Any = found.load(name)
            config = cls if group == "tasks" else cls.Config
            fields = config.model_fields.items()
        except (UserError, AttributeError) as error:  # one that is broken hides no other
            print(
                fill(f"broken: {plain_line(str(error))}", 98, initial_indent="  ", subsequent_indent="  "), end="\n\n"
            )
            continue
        print(fill(_summary(cls), 98, initial_indent="  ", subsequent_indent="  "))
        print(f"  from {plain_line(str(found.origin(name)))}")
        for field, info in fields:
            default = "required" if info.is_required() else f"default {info.default!r}"
            said = plain(f"{field:20} {info.description or ''} ({default})")
            print(fill(f"    {said}", 98, subsequent_indent=" " * 25))
        print()


def _summary(cls: Any) -> str:
    text = str(getattr(cls, "description", "") or cls.__doc__ or "").strip()
    first = text.splitlines()[0] if text else "(says nothing of itself)"
    paper = getattr(cls, "paper", "")
    return plain_line(f"{first} [{paper}]" if paper else first)
