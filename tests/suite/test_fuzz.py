"""Mutated suites: a plan, or one message with a place, never more than a screen, and no other error."""

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qlorabench.errors import SuiteError, UserError
from qlorabench.suite.loading import load_suite
from qlorabench.suite.plan import make_plan
from qlorabench.terminal import plain

BASE = """\
name: base
seeds: [0, 1]
candidates: 40
attack_seconds: 60
tasks:
  t:
    backbone: {name: toy}
    data: {source: {toy: {rows: 200}}, max_length: 12, test_rows: 40, holdout_rows: 40}
    clients: 2
    rows_per_client: [8, 20]
    partition: {kind: dirichlet, alpha: 0.3}
    lora: {rank: 4, alpha: 8, targets: [query, key, value]}
    head: {train: shared, scale: 1.0}
    training: {rounds: 2, local_steps: 1, batch_size: 4, optimizer: {kind: sgd, lr: 0.3, head_lr: 0.3}}
  lm:
    backbone: {name: toy-lm}
    objective: language-modeling
    data: {source: toy, max_length: 16}
    rows_per_client: 20
    lora: {targets: [q_proj]}
    canaries: {count: 4}
systems:
  plain: {}
  q: {defenses: [quantized-broadcast: {bits: 4}, dp-sgd: {epsilon: 8}], override: {training: {rounds: 3}}, note: x}
threats: [server, client, colluding-clients: {k: 1}]
attacks: [calibrated-loss, span, attention-words: {above: 2.5}]
""".replace("colluding-clients: {k: 1}", "end-user")
DATA: Any = yaml.safe_load(BASE)

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -1, 0, 2**63, 10**400, 1e308, -0.0, float("inf"), float("-inf"), float("nan"), 5e-324]),
    st.text(max_size=12),
    st.sampled_from(
        ["", "x" * 3000, "[/red]", "\x1b[2J", "\u202e", "a\nb", "../x.py:Y", "/dev/null", "toy", "span", "*"]
    ),
    st.sampled_from([[], {}, [[]], {"": None}, {"a": {"b": [1]}}, ["span", "span"], {1: 2}, {"span": {"tries": -1}}]),
    st.recursive(
        st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
    ),
    st.integers(100, 400).map(lambda n: list(range(n))),
    st.integers(45, 120).map(lambda n: nested(n)),
)


SCRAPS = [
    *("\t", "\0", "\ufeff", "\x85", "&a ", "*a", "<<: *a", "---\n", "!!python/object:os.system ", "- ", ": ", "? "),
    *(
        "{",
        "}",
        "[",
        "'",
        '"',
        "\n",
        "%",
        "|",
        ">",
        "#",
        "1e999",
        "0x" + "f" * 5000,
        "\U0001f600",
        "&x [*x]",
        "[" * 2000,
    ),
]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in data, the top included."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, inner in inside for place in places(inner, (*at, key)))]


def changed(value: Any, place: tuple[Any, ...], change: Any) -> Any:
    """Return ``value`` with ``change(old)`` at ``place``; ``...`` in its stead takes it away."""
    if not place:
        return change(value)
    items = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    items[place[0]] = changed(items[place[0]], place[1:], change)
    kept = {key: item for key, item in items.items() if item is not ...}
    return kept if isinstance(value, dict) else list(kept.values())


@st.composite
def mutated_data(draw: st.DrawFn) -> str:
    """Data with one to three values replaced, removed, doubled, or under another key."""
    data = DATA
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(data)))
        odd = draw(ODD)
        kind = draw(st.sampled_from(["replace", "remove", "double", "key"]))
        if kind == "replace" or not place:
            data = changed(data, place, lambda _, odd=odd: odd)
        elif kind == "remove":
            data = changed(data, place, lambda _: ...)
        elif kind == "double":
            data = changed(data, place, lambda old: [old, old])
        else:
            name = draw(st.one_of(st.text(max_size=8), st.integers(), st.just("k" * 500)))
            data = changed(
                data, place[:-1], lambda old, name=name, odd=odd: {**old, name: odd} if isinstance(old, dict) else odd
            )
    return yaml.safe_dump(data, allow_unicode=True, sort_keys=False)


@st.composite
def mutated_text(draw: st.DrawFn) -> str:
    """Text with some characters or lines taken out, put in, or repeated."""
    text = BASE
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        insert = draw(
            st.one_of(st.just(""), st.sampled_from(SCRAPS), st.text(max_size=5), st.just(text[start:end] * 2))
        )
        text = text[:start] + insert + text[end:]
    return text


def outcome(text: str) -> None:
    """Load a suite: a plan or a message comes out of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suite.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            assert make_plan(load_suite(path)).cells
            return
        except UserError as error:
            told = error
    lines = str(told).splitlines()
    assert str(path) in lines[0]
    if isinstance(told, SuiteError):
        assert all(line.startswith("  ") for line in lines[1:])
        assert len(lines) > len(told.problems[:20])
    assert len(lines) <= 22
    assert max(map(len, lines)) <= 1000
    assert all(line == plain(line) for line in lines)


BOUNDED = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@settings(BOUNDED, max_examples=60)
@given(mutated_data())
def test_mutated_data_give_a_plan_or_a_message(text: str) -> None:
    outcome(text)


@settings(BOUNDED, max_examples=60)
@given(mutated_text())
def test_mutated_text_gives_a_plan_or_a_message(text: str) -> None:
    outcome(text)
