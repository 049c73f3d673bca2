"""Files as users have them: read, or one message that says what is wrong and where."""

import csv
import gzip
import json
import math
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from qlorabench.errors import UserError
from qlorabench.tasks.dataset import Table
from qlorabench.tasks.local_files import CsvSource, JsonlSource, ParquetSource, TextSource

ROWS = "text,label\ngood,1\nbad,0\n"


def load(cls: type, file: Path, content: bytes | str, **options: Any) -> Table:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    columns = {} if cls is TextSource else {"text": "text", "label": "label"}
    return cls(**({"path": file.name} | columns | options)).load(base=file.parent)


def jsonl(file: Path, *rows: dict, **options: Any) -> Table:
    return load(JsonlSource, file, "".join(json.dumps(row) + "\n" for row in rows), **options)


def table_of(file: Path, columns: dict, **options: Any) -> Table:
    parquet.write_table(pa.table(columns), file)
    return load(ParquetSource, file, file.read_bytes(), **options)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mail.data"


def refused(said: str, cls: type, file: Path, content: bytes | str, **options: Any) -> str:
    with pytest.raises(UserError, match=said) as caught:
        load(cls, file, content, **options)
    message = str(caught.value)
    message.encode()  # what cannot be written would end in a traceback where it is printed
    assert len(message) < 2000
    return message


# ---- cells and characters


def test_a_huge_cell_is_read_and_the_limit_of_the_process_is_left_as_it_was(file: Path) -> None:
    before = csv.field_size_limit()
    huge = "word " * 60_000
    assert load(CsvSource, file, f"text,label\n{huge},1\nbad,0\n").texts == (huge, "bad")
    refused("2 columns", CsvSource, file, f"text,label,more\n{huge},1\n")
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("column", ["text", "label", "group"])
def test_half_a_surrogate_pair_is_told_with_its_row_in_every_column(file: Path, column: str) -> None:
    rows = [{"text": f"t{i}", "label": "ab"[i % 2], "group": "g"} for i in range(4)]
    rows[2][column] = "x\ud83d"
    with pytest.raises(UserError, match=rf"row 3: column '{column}' holds half a surrogate pair at character 1"):
        jsonl(file, *rows, group="group")


def test_a_whole_pair_is_a_character(file: Path) -> None:
    assert (
        load(JsonlSource, file, r'{"text": "\ud83d\ude00", "label": 1}' + '\n{"text": "a", "label": 0}').texts[0]
        == "😀"
    )


def test_names_that_no_terminal_can_show_are_escaped(file: Path) -> None:
    content = r'{"te\ud800xt": "a", "la\u001bbel": 1}'
    message = refused("There is no column 'text'", JsonlSource, file, content)
    assert r"te\ud800xt, la\x1bbel" in message


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way(file: Path, end: str) -> None:
    assert load(CsvSource, file, "\ufeff" + ROWS.replace("\n", end)).texts == ("good", "bad")
    assert load(TextSource, file, f"\ufeffone{end}{end} two {end}").texts == ("one", "two")


def test_jsonl_may_begin_with_a_byte_order_mark_and_end_lines_as_windows_does(file: Path) -> None:
    content = '\ufeff{"text": "a", "label": 1}\r\n{"text": "b", "label": 0}\r\n'
    assert load(JsonlSource, file, content).texts == ("a", "b")


# ---- labels


@pytest.mark.parametrize("cls", [JsonlSource, ParquetSource])
def test_whole_numbers_written_as_floats_are_labels_and_nan_is_none(file: Path, cls: type) -> None:
    labels = [0.0, 1.0, math.nan, 1.0]
    if cls is JsonlSource:
        made = jsonl(file, *({"text": f"t{i}", "label": v} for i, v in enumerate(labels)))
    else:
        made = table_of(file, {"text": [f"t{i}" for i in range(4)], "label": labels})
    assert (made.label_names, made.labels, made.dropped) == (("0", "1"), (0, 1, 1), 1)


