# ruff: noqa: E501  (one case per line)
"""Files as they come: what is read, and what is refused with its file and line."""

import contextlib
import gzip
import io
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway import fingerprint
from fairway.contract.settings import DataSettings
from fairway.data import source, source_files, source_rows
from fairway.data.parquet_foot import size_of
from fairway.data.project import load_project
from fairway.data.snapshot import snapshot
from fairway.data.source import Place, change_mark, read_table, with_dialect
from fairway.data.source_text import Dialect
from fairway.errors import DataError, SettingsError
from fairway.path.new import new


def write(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return name


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"a,b\n1,2\n", {"a": ["1"], "b": ["2"]}),
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n3,\r\n", {"a": ["1", "3"], "b": ["2", None]}),
        (b'a,b\n"x\ny",""\n"a""b","1,5"', {"a": ["x\ny", 'a"b'], "b": [None, "1,5"]}),
        ('a b,😀,__class__,class,"q""q"\n1,2,3,4,5\n'.encode(), {"a b": ["1"], "😀": ["2"], "__class__": ["3"], "class": ["4"], 'q"q': ["5"]}),
        (b"a\n1\n\n2\n", {"a": ["1", None, "2"]}),
        (b"a,b\n", {"a": [], "b": []}),
        (b"a,b\n =1+1,<b>\n", {"a": [" =1+1"], "b": ["<b>"]}),
    ],
)  # fmt: skip
def test_csv_is_read_as_text(tmp_path: Path, data: bytes, rows: dict[str, list[str | None]]) -> None:
    write(tmp_path, "t.csv", data)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(data))
    for name in ("t.csv", "t.csv.gz"):
        assert read_table(name, tmp_path).frame.to_dict(as_series=False) == rows


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"a,b\n1,2\n3\n", "t.csv: line 3 has 1 fields; the header has 2"),
        (b"a,b\n1,2\n3,4,5\n", "line 3 has 3 fields"),
        (b'a,b\n"1",2\n3\n', "line 3 has 1 fields"),
        (b"a,b\n1,2\n\n3,4\n", "line 3 has 0 fields"),
        (b'a,b\n1,2\n"3,4\n5,6\n', "line 3: a quote is opened and not closed"),
        (b'a,b\n1,"x"y\n', "line 2: a quote"),
        (b"a;b\n1;2\n", "semicolons"),
        (b"a\tb\n1\t2\n", "tabs"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        ("a,b\n1,2\né,3\n".encode("latin-1"), "line 3 is not UTF-8 (Latin-1"),
        (b"a,b\n1,\x002\n", "line 2 holds a NUL byte"),
        (b"a,b,a\n1,2,3\n", 'columns 1 and 3 are both called "a"'),
        (b"", "the file is empty"),
    ],
)
def test_a_csv_that_may_be_read_wrongly_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_table(write(tmp_path, "t.csv", data), tmp_path)
    assert says in str(caught.value) and caught.value.file == "t.csv"


