"""Texts, vectors and images: from contract.toml, tables and requests to the wire, the log and back."""

import base64
import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.contract import careful
from fairway.contract.careful import Field
from fairway.contract.columns import Column, Contract
from fairway.contract.formats import FORMATS, format_of, packed
from fairway.contract.guess import guess
from fairway.contract.request import compile_request
from fairway.contract.table import apply, schema
from fairway.contract.text import dump_contract, parse_contract, parse_settings
from fairway.data import fold
from fairway.errors import DataError, RequestError, SettingsError
from fairway.monitor.reference import _column
from fairway.runtime.wire import typed_frame, wire_rows, wire_values
from fairway.serve import wire

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
COLUMNS = (
    Column(name="note", type="text", max_length=20, nulls=True),
    Column(name="v", type="vector", length=3, range=(-10, 10), seen=(0.0, 1.0), nulls=True),
    Column(name="photo", type="image", formats=("png", "jpeg"), max_length=100, nulls=True),
)
Y = Column(name="y", type="float", role="target", known="later")
CONTRACT = Contract(columns=(*COLUMNS, Y))
SETTINGS = parse_settings('format = 1\nname = "m"\ntask = "regression"\ntarget = "y"\n[data]\nsource = "t.csv"\n')


def decode(row: dict[str, Any] | str) -> Any:
    body = row if isinstance(row, str) else json.dumps({"rows": [row]})
    return compile_request(CONTRACT, SETTINGS).decode(body.encode())


def refusal(row: dict[str, Any] | str) -> tuple[str, str | None]:
    with pytest.raises(RequestError) as caught:
        decode(row)
    return caught.value.code, caught.value.field


def test_the_file_reads_back() -> None:
    made = parse_contract(dump_contract(CONTRACT))
    assert made == CONTRACT
    sizes = {"string": 10**4, "text": 10**5, "image": 5 * 10**6}
    assert {kind: Column(name="a", type=kind).longest for kind in sizes} == sizes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('type = "vector"', "columns.x.length is missing"),
        ('type = "vector"\nlength = 0', "columns.x.length is 0; allowed is 1 to 100,000"),
        ('type = "int"\nlength = 3', 'columns.x.length is for type vector; this column is "int"'),
        ('type = "image"\nformats = ["svg"]', 'names "svg"; known: png, jpeg'),
        ('type = "text"\nformats = ["png"]', "columns.x.formats is for type image"),
        ('type = "vector"\nlength = 2\nrange = [1, 0]', "the low end stands above"),
        ('type = "vector"\nlength = 2\nunique = true', "columns.x.unique is for type"),
        ('type = "image"\nseen = [1, 2]', 'has no meaning for type "image"'),
        ('type = "text"\nmonotonic = "rises"', "columns.x.monotonic is for type"),
        ('type = "int"\nmonotonic = "up"', "it must be rises or strictly"),
        ('type = "int"\npattern = "a"', "columns.x.pattern is for type string or text"),
        ('type = "float"\nmax_length = 5', "columns.x.max_length is for type"),
    ],
)
def test_keys_belong_to_their_types(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_contract(f"format = 1\n[columns.x]\n{text}\n")
    assert says in str(caught.value) and "line" in str(caught.value)


def test_a_table_is_typed() -> None:
    frame = pl.DataFrame({"note": ["a b", None], "v": [[1, 2, 3], None], "photo": [PNG, None], "y": [1.0, 2.0]})
    made = apply(frame, CONTRACT.columns).frame
    assert made.schema["v"] == pl.Array(pl.Float64, 3) and dict(made.schema) == schema(CONTRACT.columns)
    assert made["v"].to_numpy().shape == (2, 3)
    csv = pl.DataFrame({"v": ["[1, 2.5,-3e0]", None], "photo": [packed(PNG), None]})
    read = apply(csv, COLUMNS[1:]).frame
    assert read["v"].to_list() == [[1.0, 2.5, -3.0], None] and read["photo"].to_list() == [PNG, None]
    arrays = frame.with_columns(pl.col("v").cast(pl.Array(pl.Float32, 3)))
    assert apply(arrays, [COLUMNS[1]]).frame["v"].to_list() == [[1.0, 2.0, 3.0], None]
    structs = pl.DataFrame({"photo": [{"bytes": PNG, "path": "a.png"}]})
    assert apply(structs, [COLUMNS[2]]).frame["photo"].to_list() == [PNG]


@pytest.mark.parametrize(
    ("values", "column"),
    [
        ([[1.0, 2.0, 3.0], [1.0, 2.0]], COLUMNS[1]),
        ([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]], COLUMNS[1]),
        ([[1.0, 2.0, 3.0], []], COLUMNS[1]),
        ([[1.0, 2.0, 3.0], [1.0, None, 2.0]], COLUMNS[1]),
        ([[1.0, 2.0, 3.0], [1.0, float("nan"), 2.0]], COLUMNS[1]),
        ([[1.0, 2.0, 3.0], [1.0, float("inf"), 2.0]], COLUMNS[1]),
        ([[1.0, 2.0, 3.0], [1.0, 11.0, 2.0]], COLUMNS[1]),
        (["[1,2,3]", "[1,2,x]"], COLUMNS[1]),
        (["[1,2,3]", "1,2,3"], COLUMNS[1]),
        ([PNG, b"GIF89a"], COLUMNS[2]),
        ([PNG, PNG + bytes(100)], COLUMNS[2]),
        ([packed(PNG), "%%%"], COLUMNS[2]),
        (["short", "x" * 21], COLUMNS[0]),
    ],
)
def test_what_is_no_such_value_is_refused_with_its_row(values: list[Any], column: Column) -> None:
    with pytest.raises(DataError, match=f"t, row 2, column {column.name}: "):
        apply(pl.DataFrame({column.name: values}, strict=False), [column], file="t")


