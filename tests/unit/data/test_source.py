# ruff: noqa: E501  (one case per line)
"""Files as they come: what is read, and what is refused with its file and line."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from fairway import fingerprint
from fairway.contract.settings import DataSettings
from fairway.data import source
from fairway.data.source import read_table
from fairway.errors import DataError, SettingsError


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
        ("foot.parquet", whole[:-100] + b"\xff" * 92 + whole[-8:], "can't be read as Parquet"),
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

    def slow(path: Path, file: str) -> pl.DataFrame:
        frame = read(path, file)
        path.write_bytes(b"a,b\n1,3\n")
        return frame

    monkeypatch.setattr(source, "_read", slow)
    with pytest.raises(DataError, match="changed while it was read"):
        read_table("t.csv", tmp_path)


def test_too_large_and_elsewhere_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(tmp_path / "t.parquet", pl.DataFrame({"a": range(100)}))
    monkeypatch.setattr(source, "MAX_CELLS", 99)
    with pytest.raises(DataError, match="at most 99 values"):
        read_table("t.parquet", tmp_path)
    with pytest.raises(SettingsError, match="not supported yet"):
        read_table(DataSettings(sql="select 1"), tmp_path)
    with pytest.raises(SettingsError, match="is an address"):
        read_table("s3://bucket/t.parquet", tmp_path)