def parquet(path: Path, frame: pl.DataFrame) -> bytes:
    frame.write_parquet(path)
    return path.read_bytes()


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    whole = parquet(tmp_path / "whole.parquet", pl.DataFrame({"a": range(10_000)}))
    for name, data, says in [
        ("cut.parquet", whole[: len(whole) // 2], "cut short"),
        ("magic.parquet", b"hello world", "is no Parquet file"),
        ("empty.parquet", b"", "is no Parquet file"),
        ("foot.parquet", whole[:-100] + b"\xff" * 92 + whole[-8:], "is damaged"),
        ("t.csv.gz", gzip.compress(b"a,b\n1,2\n")[:-6], "is cut or no gzip file"),
        ("t.json", b"{}", "none of the kinds"),
    ]:
        with pytest.raises(DataError) as caught:
            read_table(write(tmp_path, name, data), tmp_path)
        assert name in str(caught.value) and says in str(caught.value)
    with pytest.raises(DataError, match="no such file or folder"):
        read_table("nope.csv", tmp_path)


def test_a_folder_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    with pytest.raises(DataError, match="holds no file"):
        read_table("parts", tmp_path)
    parquet(folder / "b.parquet", pl.DataFrame({"y": [3], "x": ["c"]}))
    parquet(folder / "a.parquet", pl.DataFrame({"x": ["a", "b"], "y": [1, 2]}))
    raw = read_table(DataSettings(source="parts"), tmp_path)
    assert raw.frame.to_dict(as_series=False) == {"x": ["a", "b", "c"], "y": [1, 2, 3]}
    assert raw.files == {f"parts/{n}": fingerprint.of_file(folder / n) for n in ("a.parquet", "b.parquet")}
    assert [raw.locate(i) for i in range(3)] == [("parts/a.parquet", 1), ("parts/a.parquet", 2), ("parts/b.parquet", 1)]
    parquet(folder / "c.parquet", pl.DataFrame({"x": ["d"], "z": [1]}))
    with pytest.raises(DataError, match=r"parts/c.parquet: lacks y and has also z"):
        read_table("parts", tmp_path)
    parquet(folder / "c.parquet", pl.DataFrame({"x": ["d"], "y": ["1"]}))
    with pytest.raises(DataError, match=r"column y: is String; in parts/a.parquet it is Int64"):
        read_table("parts", tmp_path)
    write(folder, "c.csv", b"x,y\n")
    with pytest.raises(DataError, match="mixes Parquet and CSV"):
        read_table("parts", tmp_path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "t.csv", b"a,b\n1,2\n")
    read = source._read

    def slow(path: Path, file: str, dialect: Dialect) -> pl.DataFrame:
        frame = read(path, file, dialect)
        path.write_bytes(b"a,b\n1,3\n")
        return frame

    monkeypatch.setattr(source, "_read", slow)
    with pytest.raises(DataError, match="changed while it was read"):
        read_table("t.csv", tmp_path)


def test_too_large_and_elsewhere_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(tmp_path / "t.parquet", pl.DataFrame({"a": range(100)}))
    monkeypatch.setattr(source_rows, "MAX_CELLS", 99)
    with pytest.raises(DataError, match="at most 99 values"):
        read_table("t.parquet", tmp_path)
    with pytest.raises(SettingsError, match="is an address of a kind"):
        read_table("https://example.com/t.parquet", tmp_path)


# -- dialects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dialect", "rows"),
    [
        (b"a;b\n1,5;x\n2,5;y\n", Dialect(";"), [("1,5", "x"), ("2,5", "y")]),
        (b"a\tb\n1\t2\n", Dialect("\t"), [("1", "2")]),
        (b"a|b\n1|2\n", Dialect("|"), [("1", "2")]),
        (b"a;b\n1;x,y\n2;z\n", Dialect(";"), [("1", "x,y"), ("2", "z")]),
        (b'a;b\n1;"x;y"\n', Dialect(";"), [("1", "x;y")]),
        (b"a\n1\n", Dialect(), [("1",)]),
        ("a,b\n1,é\n".encode("latin-1"), Dialect(encoding="cp1252"), [("1", "é")]),
        (b"a,b\n1,\x81\n", Dialect(encoding="latin-1"), [("1", "\x81")]),
        ("a,b\n1,ü😀\n".encode("utf-16"), Dialect(encoding="utf-16"), [("1", "ü😀")]),
    ],
)  # fmt: skip
def test_a_dialect_is_found_and_then_read(
    tmp_path: Path, data: bytes, dialect: Dialect, rows: list[tuple[str, ...]]
) -> None:
    write(tmp_path, "t.csv", data)
    place = with_dialect(Place.of("t.csv"), tmp_path)
    assert place.dialect == dialect
    assert read_table(place, tmp_path).frame.rows() == rows


def test_a_declared_dialect_is_as_strict(tmp_path: Path) -> None:
    write(tmp_path, "t.csv", b"a;b\n1;2\n3\n")
    with pytest.raises(DataError, match="line 3 has 1 fields"):
        read_table(DataSettings(source="t.csv", delimiter=";"), tmp_path)
    write(tmp_path, "q.csv", b'a,b\n"5" pipe,x\n')
    with pytest.raises(DataError, match="line 2: a quote"):
        read_table("q.csv", tmp_path)
    assert read_table(DataSettings(source="q.csv", quote=""), tmp_path).frame.rows() == [('"5" pipe', "x")]
    write(tmp_path, "u.csv", "a\né\n".encode("latin-1"))
    with pytest.raises(DataError, match="has no mark of UTF-16"):
        read_table(DataSettings(source="u.csv", encoding="utf-16"), tmp_path)
    with pytest.raises(DataError, match="line 2 is not cp932, which is declared"):
        read_table(DataSettings(source="u.csv", encoding="cp932"), tmp_path)


def test_new_writes_the_dialect_down(tmp_path: Path) -> None:
    lines = [f"{i};{i % 7},5;{'yes' if i % 3 else 'no'}" for i in range(60)]
    write(tmp_path, "t.csv", "\n".join(["id;x;größe", *lines]).encode("cp1252"))
    made = new("m", "t.csv", "größe", yes=True, folder=tmp_path)
    text = (made.root / "fairway.toml").read_text()
    assert 'delimiter = ";"' in text and 'encoding = "cp1252"' in text
    assert any("semicolons" in line for _, line in made.decisions)
    assert load_project(made.root).settings.data.delimiter == ";"
    assert snapshot(load_project(made.root), now=datetime(2026, 1, 1, tzinfo=UTC)).frame["x"][:2].to_list() == [
        0.5,
        1.5,
    ]


def test_the_decimal_mark_of_the_table_counts_where_a_column_has_none(tmp_path: Path) -> None:
    write(tmp_path, "t.csv", b"x;y\n1,5;1\n2,5;0\n3,5;1\n4;0\n")
    (tmp_path / "fairway.toml").write_text(
        'format = 1\nname = "m"\ntask = "binary"\ntarget = "y"\npositive = "1"\n'
        '[data]\nsource = "t.csv"\ndelimiter = ";"\ndecimal = ","\n'
    )
    (tmp_path / "contract.toml").write_text('format = 1\n[columns.x]\ntype = "float"\n[columns.y]\ntype = "int"\n')
    project = load_project(tmp_path)
    assert sorted(snapshot(project, now=datetime(2026, 1, 1, tzinfo=UTC)).frame["x"]) == [1.5, 2.5, 3.5, 4.0]


# -- JSON lines, Delta, queries, globs -------------------------------------------------------------------------------


def test_json_lines(tmp_path: Path) -> None:
    text = '{"a": 1, "b": "x", "v": [1, 2.5]}\n\n{"b": null, "a": 2.5, "c": true}\n'
    rows = {"a": [1.0, 2.5], "b": ["x", None], "v": [[1.0, 2.5], None], "c": [None, True]}
    write(tmp_path, "t.jsonl", b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "t.ndjson.gz").write_bytes(gzip.compress(text.replace("\n", "\r\n").encode()))
    for name in ("t.jsonl", "t.ndjson.gz"):
        assert read_table(name, tmp_path).frame.to_dict(as_series=False) == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1}\n{"a": "x"}\n', 'column a: line 2: "x" is text; line 1 has a whole number'),
        ('{"a": 1}\n{"a": true}\n', "line 2: True is true or false"),
        ('{"a": 1}\n{"a":\n', "line 2 is no JSON"),
        ('{"a": 1}\n[1]\n', "line 2 is no JSON object"),
        ('{"a": 1, "a": 2}\n', 'line 1 has the key "a" twice'),
        ('{"a": {"b": 1}}\n', "line 1: holds an object"),
        ('{"a": ["x"]}\n', "a list of other things than numbers"),
        ('{"a": 9223372036854775808}\n', "is no whole number of 64 bits"),
        ('{"a": 9007199254740993}\n{"a": 0.5}\n', "no float holds exactly"),
        ('{"a": 0.5}\n{"a": 9007199254740993}\n', "no float holds exactly"),
        ('{"a": NaN}\n', "line 1 is no JSON"),
        ('{"a": "\udcff"}\n', "line 1 is no JSON"),
        ('{"a": 1}\n\x00\n', "line 2 holds a NUL byte"),
        ("", "the file is empty"),
    ],
)
def test_json_that_may_be_read_wrongly_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_table(write(tmp_path, "t.jsonl", text.encode("utf-8", "surrogateescape")), tmp_path)
    assert says in str(caught.value) and caught.value.file == "t.jsonl"