def test_a_request_is_decoded_and_flagged() -> None:
    found = decode({"note": "hi", "v": [0, 0.5, 2], "photo": packed(PNG)})
    assert found.columns == {"note": ["hi"], "v": [[0.0, 0.5, 2.0]], "photo": [PNG]}
    assert found.flags == [["out_of_seen:v"]]
    assert decode({}).flags == [["null:note", "null:v", "null:photo"]]


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        ({"v": [1, 2]}, "wrong_length", "rows[0].v"),
        ({"v": [1, 2, 3, 4]}, "wrong_length", "rows[0].v"),
        ({"v": [1, 2, "3"]}, "wrong_type", "rows[0].v[2]"),
        ({"v": [1, None, 3]}, "wrong_type", "rows[0].v[1]"),
        ({"v": [1, [2], 3]}, "wrong_type", "rows[0].v[1]"),
        ({"v": [1, 2, 11]}, "out_of_range", "rows[0].v[2]"),
        ({"v": 3}, "wrong_type", "rows[0].v"),
        ({"v": {"0": 1}}, "wrong_type", "rows[0].v"),
        ('{"rows":[{"v":[1,2,NaN]}]}', "not_finite", "rows[0].v[2]"),
        ('{"rows":[{"v":[1,2,1e999]}]}', "not_finite", "rows[0].v[2]"),
        ({"photo": "@@"}, "wrong_type", "rows[0].photo"),
        ({"photo": "YQ"}, "wrong_type", "rows[0].photo"),
        ({"photo": "é"}, "wrong_type", "rows[0].photo"),
        ({"photo": packed(PNG + bytes(100))}, "too_long", "rows[0].photo"),
        ({"photo": packed(b"GIF89a")}, "wrong_format", "rows[0].photo"),
        ({"photo": 3}, "wrong_type", "rows[0].photo"),
        ({"note": "x" * 21}, "too_long", "rows[0].note"),
        ('{"rows":[{"v":[1,2,3],"v":[1,2,3]}]}', "duplicate_field", "rows[0].v"),
    ],
)
def test_a_request_is_refused_by_its_field(row: Any, code: str, field: str) -> None:
    assert refusal(row) == (code, field)


VALUES = st.one_of(
    st.none(), st.lists(st.floats(-20, 20) | st.integers(-20, 20) | st.none(), max_size=5), st.text(max_size=5),
    st.binary(max_size=12).map(packed), st.sampled_from([packed(PNG), packed(PNG)[:-1], "YR=="]),
)  # fmt: skip


@given(VALUES, VALUES)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_the_fast_and_the_careful_reader_agree(v: Any, photo: Any) -> None:
    body = json.dumps({"rows": [{"v": v, "photo": photo}]}).encode()
    fields = tuple(Field.of(c) for c in COLUMNS)
    try:
        slow: Any = careful.read_rows(body, fields, (), {})[1][0][1:]
    except RequestError as error:
        slow = error.field
    try:
        found = compile_request(CONTRACT, SETTINGS).decode(body)
        fast: Any = (found.columns["v"][0], found.columns["photo"][0])
    except RequestError as error:
        fast = error.field if error.code != "wrong_format" else slow
    assert fast == slow