@pytest.mark.parametrize("value", [0.5, math.inf])
def test_numbers_that_are_not_whole_are_no_labels(file: Path, value: float) -> None:
    with pytest.raises(UserError, match="column 'label' holds float and int"):
        jsonl(file, {"text": "a", "label": value}, {"text": "b", "label": 1.0})


def test_a_column_of_texts_is_no_column_of_labels(file: Path) -> None:
    rows = [{"text": f"t{i}", "label": f"some words {i}"} for i in range(700)]
    with pytest.raises(UserError, match=r"'label' holds 700 distinct labels in 700 rows.*up to 1,000.*at least 5 rows"):
        jsonl(file, *rows)


@pytest.mark.parametrize(
    ("labels", "rows", "fine"),
    [(20, 20, True), (21, 104, False), (21, 105, True), (1000, 5000, True), (1001, 9009, False)],
)
def test_how_many_labels_there_may_be(file: Path, labels: int, rows: int, fine: bool) -> None:
    made = [{"text": f"t{i}", "label": i % labels} for i in range(rows)]
    if fine:
        assert len(jsonl(file, *made).label_names) == labels
    else:
        with pytest.raises(UserError, match=f"{labels:,} distinct labels"):
            jsonl(file, *made)


def test_a_label_as_long_as_a_text_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match="column 'label' holds a label of 5,000 characters"):
        jsonl(file, {"text": "a", "label": "x"}, {"text": "b", "label": "y" * 5000})


def test_without_a_label_column_rows_have_none(file: Path) -> None:
    made = load(CsvSource, file, "text,label\na,\nb,\n", label=None)
    assert (made.texts, made.labelled, set(made.labels)) == (("a", "b"), False, {0})
    assert not CsvSource(path="x", text="t").labelled
    assert CsvSource(path="x", text="t", label="y").labelled


# ---- JSON


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 100_000, "line 2 is nested too deeply"),
        ('{"text": ' + "[" * 5000 + "]" * 5000 + "}", "line 2 is nested too deeply"),
        ('{"label": ' + "9" * 5000 + "}", "line 2 holds a number of too many digits"),
        ('{"text": {"a": 1}, "label": 1}', "row 2: column 'text' holds dict"),
        ("\x00" * 40, "line 2 is not JSON"),
        ('"' + "x" * 100_000, "line 2 is not JSON"),
    ],
)
def test_lines_that_are_no_rows_are_told_by_number(file: Path, line: str, said: str) -> None:
    refused(said, JsonlSource, file, '{"text": "a", "label": 0}\n' + line + "\n")


def test_a_group_is_one_value(file: Path) -> None:
    with pytest.raises(UserError, match="row 1: column 'who' holds list; a group is one value"):
        jsonl(file, {"text": "a", "label": 0, "who": ["x"]}, {"text": "b", "label": 1, "who": "y"}, group="who")


# ---- Parquet


def test_types_that_hold_text_are_read_whatever_their_width(file: Path) -> None:
    texts = ["a", "b", "a"]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        made = table_of(file, {"text": pa.array(texts).cast(kind), "label": pa.array(texts).cast(kind)})
        assert (made.texts, made.label_names) == (tuple(texts), ("a", "b"))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("label", pa.array([2**62, 1], pa.timestamp("us")), "cannot read .*mail.data as parquet"),
        ("label", pa.array([datetime(2020, 1, 1), datetime(2021, 1, 1)]), "column 'label' holds datetime"),
        ("text", pa.array([[1], [2]]), "row 1: column 'text' holds list"),
        ("text", pa.array([b"a", b"b"]), "row 1: column 'text' holds bytes"),
        ("label", pa.array([{"a": 1}, {"a": 2}]), "column 'label' holds dict"),
        ("label", pa.nulls(2), "holds nothing in 0 rows"),
    ],
)
def test_types_that_are_neither_text_nor_label_are_told(file: Path, column: str, values: pa.Array, said: str) -> None:
    columns = {"text": pa.array(["a", "b"]), "label": pa.array(["x", "y"])} | {column: values}
    with pytest.raises(UserError, match=said):
        table_of(file, columns)


