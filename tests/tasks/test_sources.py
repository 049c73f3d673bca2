import json
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from qlorabench.errors import UserError
from qlorabench.tasks import sources
from qlorabench.tasks.local_files import CsvSource, JsonlSource, ParquetSource, TextSource
from qlorabench.tasks.sources import HubSource, RottenTomatoesSource, SmsSpamSource, Source

ROWS = [
    {"text": "good, really\nfine", "label": "pos", "film": "a"},
    {"text": "bad", "label": "neg", "film": "b"},
    {"text": "", "label": "neg", "film": "b"},
    {"text": 'a "great" one', "label": "pos", "film": "b"},
]
FILE_SOURCES = [CsvSource, JsonlSource, ParquetSource]


def write_csv(file, rows):
    def cell(value):
        return '"' + str(value).replace('"', '""') + '"'

    lines = [list(rows[0]), *[row.values() for row in rows]]
    file.write_text("".join(",".join(map(cell, line)) + "\n" for line in lines), newline="")


def write(cls, file, rows=ROWS):
    if cls is CsvSource:
        write_csv(file, rows)
    elif cls is JsonlSource:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), file)


def source(cls, **options):
    return cls(**({"path": "reviews.data", "text": "text", "label": "label"} | options))


def csv(tmp_path, content, **options):
    (tmp_path / "reviews.data").write_bytes(content if isinstance(content, bytes) else content.encode())
    return source(CsvSource, **options).load(base=tmp_path)


@pytest.mark.parametrize("cls", FILE_SOURCES)
def test_the_same_rows_come_from_every_format(cls, tmp_path):
    write(cls, tmp_path / "reviews.data")
    made = source(cls, group="film").load(base=tmp_path)
    assert made.name == "reviews.data"
    assert made.texts == tuple(row["text"] for row in ROWS if row["text"])
    assert (made.label_names, made.labels) == (("neg", "pos"), (1, 0, 1))
    assert made.groups == {"film": ("a", "b", "b")}
    assert made.dropped == 1


@pytest.mark.parametrize("cls", FILE_SOURCES)
def test_an_absolute_path_needs_no_base(cls, tmp_path):
    write(cls, tmp_path / "reviews.data")
    assert len(source(cls, path=str(tmp_path / "reviews.data")).load()) == 3


@pytest.mark.parametrize("cls", FILE_SOURCES)
def test_missing_columns_are_named_with_the_ones_there_are(cls, tmp_path):
    write(cls, tmp_path / "reviews.data")
    with pytest.raises(UserError) as caught:
        source(cls, text="txt", group="actor").load(base=tmp_path)
    for part in ("'txt'. Did you mean 'text'", "'actor'", "text, label, film"):
        assert part in str(caught.value)