def test_to_the_model_process_and_back() -> None:
    """Wire values are plain: MessagePack carries lists and bytes as they are."""
    frame = typed_frame(COLUMNS, {"note": ["a", None], "v": [[1, 2, 3], None], "photo": [PNG, None]})
    message = wire.frame({"columns": wire_values(frame)})[4:]
    again = typed_frame(COLUMNS, wire._decoder.decode(message)["columns"])
    assert again.equals(frame) and again.schema == frame.schema
    rows = wire_rows(frame)
    assert json.loads(json.dumps(rows)) == [
        {"note": "a", "v": [1.0, 2.0, 3.0], "photo": packed(PNG)}, {"note": None, "v": None, "photo": None},
    ]  # fmt: skip
    assert decode(rows[0]).columns["photo"] == [PNG]


def test_the_log_keeps_them_plainly() -> None:
    for name, values, dtype in (("vector", [[1.0, 2.0], None], pl.List(pl.Float64)), ("image", [PNG, None], pl.Binary)):
        kept = fold._series("in_x", values, name, plain=True)
        assert kept.dtype == dtype and kept.to_list() == values
    hidden = fold._series("in_x", [fold.hashed(PNG), None], "image", plain=False)
    assert hidden.dtype == pl.String and hidden[0].startswith("h-")


def test_formats_by_their_first_bytes() -> None:
    heads = {"png": PNG, "jpeg": b"\xff\xd8\xff\xe0", "gif": b"GIF87a", "webp": b"RIFF0000WEBP", "bmp": b"BM",
             "tiff": b"MM\x00*"}  # fmt: skip
    assert tuple(heads) == FORMATS and all(format_of(data) == name for name, data in heads.items())
    assert format_of(b"") is None and format_of(b"RIFF0000WAVE") is None


@pytest.mark.parametrize(
    ("values", "kind", "more"),
    [
        ([[1, 2], [3, 4], None], "vector", {"length": 2, "nulls": True, "seen": (1.0, 4.0)}),
        (["[1, 2]", "[3,4.5]"], "vector", {"length": 2}),
        ([PNG, PNG], "image", {"formats": ("png",)}),
        ([b"odd", PNG], "image", {"formats": ()}),
        ([f"one two three four {i}" for i in range(9)], "text", {"max_length": None}),
        ([f"code-{i}" for i in range(9)], "string", {"max_length": None}),
        (["x" * 9000 + str(i) for i in range(9)], "string", {"max_length": 18002}),
    ],
)
def test_new_recognises_them(values: list[Any], kind: str, more: dict[str, Any]) -> None:
    found = guess(pl.Series("x", values, strict=False))
    assert found is not None and found.column.type == kind
    assert {key: getattr(found.column, key) for key in more} == more
    assert found.values.dtype == schema([found.column])["x"]


def test_ragged_lists_have_no_type() -> None:
    assert guess(pl.Series("x", [[1.0], [1.0, 2.0]])) is None
    assert guess(pl.Series("x", [["a"], ["b"]])) is None


def test_learners_take_a_vector_as_a_matrix() -> None:
    frame = apply(pl.DataFrame({"v": [[1, 2, 3], [4, 5, 6]]}), [COLUMNS[1]]).frame
    matrix = frame["v"].to_numpy()
    assert matrix.dtype == np.float64 and matrix.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert base64.b64decode(packed(b"x")) == b"x"


def test_the_monitor_watches_a_vectors_length_and_an_images_size() -> None:
    vectors = pl.Series("v", [[3.0, 4.0], [6.0, 8.0], None] * 20, dtype=pl.Array(pl.Float64, 2))
    images = pl.Series("p", [b"1", b"12", None] * 20)
    for series, live in ((vectors, [[3.0, 4.0], None]), (images, [b"1", None])):
        bins, values = _column(series, 0, None)
        assert bins.kind == ("norm" if series.name == "v" else "length")
        assert np.nanmax(values) == (10.0 if series.name == "v" else 2.0)
        profile = bins.profile(live, [None, None])  # type: ignore[list-item]
        assert "1" in json.dumps(profile) and len(profile) > 2