def test_a_column_that_is_not_asked_for_may_hold_anything(file: Path) -> None:
    columns = {"text": ["a", "b"], "label": ["x", "y"], "when": pa.array([2**62, 1], pa.timestamp("us"))}
    assert table_of(file, columns).texts == ("a", "b")


def test_a_file_that_promises_rows_without_end_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qlorabench.tasks.local_files._MOST_ROWS", 2)
    with pytest.raises(UserError, match="it has 3 rows; 2 are the most"):
        table_of(file, {"text": ["a", "b", "c"], "label": ["x", "y", "x"]})


# ---- plain text


def test_lines_and_paragraphs(file: Path) -> None:
    content = "first line\nof one\n\n \n\nsecond\n"
    assert load(TextSource, file, content).texts == ("first line", "of one", "second")
    assert load(TextSource, file, content, unit="paragraph").texts == ("first line of one", "second")
    assert not TextSource(path="x").labelled


def test_plain_text_in_another_encoding(file: Path) -> None:
    refused("not utf-8; set 'encoding'", TextSource, file, "café".encode("latin-1"))
    assert load(TextSource, file, "café".encode("latin-1"), encoding="latin-1").texts == ("café",)


# ---- what is no table at all


@pytest.mark.parametrize("cls", [CsvSource, JsonlSource, TextSource])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(ROWS.encode()), "compressed by gzip; unpack it first"),
        (b"PK\x03\x04\x00\x00", "zip archive, or a spreadsheet"),
        (b"PAR1\x00\x00", "source 'parquet'"),
        (b"\xff\xfe" + ROWS.encode("utf-16-le"), "cannot read .*mail.data"),
        (bytes(range(256)) * 4, "cannot read .*mail.data"),
    ],
    ids=["gzip", "zip", "parquet", "utf-16", "binary"],
)
def test_a_file_of_another_kind_is_told(file: Path, cls: type, content: bytes, said: str) -> None:
    refused(said, cls, file, content)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "hex", "undefined", "a\0b"])
def test_any_name_of_an_encoding_is_an_encoding_or_told(file: Path, encoding: str) -> None:
    content = ROWS.encode("utf-16")
    if encoding == "utf-16":
        assert load(CsvSource, file, content, encoding=encoding).texts == ("good", "bad")
    else:
        refused("cannot read .*mail.data as csv", CsvSource, file, content, encoding=encoding)


@pytest.mark.parametrize("delimiter", ["\0", "\n", "\r", '"', " ", "é", "\ufeff"])
def test_a_delimiter_that_is_not_the_files_is_told(file: Path, delimiter: str) -> None:
    refused("mail.data", CsvSource, file, ROWS, delimiter=delimiter)


def test_a_header_of_many_columns_makes_no_message_of_many_lines(file: Path) -> None:
    header = ",".join(f"column {i}" for i in range(50_000))
    assert "and 49970 more" in refused("There is no column 'text'", CsvSource, file, header + "\n")
    refused("stands twice", CsvSource, file, "x" * 100_000 + "," + "x" * 100_000 + "\n")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("x" * 5000, "cannot be opened: File name too long"),
        ("a/" * 5000, "cannot be opened: File name too long"),
        ("a\0b", "cannot be opened: embedded null"),
        ("~nobody-of-that-name/x.csv", "cannot be opened"),
        (".", "is a folder. Name a file in it"),
        ("/dev/zero", "is a device or a pipe"),
        ("mail.data/x.csv", "cannot be opened: Not a directory"),
    ],
)
def test_a_path_that_is_no_file_is_told(file: Path, path: str, said: str) -> None:
    file.write_text(ROWS)
    with pytest.raises(UserError, match=said) as caught:
        CsvSource(path=path, text="text", label="label").load(base=file.parent)
    str(caught.value).encode()
    assert len(str(caught.value)) < 600


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to the superuser")
def test_a_file_that_may_not_be_read_is_told(file: Path) -> None:
    file.write_text(ROWS)
    file.chmod(0)
    with pytest.raises(UserError, match="Permission denied"):
        CsvSource(path=str(file), text="text", label="label").load()
