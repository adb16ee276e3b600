"""Tables from a real Postgres and from an S3 API: the same rows, and the same refusals, as from a file."""

import gzip
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pytest
import sqlalchemy as sa
from obstore.store import S3Store

from fairway.contract.settings import DataSettings
from fairway.data import source, source_s3, source_sql
from fairway.data.source import change_mark, read_table
from fairway.errors import DataError, SettingsError
from fairway.path.new import new
from fairway.store.engine import make_engine

ROWS = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "ü"]})


# -- Postgres --------------------------------------------------------------------------------------------------------


@pytest.fixture
def warehouse(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    engine = make_engine(postgres_url)
    with engine.begin() as tx:
        tx.execute(sa.text(
            "create table t (id bigint, at timestamptz, day date, x double precision, n numeric(12, 2), f boolean,"
            " s text, u uuid, v double precision[], b bytea)"
        ))  # fmt: skip
        tx.execute(
            sa.text(
                "insert into t select i, timestamptz '2014-01-01 00:00+02' + i * interval '1 hour',"
                " date '2014-01-01' + i,"
                " i / 2.0, i * 1.25, i % 2 = 0, case when i % 3 = 0 then null else 'text 100% ' || i end,"
                " '00000000-0000-0000-0000-000000000001', array[i, 0.5],"
                " '\\x00ff'::bytea from generate_series(1, 25000) i"
            )
        )
        tx.execute(sa.text("create sequence ids"))
    engine.dispose()
    monkeypatch.setenv("WAREHOUSE_URL", postgres_url)
    return postgres_url


def query(sql: str, root: Path) -> pl.DataFrame:
    return read_table(DataSettings(sql=sql, url="env:WAREHOUSE_URL"), root).frame


def test_a_query_gives_typed_rows_in_chunks(warehouse: str, tmp_path: Path) -> None:
    found = query("select * from t order by id", tmp_path)
    assert found.height == 25_000 > 2 * source_sql.CHUNK_ROWS
    assert dict(found.schema) == {
        "id": pl.Int64, "at": pl.Datetime("us", "UTC"), "day": pl.Date, "x": pl.Float64, "n": pl.Float64,
        "f": pl.Boolean, "s": pl.String, "u": pl.String, "v": pl.List(pl.Float64), "b": pl.Binary,
    }  # fmt: skip
    assert found.row(2) == (
        3, datetime(2014, 1, 1, 1, tzinfo=UTC), date(2014, 1, 4), 1.5, float(Decimal("3.75")), False, None,
        "00000000-0000-0000-0000-000000000001", [3.0, 0.5], b"\x00\xff",
    )  # fmt: skip
    assert query("select s from t where s like '%0\\%%' order by id limit 1", tmp_path)["s"].to_list() == [
        "text 100% 1"
    ]
    assert query("select id from t where false", tmp_path).shape == (0, 1)


def test_the_same_rows_have_the_same_content(warehouse: str, tmp_path: Path) -> None:
    settings = DataSettings(sql="select id, s from t order by id", url="env:WAREHOUSE_URL")
    first, again = read_table(settings, tmp_path), read_table(settings, tmp_path)
    assert first.content == again.content and change_mark(settings, tmp_path) is None


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("delete from t", "the query failed: syntax error at"),
        ("with gone as (delete from t returning id) select * from gone", "the query failed: .*data-modifying"),
        ("select nextval('ids') as n", "read-only transaction"),
        ("select nope from t", 'column "nope" does not exist'),
        ("select id, x as id from t", "both called"),
        ("select row(1, 2) as r from t", "row 1, column r"),
    ],
)
def test_a_query_can_only_read(warehouse: str, tmp_path: Path, sql: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        query(sql, tmp_path)
    assert query("select count(*) as n from t", tmp_path)["n"].to_list() == [25_000]


def test_no_password_is_written_or_said(warehouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", "postgresql://me:secret-word@127.0.0.1:1/none")
    with pytest.raises(DataError) as caught:
        query("select 1 as a", tmp_path)
    assert "secret-word" not in str(caught.value)
    monkeypatch.delenv("WAREHOUSE_URL")
    with pytest.raises(SettingsError, match="the variable WAREHOUSE_URL is not set"):
        query("select 1 as a", tmp_path)


def test_a_project_from_a_query(warehouse: str, tmp_path: Path) -> None:
    sql = "select id, at, x, f from t where id <= 500 order by id"
    made = new("q", sql, "f", url="env:WAREHOUSE_URL", yes=True, folder=tmp_path)
    text = (made.root / "fairway.toml").read_text()
    assert f'sql = "{sql}"' in text and 'url = "env:WAREHOUSE_URL"' in text and warehouse not in text


# -- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3_url: str, tmp_path: Path) -> tuple[str, Any]:
    """The address, and something that puts objects under it."""
    store = S3Store(s3_url.removeprefix("s3://").split("/")[0], client_options={"allow_http": True})
    _, _, prefix = s3_url.removeprefix("s3://").partition("/")

    def put(name: str, data: bytes) -> None:
        store.put(f"{prefix}/{name}" if prefix else name, data)

    return s3_url.rstrip("/"), put


def parquet(frame: pl.DataFrame, tmp_path: Path) -> bytes:
    frame.write_parquet(tmp_path / "made.parquet")
    return (tmp_path / "made.parquet").read_bytes()


def test_objects_are_read_like_files(bucket: tuple[str, Any], tmp_path: Path) -> None:
    url, put = bucket
    put("t.parquet", parquet(ROWS, tmp_path))
    put("t.csv", b"a,b\n1,x\n")
    put("t.jsonl.gz", gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    put("days/2.parquet", parquet(ROWS[2:], tmp_path))
    put("days/1.parquet", parquet(ROWS[:2], tmp_path))
    put("days/_SUCCESS", b"")
    assert read_table(f"{url}/t.parquet", tmp_path).frame.equals(ROWS)
    assert read_table(f"{url}/t.csv", tmp_path).frame.rows() == [("1", "x")]
    assert read_table(f"{url}/t.jsonl.gz", tmp_path).frame["a"].to_list() == [1, 2]
    for address in (f"{url}/days", f"{url}/days/*.parquet", f"{url}/d*s/[12].parquet", f"{url}/**/[0-9].parquet"):
        raw = read_table(address, tmp_path)
        assert raw.frame.equals(ROWS) and [name.rsplit("/", 1)[-1] for name in raw.files] == ["1.parquet", "2.parquet"]
    assert raw.locate(2)[0].endswith("2.parquet")


def test_delta_on_s3_is_pinned(bucket: tuple[str, Any], tmp_path: Path) -> None:
    url, _ = bucket
    options = source_s3.storage_options()
    deltalake.write_deltalake(f"{url}/delta", ROWS.to_arrow(), storage_options=options)
    deltalake.write_deltalake(f"{url}/delta", ROWS.to_arrow(), mode="append", storage_options=options)
    newest = read_table(f"{url}/delta", tmp_path)
    assert newest.frame.height == 6 and newest.pinned == {"delta_version": 1}
    first = read_table(DataSettings(source=f"{url}/delta", version=0), tmp_path)
    assert first.frame.height == 3 and first.files != newest.files
    assert change_mark(DataSettings(source=f"{url}/delta"), tmp_path) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.csv", "no such object"),
        ("empty", "no such object or folder"),
        ("cut.parquet", "cut.parquet: is cut short"),
        ("bad.csv", "bad.csv: line 3 has 1 fields"),
        ("mixed", "mixes Parquet and CSV"),
    ],
)
def test_refusals_name_the_object(bucket: tuple[str, Any], tmp_path: Path, name: str, says: str) -> None:
    url, put = bucket
    put("cut.parquet", parquet(ROWS, tmp_path)[:-10])
    put("bad.csv", b"a,b\n1,2\n3\n")
    put("mixed/a.csv", b"a\n1\n")
    put("mixed/b.parquet", parquet(ROWS, tmp_path))
    with pytest.raises(DataError, match=says):
        read_table(f"{url}/{name}", tmp_path)


def test_an_object_that_changes_while_it_is_read_is_refused(
    bucket: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, put = bucket
    put("t.csv", b"a\n1\n")
    mark = change_mark(DataSettings(source=f"{url}/t.csv"), tmp_path)
    read = source._read

    def slow(*given: Any) -> pl.DataFrame:
        put("t.csv", b"a\n2\n")
        return read(*given)

    monkeypatch.setattr(source, "_read", slow)
    with pytest.raises(DataError, match="changed while it was read"):
        read_table(f"{url}/t.csv", tmp_path)
    assert change_mark(DataSettings(source=f"{url}/t.csv"), tmp_path) != mark


def test_a_project_from_a_bucket(bucket: tuple[str, Any], tmp_path: Path) -> None:
    url, put = bucket
    lines = "".join(f"{i},{i % 7},{'yes' if i % 3 else 'no'}\n" for i in range(60))
    put("t.csv", ("id;x;y\n" + lines.replace(",", ";")).encode())
    made = new("m", f"{url}/t.csv", "y", yes=True, folder=tmp_path)
    text = (made.root / "fairway.toml").read_text()
    assert f'source = "{url}/t.csv"' in text and 'delimiter = ";"' in text
