import math

import pytest

from qlorabench.errors import SuiteError
from qlorabench.suite.yaml_marks import MarkedDocument, load_marked, yaml_path

TEXT = """\
name: demo

systems:
  frozen:
    defenses:
      - frozen-a
      - dp-sgd:
          clip_norm: 1e-3
  plain: {}
"""


def refused(text):
    with pytest.raises(SuiteError) as caught:
        load_marked(text, file="s.yaml")
    return caught.value


def test_data():
    data = load_marked(TEXT, file="s.yaml").data
    assert data["systems"]["frozen"]["defenses"] == ["frozen-a", {"dp-sgd": {"clip_norm": 0.001}}]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("name",), 1),
        (("systems",), 3),
        (("systems", "frozen", "defenses", 0), 6),
        (("systems", "frozen", "defenses", 1, "dp-sgd", "clip_norm"), 8),
        (("systems", "plain"), 9),
        (("systems", "plain", "defenses", 3), 9),
        (("systems", "frozen", "defenses", 7), 5),
        (("attacks",), 1),
    ],
)
def test_line_of_key_item_or_nearest_parent(path, line):
    assert load_marked(TEXT, file="s.yaml").line(path) == line


def test_data_without_a_file_have_no_lines():
    assert MarkedDocument(data={"a": 1}).line(["a"]) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("+1e+2", 100.0),
        ("-2.5e-3", -2.5e-3),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000.5", 1000.5),
        ("-.inf", -math.inf),
        ("12", 12),
        ("1_000", 1000),
        ("'1e-3'", "1e-3"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1.2.3", "1.2.3"),
        ("2024-01-31", "2024-01-31"),
        ("true", True),
        ("FALSE", False),
        ("off", "off"),
        ("no", "no"),
        ("010", "010"),
        ("12:30", "12:30"),
        ("0x1f", 31),
        ("null", None),
    ],
)
def test_scalars(text, value):
    found = load_marked(f"a: {text}", file="s.yaml").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_nan():
    assert math.isnan(load_marked("a: .nan", file="s.yaml").data["a"])


def test_double_keys_are_all_told():
    error = refused("a: 1\nb:\n  - c: 1\n    c: 2\na: 3\n")
    assert [(p.path, p.line) for p in error.problems] == [("b[0].c", 4), ("a", 5)]
    assert "it stands in line 1 too" in str(error)


def test_double_key_on_one_line():
    assert [p.path for p in refused("a: {b: 1, b: 2}").problems] == ["a.b"]


def test_anchors_and_merge_keys():
    document = load_marked("base: &b {x: 1,\n  y: 2}\nmore:\n  <<: *b\n  y: 3\nsame: *b\n", file="s.yaml")
    assert document.data["more"] == {"x": 1, "y": 3}
    assert document.data["same"] == {"x": 1, "y": 2}
    assert document.line(["more", "y"]) == 5
    assert document.line(["same"]) == 6


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "the file is empty"),
        ("# only a comment\n", 1, "the file is empty"),
        ("---\n", 1, "the file is empty"),
        ("- 1\n- 2", 1, "expected a mapping of keys to values, found a list"),
        ("hello", 1, "found 'hello'"),
        ("a:\n\tb: 2", 2, "a tab stands where YAML allows spaces only"),
        ("a: 1\nb: @x", 2, "a value cannot start with '@'; put it in quotes"),
        ("a: 1\nb: c: d", 2, "an unexpected ':'"),
        ("a:\n  - 1\n b: 2", 3, "check the indentation"),
        ("a: 1\nb\nc: 2", 3, "a key without its ':'"),
        ("a: [1, 2", 1, "a bracket is not closed; expected ',' or ']'"),
        ("a: {b: 1", 1, "a bracket is not closed; expected ',' or '}'"),
        ("a: 'x", 1, "a quote is not closed"),
        ("a: *z", 1, "'*z' refers to an anchor that is not defined"),
        ("a: 1\n---\nb: 1", 2, "a suite is one document"),
        ("a: !!python/name:os.system x", 1, "tags such as '!name' are not allowed"),
        ("a: !!set {x}", 1, "tags such as '!name' are not allowed"),
        ("a: {{b}}", 1, "a key must be plain text"),
        ("a: &x [1, *x]", 1, "stands inside its own anchor"),
        ("a: 1\nb: \x01", 2, "the character '\\x01' is not allowed"),
        ("a: 1\nb: 0x_", 2, "'0x_' cannot be read"),
        ("a: 1\nb: !!int ten", 2, "'ten' cannot be read"),
        ("a: !!bool maybe", 1, "'maybe' cannot be read"),
        ('a: "\\q"', 1, "found unknown escape character 'q'"),
    ],
)
def test_refused_with_line_and_plain_words(text, line, words):
    (problem,) = refused(text).problems
    assert words in problem.message
    assert problem.line == line


def test_nested_too_deeply():
    assert "nested too deeply" in str(refused("[" * 1000))


def test_error_names_the_file():
    assert str(refused("")).startswith("s.yaml: 1 problem\n")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("a", "b-c", 0, "d"), "a.b-c[0].d"),
        (("a", "x y", "v1.0"), "a['x y']['v1.0']"),
        ((0, "a"), "[0].a"),
    ],
)
def test_yaml_path(path, text):
    assert yaml_path(path) == text