@pytest.mark.parametrize("cls", FILE_SOURCES)
def test_a_missing_file_is_told_with_a_near_one(cls, tmp_path):
    write(cls, tmp_path / "review.data")
    with pytest.raises(UserError, match=r"does not exist.*Did you mean 'review\.data'"):
        source(cls).load(base=tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        source(cls, path="no/reviews.data").load(base=tmp_path)


@pytest.mark.parametrize("cls", FILE_SOURCES)
def test_one_label_is_no_task(cls, tmp_path):
    write(cls, tmp_path / "reviews.data", [ROWS[0], ROWS[3]])
    with pytest.raises(UserError, match="column 'label' holds only 'pos' in 2 rows"):
        source(cls).load(base=tmp_path)


@pytest.mark.parametrize("cls", FILE_SOURCES)
def test_a_file_that_is_something_else_is_told(cls, tmp_path):
    (tmp_path / "reviews.data").write_bytes(b"\x80\x81\x00\xff" * 50)
    with pytest.raises(UserError, match=f"cannot read .*reviews.data as {cls.name}"):
        source(cls).load(base=tmp_path)


def test_a_column_that_pyarrow_cannot_convert_is_told(tmp_path, monkeypatch):
    def unable(*_, **__):
        raise pa.ArrowNotImplementedError("no conversion of such a column")

    write(ParquetSource, tmp_path / "reviews.data")
    monkeypatch.setattr(parquet, "read_table", unable)
    with pytest.raises(UserError, match=r"cannot read .*reviews.data as parquet: no conversion of such a column"):
        source(ParquetSource).load(base=tmp_path)


@pytest.mark.parametrize("cls", FILE_SOURCES)
def test_an_empty_file_is_told(cls, tmp_path):
    (tmp_path / "reviews.data").write_bytes(b"")
    with pytest.raises(UserError, match=r"reviews\.data"):
        source(cls).load(base=tmp_path)


@pytest.mark.parametrize("cls", [JsonlSource, ParquetSource])
def test_typed_labels(cls, tmp_path):
    write(cls, tmp_path / "reviews.data", [{"text": f"t{i}", "label": i != 1} for i in range(3)])
    assert source(cls).load(base=tmp_path).label_names == ("False", "True")
    write(cls, tmp_path / "reviews.data", [{"text": f"t{i}", "label": i / 2} for i in range(3)])
    with pytest.raises(UserError, match="column 'label' holds float"):
        source(cls).load(base=tmp_path)


@pytest.mark.parametrize("cls", [JsonlSource, ParquetSource])
def test_null_is_left_out_and_counted(cls, tmp_path):
    write(cls, tmp_path / "reviews.data", [*ROWS[:2], {"text": "t", "label": None, "film": "a"}])
    assert source(cls).load(base=tmp_path).dropped == 1


def test_csv_options(tmp_path):
    made = csv(tmp_path, 'text\tlabel\nsay "no\tx\ncafé\ty\n'.encode("latin-1"), delimiter="\t", quote="",
               encoding="latin-1")  # fmt: skip
    assert made.texts == ('say "no', "café")


def test_csv_byte_order_mark(tmp_path):
    assert csv(tmp_path, "\ufefftext,label\na,x\nb,y\n").texts == ("a", "b")


def test_csv_with_a_header_alone(tmp_path):
    with pytest.raises(UserError, match="nothing in 0 rows"):
        csv(tmp_path, "text,label\n")


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("text,label\na,b,x\n", {}, "line 2 has 3 columns, the header has 2.*Check 'delimiter'"),
        ("text,label\na\n", {}, "line 2 has 1 columns"),
        ('text,label\n"a,x\nb,y\n', {}, "unexpected end of data.*'quote'"),
        ("text,label,text\na,x,b\n", {}, "stands twice"),
        (b"text,label\ncaf\xe9,x\n", {}, "not utf-8; set 'encoding'"),
        ("text,label\n", {"encoding": "utf-9"}, "no encoding 'utf-9'"),
        ("text;label\na;x\n", {}, "no column 'text'.*Columns: text;label"),
    ],
)
def test_csv_mistakes_are_told(tmp_path, content, options, said):
    with pytest.raises(UserError, match=said):
        csv(tmp_path, content, **options)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a", "label": 1}\n\n{"text"\n', "line 3 is not JSON"),
        ("[1, 2]\n", "line 1 is not a JSON object"),
        ('{"text": "\\ud800", "label": 1}\n{"text": "a", "label": 2}\n', "row 1: .*surrogate"),
    ],
)
def test_jsonl_mistakes_are_told(tmp_path, content, said):
    (tmp_path / "reviews.data").write_text(content)
    with pytest.raises(UserError, match=said):
        source(JsonlSource).load(base=tmp_path)


def test_a_key_may_be_missing_from_some_lines_of_jsonl(tmp_path):
    write(JsonlSource, tmp_path / "reviews.data", [*ROWS, {"text": "no label"}])
    assert source(JsonlSource).load(base=tmp_path).dropped == 2


class FakeData(dict):
    """As much of a hub data set as the source touches."""

    def __init__(self, columns, names=None):
        super().__init__(columns)
        self.column_names = list(columns)
        self.features = {name: SimpleNamespace() for name in columns}
        if names:
            self.features["label"].names = names


