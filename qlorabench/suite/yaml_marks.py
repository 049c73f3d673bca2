"""Read YAML and remember the line of every key and item, so that a problem can say where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..errors import Problem, SuiteError

Place = tuple[str | int, ...]
"""Keys and list positions from the top of a document down to one value."""

_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)
_INT = re.compile(r"[-+]?(?:0x[0-9a-fA-F_]+|0b[01_]+|0|[1-9][0-9_]*)$")
MOST_NODES = 100_000
"""Keys, items and values of a suite at most, each counted as often as aliases repeat it."""
MOST_LEVELS = 50
"""How deep mappings and lists may stand in each other."""
_PLAIN_WORDS = (
    (r"character '\\t' that cannot", "a tab stands where YAML allows spaces only; indent with spaces"),
    (r"character ('.') that cannot", r"a value cannot start with \1; put it in quotes"),
    (
        "mapping values are not allowed",
        "an unexpected ':'; check the indentation, and quote text that holds ': '",
    ),
    ("expected <block end>", "this line does not fit its neighbours; check the indentation and the '-'"),
    ("could not find expected ':'", "a key without its ':'"),
    (r"expected ',' or '(.)'", r"a bracket is not closed; expected ',' or '\1'"),
    ("unexpected end of stream", "a quote is not closed"),
    ("undefined alias '(.*)'", r"'*\1' refers to an anchor that is not defined"),
    ("another document", "a suite is one document; remove the '---'"),
    ("constructor for the tag", "tags such as '!name' are not allowed"),
    ("unhashable key", "a key must be plain text, not a list or a mapping"),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader limited to JSON's types: ``1e-3`` is a number; a date, ``12:30``, ``010`` and ``off`` stay text."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of ``node``; a wrong number such as ``0x_`` is an error with a line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError) as error:
            words = f"'{node.value}' cannot be read as a value of its kind; put text in quotes"
            raise yaml.constructor.ConstructorError(None, None, words, node.start_mark) from error


_Loader.yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (*_TAGS, None)}
_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if not pair[0].endswith((":bool", ":float", ":int", ":timestamp"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_TAGS[1], re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_TAGS[3], _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver(_TAGS[2], _INT, list("-+0123456789"))


@dataclass(frozen=True)
class MarkedDocument:
    """The data of a YAML file, and the line of each of its parts."""

    data: dict[Any, Any]
    """Mappings, lists and scalars of JSON's types."""
    root: yaml.Node | None = field(default=None, repr=False, compare=False)
    """The parsed nodes; ``None`` for data that was not read from a file, and so has no lines."""

    def line(self, path: Sequence[str | int], /) -> int | None:
        """Return the line, from 1, of the key or item at ``path``, or of its nearest existing parent."""
        node, line = self.root, _line(self.root)
        for part in path:
            steps = [(mark, child) for key, mark, child in _children(node) if str(key) == str(part)]
            if not steps:
                break
            node, line = steps[-1][1], _line(steps[-1][0])
        return line


def yaml_path(path: Sequence[str | int]) -> str:
    """Return a path as in ``systems.frozen.defenses[0].rank``; unusual keys are quoted, ``['a b']``."""
    plain = re.compile(r"[\w()-]+")
    parts = (f".{p}" if isinstance(p, str) and plain.fullmatch(p) and len(p) <= 80 else f"[{_key(p)}]" for p in path)
    return "".join(parts).removeprefix(".")


def _key(part: str | int) -> str:
    return repr(part) if isinstance(part, int) or len(part) <= 80 else f"{part[:76]!r} ..."


def load_marked(text: str, *, file: str) -> MarkedDocument:
    """Parse ``text``; raise SuiteError on bad syntax, double keys, no mapping at the top, or more than is allowed.

    What aliases and merge keys would grow to is counted before any of them is followed.
    """
    data: Any = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        problems = [*_top_problems(root), *_size_problems(root)]
        problems = problems or list(_node_problems(root, at=(), above=set(), done=set()))
        if not problems:
            data = loader.construct_document(root)
    except (yaml.YAMLError, RecursionError) as error:
        raise SuiteError(file, [_syntax_problem(error, text=text)]) from error
    if problems:
        raise SuiteError(file, problems)
    return MarkedDocument(data=data, root=root)