def test_a_delta_table_is_pinned_by_its_version(tmp_path: Path) -> None:
    frame = pl.DataFrame({"day": ["a", "a", "b"], "x": [1, 2, 3]})
    frame.write_delta(tmp_path / "t", delta_write_options={"partition_by": ["day"]})
    frame.write_delta(tmp_path / "t", mode="append")
    pinned = DataSettings(source="t", version=0)
    first, newest = read_table(pinned, tmp_path), read_table("t", tmp_path)
    assert first.frame.sort("x").equals(frame) and first.pinned == {"delta_version": 0}
    assert newest.frame.height == 6 and newest.pinned == {"delta_version": 1}
    assert first.content != newest.content and first.content == read_table(pinned, tmp_path).content
    assert change_mark(pinned, tmp_path) == 0 and change_mark(DataSettings(source="t"), tmp_path) == 1
    with pytest.raises(DataError, match="t: can't be read as a Delta table at version 7"):
        read_table(DataSettings(source="t", version=7), tmp_path)
    gone = next((tmp_path / "t").rglob("*.parquet"))
    gone.unlink()
    with pytest.raises(DataError, match="t: can't be read as a Delta table"):
        read_table("t", tmp_path)
    write(tmp_path, "t.csv", b"a\n1\n")
    with pytest.raises(SettingsError, match=r"version is for a Delta table, and t\.csv is none"):
        read_table(DataSettings(source="t.csv", version=1), tmp_path)


