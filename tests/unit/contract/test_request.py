"""The request decoder: what it takes, what it refuses and by which field, and that both of its readers agree."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.contract.columns import Column, Contract
from fairway.contract.request import (
    MAX_BODY,
    RequestDecoder,
    compile_request,
    decode_feedback,
    decode_source,
)
from fairway.contract.settings import DataSettings, EndpointSettings, Settings
from fairway.errors import RequestError

COLUMNS = (
    Column(name="id", type="string", role="entity"),
    Column(name="when", type="datetime", role="at"),
    Column(name="tenure", type="int", seen=(0, 72)),
    Column(name="charge", type="float", nulls=True, range=(-10.0, 1000.0)),
    Column(name="senior", type="bool", nulls=True),
    Column(name="Contract", type="category", values=("One: year", "Two years")),
    Column(name="plan", type="category", values=("a", "b"), unseen="reject", nulls=True),
    Column(name="note", type="string", nulls=True, max_length=20),
    Column(name="since", type="datetime", nulls=True),
    Column(name="born", type="date", nulls=True, seen=("1950-01-01", "2000-01-01")),
    Column(name="later", type="float", known="later", nulls=True),
    Column(name="Churn", type="category", role="target", known="later", values=("No", "Yes")),
)
ROW: dict[str, Any] = {"id": "7590-VHVEG", "tenure": 1, "charge": 29.85, "Contract": "One: year"}


def settings(*, at: bool = False, **changes: Any) -> Settings:
    values: dict[str, Any] = {"name": "churn", "task": "binary", "target": "Churn", "positive": "Yes"} | changes
    return Settings(
        entity="id",
        at="when",
        data=DataSettings(source="x.csv"),
        endpoint=EndpointSettings(at_from_caller=at),
        **values,
    )


def decoder(*, at: bool = False, columns: tuple[Column, ...] = COLUMNS) -> RequestDecoder:
    return compile_request(Contract(columns=columns), settings(at=at))


def body(*rows: Any, **more: Any) -> bytes:
    return json.dumps({"rows": list(rows), **more}).encode()


def refusal(call: Callable[[], Any]) -> tuple[int, str, str | None]:
    with pytest.raises(RequestError) as caught:
        call()
    return caught.value.status, caught.value.code, caught.value.field


def test_a_row_becomes_columns() -> None:
    found = decoder().decode(body(ROW, ROW | {"tenure": 80, "charge": None}, request_id="r-1"))
    assert found.request_id == "r-1" and found.n == 2
    assert found.columns["tenure"] == [1, 80]
    assert found.columns["charge"] == [29.85, None]
    assert found.columns["senior"] == [None, None]
    assert "when" not in found.columns and "Churn" not in found.columns and "later" not in found.columns
    assert found.ats == [None, None]
    assert "out_of_seen:tenure" in found.flags[1] and "out_of_seen:tenure" not in found.flags[0]
    assert "null:charge" in found.flags[1] and "null:charge" not in found.flags[0]


def test_a_category_never_seen_is_null_and_flagged_or_refused() -> None:
    found = decoder().decode(body(ROW | {"Contract": " One: year "}))
    assert found.columns["Contract"] == [None] and "unseen:Contract" in found.flags[0]
    assert refusal(lambda: decoder().decode(body(ROW, ROW | {"plan": "c"}))) == (
        422, "unseen_category", "rows[1].plan",
    )  # fmt: skip


def test_times_are_microseconds_and_need_a_zone() -> None:
    found = decoder().decode(body(ROW | {"since": "1970-01-01T01:00:00.000001+01:00", "born": "1949-12-31"}))
    assert found.columns["since"] == [1]
    assert found.columns["born"] == ["1949-12-31"] and "out_of_seen:born" in found.flags[0]
    for value, code in [
        ("1970-01-01T00:00:00", "no_time_zone"),
        ("2016-12-31T23:59:60Z", "wrong_type"),
        ("9999-12-31T23:59:59-12:00", "out_of_range"),
        ("soon", "wrong_type"),
        (0, "wrong_type"),
    ]:
        assert refusal(lambda value=value: decoder().decode(body(ROW | {"since": value}))) == (
            422, code, "rows[0].since",
        )  # fmt: skip


def test_at_is_taken_only_where_the_endpoint_allows_it() -> None:
    row = ROW | {"when": "2014-05-01T00:00:00Z"}
    assert refusal(lambda: decoder().decode(body(row))) == (422, "at_not_allowed", "rows[0].when")
    found = decoder(at=True).decode(body(row, ROW))
    assert found.ats == [1398902400000000, None] and "when" not in found.columns


def test_the_message_says_what_was_expected_and_what_came() -> None:
    with pytest.raises(RequestError) as caught:
        decoder().decode(body(ROW | {"tenure": "ten"}))
    assert str(caught.value) == 'rows[0].tenure: expected int, got string "ten"'


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"tenure": "12"}, "wrong_type", "rows[0].tenure"),
        ({"tenure": True}, "wrong_type", "rows[0].tenure"),
        ({"tenure": 12.5}, "wrong_type", "rows[0].tenure"),
        ({"tenure": None}, "wrong_type", "rows[0].tenure"),
        ({"tenure": {}}, "wrong_type", "rows[0].tenure"),
        ({"tenure": [1]}, "wrong_type", "rows[0].tenure"),
        ({"tenure": 2**63}, "out_of_range", "rows[0].tenure"),
        ({"tenure": float("nan")}, "not_finite", "rows[0].tenure"),
        ({"charge": float("inf")}, "not_finite", "rows[0].charge"),
        ({"charge": 1000.01}, "out_of_range", "rows[0].charge"),
        ({"charge": True}, "wrong_type", "rows[0].charge"),
        ({"senior": 1}, "wrong_type", "rows[0].senior"),
        ({"senior": "true"}, "wrong_type", "rows[0].senior"),
        ({"Contract": 1}, "wrong_type", "rows[0].Contract"),
        ({"Contract": None}, "wrong_type", "rows[0].Contract"),
        ({"note": "x" * 21}, "too_long", "rows[0].note"),
        ({"note": "\ud800"}, "invalid_text", "rows[0].note"),
        ({"id": None}, "wrong_type", "rows[0].id"),
        ({"extra": 1}, "unknown_field", "rows[0].extra"),
        ({"Churn": "No"}, "unknown_field", "rows[0].Churn"),
        ({"later": 1.0}, "unknown_field", "rows[0].later"),
        ({"\ud800": 1}, "unknown_field", "rows[0].\\ud800"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], code: str, field: str) -> None:
    assert refusal(lambda: decoder().decode(body(ROW | change))) == (422, code, field)
    second = field.replace("rows[0]", "rows[1]")
    assert refusal(lambda: decoder().decode(body(ROW, ROW | change))) == (422, code, second)


@pytest.mark.parametrize("missing", ["id", "tenure", "Contract"])
def test_a_missing_field_is_named(missing: str) -> None:
    row = {k: v for k, v in ROW.items() if k != missing}
    assert refusal(lambda: decoder().decode(body(row))) == (422, "missing_field", f"rows[0].{missing}")


def raw(text: str) -> bytes:
    """A body whose only row is `text` inside the braces, after the rest of a good row."""
    return ('{"rows":[' + json.dumps(ROW)[:-1] + ", " + text + "}]}").encode()


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ('"tenure": 2', "duplicate_field", "rows[0].tenure"),
        ('"note": "a:b", "note": "a"', "duplicate_field", "rows[0].note"),
        # An escaped colon in a kept text must not hide the colon of a duplicate key.
        ('"note": "\\u003a", "tenure": 2', "duplicate_field", "rows[0].tenure"),
        ('"n\\u006fte": "a", "note": "b"', "duplicate_field", "rows[0].note"),
        ('"charge": 1e999', "duplicate_field", "rows[0].charge"),
        ('"senior": tru', "invalid_json", None),
    ],
)
def test_duplicate_keys_are_refused(text: str, code: str, field: str | None) -> None:
    assert refusal(lambda: decoder().decode(raw(text)))[1:] == (code, field)


def test_colons_in_texts_are_no_duplicates() -> None:
    found = decoder().decode(body(ROW | {"note": "a:b::", "since": "2014-05-01T00:00:00+00:00"}, request_id="a:b"))
    assert found.columns["note"] == ["a:b::"]
    assert decoder().decode(raw('"note": "\\u003a"')).columns["note"] == [":"]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"null", 422, "wrong_type"),
        (b"[]", 422, "wrong_type"),
        (b"{}", 422, "missing_field"),
        (b'{"rows": []}', 422, "no_rows"),
        (b'{"rows": {}}', 422, "wrong_type"),
        (b'{"rows": [[]]}', 422, "wrong_type"),
        (b'{"rows": [null]}', 422, "wrong_type"),
        (b'{"rows": [', 400, "invalid_json"),
        (body(ROW) + b" x", 400, "invalid_json"),
        (b"\xef\xbb\xbf" + body(ROW), 400, "invalid_json"),
        (body(ROW).decode().encode("utf-16"), 400, "invalid_json"),
        (body(ROW).replace(b"VHVEG", b"\xc0\x80"), 400, "invalid_json"),
        (body(ROW).replace(b"VHVEG", b"\xff"), 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"rows":[{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}", 400, "invalid_json"),
        (body(*[ROW] * 10_001), 413, "too_many_rows"),
        (b" " * (MAX_BODY + 1), 413, "too_large"),
        (body(ROW, request_id="a\nb"), 422, "invalid_request_id"),
        (body(ROW, request_id="x" * 129), 422, "invalid_request_id"),
        (body(ROW, request_id=""), 422, "invalid_request_id"),
        (body(ROW, request_id=7), 422, "wrong_type"),
        (body(ROW, other=1), 422, "unknown_field"),
        (b'{"rows":[{"id":"a","tenure":' + b"9" * 5000 + b',"Contract":"x"}]}', 422, "out_of_range"),
        (b'{"rows":[{"id":"a","tenure":1,"charge":' + b"9" * 5000 + b',"Contract":"x"}]}', 422, "not_finite"),
    ],
    ids=range(25),
)
def test_what_is_no_request_is_refused(sent: bytes, status: int, code: str) -> None:
    assert refusal(lambda: decoder().decode(sent))[:2] == (status, code)


def test_messages_stay_short() -> None:
    with pytest.raises(RequestError) as caught:
        decoder().decode(body(ROW | {"tenure": "x" * 1_000_000}))
    assert len(str(caught.value)) < 200
    with pytest.raises(RequestError) as caught:
        decoder().decode(body(ROW | {"y" * 1_000_000: 1}))
    assert len(str(caught.value)) < 300


def test_ten_thousand_rows_are_taken_in_order() -> None:
    found = decoder().decode(body(*(ROW | {"tenure": n} for n in range(10_000))))
    assert found.columns["tenure"] == list(range(10_000))


ODD = ("with space", "tän", "😀", "__class__", "a.b", "a:b", 'quo"te', "back\\slash", "class", "", "c0")


def test_odd_column_names_are_kept_exactly() -> None:
    columns = tuple(Column(name=name, type="int") for name in ODD)
    contract = Contract(columns=(*columns, COLUMNS[-1]))
    found = compile_request(contract, settings()).decode(body({name: place for place, name in enumerate(ODD)}))
    assert found.columns == {name: [place] for place, name in enumerate(ODD)}


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["a", "One: year"])
)
rows = st.dictionaries(st.sampled_from([c.name for c in COLUMNS]), values, max_size=10).map(lambda d: ROW | d)


@given(st.lists(rows, min_size=1, max_size=3), st.booleans())
def test_both_readers_take_and_refuse_the_same(given_rows: list[dict[str, Any]], at: bool) -> None:
    fast, slow = decoder(at=at), decoder(at=at)
    slow._reader._decoder = None  # always the careful reader
    sent = body(*given_rows)

    def outcome(reader: RequestDecoder) -> Any:
        try:
            return reader.decode(sent)
        except RequestError as error:
            return error.status, error.code, error.field, str(error)

    assert repr(outcome(fast)) == repr(outcome(slow))


@given(st.binary(max_size=60))
def test_any_bytes_end_in_a_4xx(noise: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decoder().decode(b'{"rows":[{' + noise)
    assert 400 <= caught.value.status < 500


def test_source_rows() -> None:
    columns = (
        Column(name="flight", type="int"),
        Column(name="departed_at", type="datetime"),
        Column(name="dep_delay", type="float", nulls=True),
    )
    sent = body(
        {"flight": 1, "departed_at": "1970-01-01T00:00:01Z"},
        {"flight": 2, "departed_at": "1970-01-01T00:00:02Z", "dep_delay": 3},
    )
    assert decode_source(columns, sent) == [
        {"flight": 1, "departed_at": 1_000_000, "dep_delay": None},
        {"flight": 2, "departed_at": 2_000_000, "dep_delay": 3.0},
    ]
    assert refusal(lambda: decode_source(columns, body({"flight": 1}))) == (422, "missing_field", "rows[0].departed_at")


# -- feedback --------------------------------------------------------------------------------------------------------


def feedback(value: Any, *, target: Column = COLUMNS[-1], **changes: Any) -> Any:
    columns = (*COLUMNS[:-1], target)
    sent = value if isinstance(value, bytes) else json.dumps(value).encode()
    return decode_feedback(settings(target=target.name, **changes), Contract(columns=columns), sent)


def test_one_label_and_many() -> None:
    (one,) = feedback({"id": "p-1", "label": "Yes"})
    assert (one.id, one.name, one.value, one.at, one.event) == ("p-1", "Churn", "Yes", None, None)
    two = feedback(
        {
            "rows": [
                {"id": "p-1", "label": "No", "at": "1970-01-01T00:00:01Z", "event": "e1"},
                {"id": "p-2", "label": "Yes"},
            ]
        }
    )
    assert [f.value for f in two] == ["No", "Yes"] and two[0].at == 1_000_000 and two[0].event == "e1"
    (reward,) = feedback({"id": "p-1", "label": 2.5, "name": "revenue"})
    assert reward.name == "revenue" and reward.value == 2.5


def test_labels_have_the_type_of_the_target() -> None:
    flag = Column(name="Churn", type="bool", role="target")
    assert feedback({"id": "p", "label": True}, target=flag)[0].value is True
    assert refusal(lambda: feedback({"id": "p", "label": 1}, target=flag))[1] == "wrong_type"
    digit = Column(name="Churn", type="int", role="target", values=("0", "1", "2"))
    assert feedback({"id": "p", "label": 2}, target=digit, task="multiclass")[0].value == 2
    assert refusal(lambda: feedback({"id": "p", "label": 3}, target=digit, task="multiclass"))[1] == "unknown_class"
    number = Column(name="Churn", type="float", role="target")
    assert feedback({"id": "p", "label": 2}, target=number, task="regression")[0].value == 2.0


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        ({"id": "p", "label": "Perhaps"}, "unknown_class", "label"),
        ({"id": "p", "label": 1}, "wrong_type", "label"),
        ({"id": "p", "label": None}, "wrong_type", "label"),
        ({"label": "Yes"}, "missing_field", "id"),
        ({"id": "p"}, "missing_field", "label"),
        ({"id": "p\n", "label": "Yes"}, "invalid_request_id", "id"),
        ({"id": "p", "label": "Yes", "at": "2014-01-01"}, "no_time_zone", "at"),
        ({"id": "p", "label": "Yes", "x": 1}, "unknown_field", "x"),
        ({"rows": [{"id": "p", "label": "Yes"}, {"id": "p", "label": "?"}]}, "unknown_class", "rows[1].label"),
        ({"rows": []}, "no_rows", "rows"),
        (b'{"id":"p","label":"Yes","label":"No"}', "duplicate_field", "label"),
        (b"[1]", "wrong_type", None),
        (b'{"id":"p","label":NaN,"name":"reward"}', "not_finite", "label"),
    ],
    ids=range(13),
)
def test_wrong_feedback_is_refused(value: Any, code: str, field: str | None) -> None:
    assert refusal(lambda: feedback(value))[1:] == (code, field)


def test_the_hot_path_loads_neither_numpy_nor_polars() -> None:
    code = (
        "import fairway.contract.request, fairway.contract.text, sys;"
        "print([m for m in ('numpy', 'polars', 'sqlalchemy', 'tomlkit') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