def _top_problems(root: yaml.Node | None) -> Iterator[Problem]:
    if root is None or root.tag == _TAGS[0]:
        yield Problem("", "the file is empty; expected a mapping of keys to values", 1)
    elif not isinstance(root, yaml.MappingNode):
        found = "a list" if isinstance(root, yaml.SequenceNode) else f"'{root.value}'"
        yield Problem("", f"expected a mapping of keys to values, found {found}", _line(root))


def _size_problems(root: yaml.Node | None) -> Iterator[Problem]:
    nodes, levels = _extent(root, known={})
    if nodes > MOST_NODES:
        words = f"the file is too large: {nodes:,} keys and values with what its aliases repeat; at most {MOST_NODES:,}"
        yield Problem("", words)
    if levels > MOST_LEVELS:
        yield Problem("", f"nested too deeply: {levels} levels, at most {MOST_LEVELS}")


def _extent(node: yaml.Node | None, *, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return how many nodes and how many levels ``node`` has, aliases written out; each node is looked at once."""
    if id(node) not in known:
        known[id(node)] = (0, 0)  # inside of itself, which `_node_problems` refuses
        inside = [_extent(child, known=known) for _, _, child in _children(node)]
        keys = len(inside) if isinstance(node, yaml.MappingNode) else 0
        known[id(node)] = (
            1 + keys + sum(nodes for nodes, _ in inside),
            max((levels for _, levels in inside), default=0) + (not isinstance(node, yaml.ScalarNode)),
        )
    return known[id(node)]


def _node_problems(node: yaml.Node | None, *, at: Place, above: set[int], done: set[int]) -> Iterator[Problem]:
    """Yield double keys and aliases that hold themselves, each once however often they are referred to."""
    if id(node) in above:
        yield Problem(yaml_path(at), "an alias ('*name') stands inside its own anchor", _line(node))
    if node is None or id(node) in done:
        return
    done.add(id(node))
    if isinstance(node, yaml.ScalarNode) and not _is_text(node.value):
        yield Problem(yaml_path(at), "half a surrogate pair is no text; write the whole character", _line(node))
    first: dict[tuple[str, str], int | None] = {}
    for part, mark, child in _children(node):
        key = (mark.tag, str(part))
        if isinstance(part, str) and not _is_text(part):
            yield Problem(yaml_path(at), "half a surrogate pair in a key is no text", _line(mark))
        if isinstance(node, yaml.MappingNode) and key in first:
            yield Problem(yaml_path((*at, part)), f"double key; it stands in line {first[key]} too", _line(mark))
        first.setdefault(key, _line(mark))
        yield from _node_problems(child, at=(*at, part), above=above | {id(node)}, done=done)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _children(node: yaml.Node | None) -> list[tuple[str | int, yaml.Node, yaml.Node]]:
    """Return (key or index, node that marks its line, node of its value) of a mapping or a list."""
    if isinstance(node, yaml.MappingNode):
        return [(_name(key), key, value) for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [(index, item, item) for index, item in enumerate(node.value)]
    return []


def _name(key: yaml.Node) -> str:
    return key.value if isinstance(key, yaml.ScalarNode) else "?"


def _line(node: yaml.Node | None) -> int | None:
    return None if node is None else node.start_mark.line + 1


def _syntax_problem(error: Exception, *, text: str) -> Problem:
    """Say a parser's error in plain words, with its line."""
    if isinstance(error, yaml.reader.ReaderError):
        words = f"the character {chr(error.character)!r} is not allowed in YAML"
        return Problem("", words, text.count("\n", 0, error.position) + 1)
    if isinstance(error, RecursionError):
        return Problem("", "nested too deeply")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    words = _plain_words(getattr(error, "problem", None) or str(error))
    return Problem("", words, mark.line + 1 if mark else None)


def _plain_words(problem: str) -> str:
    for pattern, words in _PLAIN_WORDS:
        if found := re.search(pattern, problem):
            return found.expand(words)
    return problem