def hub(monkeypatch, answer):
    def load_dataset(path, name, **options):
        assert (path, name, options["split"], options["revision"]) == ("some/data", None, "train", "v1")
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return HubSource(dataset="some/data", split="train", text="text", label="label", revision="v1").load()


def test_hub_keeps_the_order_of_its_classes(monkeypatch):
    data = FakeData({"text": ["a", "b", "c"], "label": [0, 1, -1]}, names=["pos", "neg"])
    made = hub(monkeypatch, data)
    assert (made.name, made.label_names, made.labels) == ("some/data (train)", ("pos", "neg"), (0, 1))
    assert made.dropped == 1


def test_hub_with_plain_labels(monkeypatch):
    assert hub(monkeypatch, FakeData({"text": ["a", "b"], "label": ["y", "x"]})).label_names == ("x", "y")


def test_hub_missing_column(monkeypatch):
    with pytest.raises(UserError, match=r"some/data \(train\).*'text'.*Columns: sentence, label"):
        hub(monkeypatch, FakeData({"sentence": ["a"], "label": [1]}))


@pytest.mark.parametrize("error", [ConnectionError("offline"), ValueError("unknown split"), Exception("http")])
def test_hub_failures_are_told(monkeypatch, error):
    with pytest.raises(UserError, match=f"cannot load some/data .*{error}"):
        hub(monkeypatch, error)


def test_hub_without_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'qlorabench\[hub\]'"):
        HubSource(dataset="a", split="b", text="c", label="d").load()


class Packaged:
    """Stands in for a packaged file that is already in the cache."""

    def __init__(self, path):
        self.path = path

    def fetch(self):
        return self.path


def test_sms_spam_reads_unquoted_lines(monkeypatch, tmp_path):
    (tmp_path / "spam.csv").write_text('ham\tsay "hi\nspam\twin\tnow\n', "utf-8")
    monkeypatch.setattr(sources, "SMS_SPAM_PACKAGE", Packaged(tmp_path / "spam.csv"))
    made = SmsSpamSource().load()
    assert (made.texts, made.labels) == (('say "hi', "win\tnow"), (0, 1))


def test_rotten_tomatoes_leaves_out_plots_and_empty_reviews(monkeypatch, tmp_path):
    import bz2

    lines = "category,text,movie_name\nplot,p,a\nfresh,good,a\nrotten,bad,b\nrotten,,b\n"
    (tmp_path / "rt.bz2").write_bytes(bz2.compress(lines.encode()))
    monkeypatch.setattr(sources, "ROTTEN_TOMATOES_PACKAGE", Packaged(tmp_path / "rt.bz2"))
    made = RottenTomatoesSource().load()
    assert (made.texts, made.label_names, made.dropped) == (("good", "bad"), ("fresh", "rotten"), 1)
    assert made.groups == {"film": ("a", "b")}


@pytest.mark.slow
def test_the_real_sms_spam():
    made = SmsSpamSource().load()
    unique, removed = made.deduplicated()
    assert (len(made), len(unique), removed.removed, made.dropped) == (4862, 4534, 328, 0)
    assert (made.label_names, made.label_counts) == (("ham", "spam"), (4220, 642))


@pytest.mark.slow
def test_the_real_rotten_tomatoes():
    made = RottenTomatoesSource().load()
    unique, removed = made.deduplicated()
    assert (len(made), len(unique), removed.removed, made.dropped) == (12808, 12752, 56, 0)
    assert (made.label_names, made.label_counts) == (("fresh", "rotten"), (7403, 5405))
    assert len(set(made.groups["film"])) == 508


@pytest.mark.parametrize("cls", [*FILE_SOURCES, TextSource, HubSource, SmsSpamSource, RottenTomatoesSource])
def test_sources_describe_themselves(cls):
    assert issubclass(cls, Source)
    assert 0 < len(cls.description) <= 90
    assert "\n" not in cls.description
    assert all(info.description for info in cls.model_fields.values())
    assert cls.model_config["frozen"]
    assert cls.model_config["extra"] == "forbid"


def test_unknown_options_are_refused():
    with pytest.raises(ValidationError):
        source(CsvSource, texts="text")