def test_a_query_of_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(tmp_path / "w.db")) as db, db:
        db.execute("create table t(a integer, b text, c real)")
        db.executemany("insert into t values(?, ?, ?)", [(i, f"x{i}", i / 2) for i in range(12_000)])

    def read(sql: str, url: str = "sqlite:///w.db") -> pl.DataFrame:
        return read_table(DataSettings(sql=sql, url=url), tmp_path).frame

    monkeypatch.setenv("WAREHOUSE", f"sqlite:///{tmp_path}/w.db")
    assert read("select * from t where b like 'x%'", "env:WAREHOUSE").equals(read("select * from t"))
    assert read("select * from t").schema == {"a": pl.Int64, "b": pl.String, "c": pl.Float64}
    for sql, says in [
        (
            "select case when a > 3 then 'x' else a end as v from t",
            'the query, row 5, column v: "x" is text; row 1 has',
        ),
        ("delete from t", "attempt to write a readonly database"),
        ("selec 1", "syntax error"),
        ("select a, b as a from t", "both called"),
    ]:
        with pytest.raises(DataError, match=says):
            read(sql)
    assert read("select count(*) as n from t")["n"].to_list() == [12_000]
    with pytest.raises(DataError, match="there is no database"):
        read("select 1 as a", "sqlite:///none.db")
    with pytest.raises(SettingsError, match="the variable NOPE is not set"):
        read("select 1 as a", "env:NOPE")
    for url in ("mysql+nope://me:secret-word@h/d", "://"):
        with pytest.raises(SettingsError) as caught:
            read("select 1 as a", url)
        assert "secret-word" not in str(caught.value)


def test_a_glob_is_one_table(tmp_path: Path) -> None:
    for name in ("2024/b.csv", "2024/a.csv", "2025/a.csv", "2025/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path, name, f"a\n{name}\n".encode())
    for pattern, found in {
        "2024/*.csv": ["2024/a.csv", "2024/b.csv"],
        "*/a.csv": ["2024/a.csv", "2025/a.csv"],
        str(tmp_path / "202[4-5]" / "?.csv"): ["2024/a.csv", "2024/b.csv", "2025/a.csv"],
        f"../{tmp_path.name}/**/a.csv": ["2024/a.csv", "2025/a.csv"],
    }.items():
        raw = read_table(pattern, tmp_path)
        assert raw.frame["a"].to_list() == found
        assert [name.removeprefix(f"{tmp_path.name}/") for name in raw.files] == found
    with pytest.raises(DataError, match="the glob holds no file"):
        read_table("2026/*.csv", tmp_path)


# -- size ------------------------------------------------------------------------------------------------------------


def test_a_file_says_its_size_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"a": ["x" * 1_000_000] * 50, "b": range(50), "c": [[1, 2]] * 50})
    for compression in ("zstd", "uncompressed", "snappy"):
        frame.write_parquet(tmp_path / "t.parquet", compression=compression, use_pyarrow=compression == "snappy")
        with (tmp_path / "t.parquet").open("rb") as file:
            assert size_of(file).rows == 50
    pl.DataFrame({"a": [i % 3 * "long " for i in range(1_000)]}).write_parquet(
        tmp_path / "bomb.parquet", row_group_size=100
    )
    with (tmp_path / "bomb.parquet").open("rb") as file:
        size = size_of(file)
    assert size.rows == 1_000 and size.unpacked_bytes > 1_000
    monkeypatch.setattr(source_files, "memory_limit", lambda: size.unpacked_bytes - 1)
    with pytest.raises(DataError, match=r"bomb\.parquet: unpacks to"):
        read_table("bomb.parquet", tmp_path)


@given(st.integers(0, 2**31 - 1), st.integers(0, 255))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_a_damaged_footer_is_refused_or_read(place: int, byte: int) -> None:
    good = _GOOD
    start = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    at = start + place % (len(good) - start)
    with contextlib.suppress(ValueError):
        assert size_of(io.BytesIO(good[:at] + bytes([byte]) + good[at + 1 :])).rows >= -(2**63)


def _good() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"a": range(10), "b": ["x"] * 10}).write_parquet(buffer)
    return buffer.getvalue()


_GOOD = _good()
