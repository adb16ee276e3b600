"""What `new` tells from a table: types, tasks, roles, and which columns it does not trust."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fairway.contract.columns import Column
from fairway.contract.guess import guess
from fairway.contract.infer import Inferred, infer
from fairway.contract.known import telling, words
from fairway.errors import DataError, UsageError

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
N = 400


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def table(**more: Any) -> pl.DataFrame:
    draw = rng()
    base = {
        "customer_id": [f"c-{i}" for i in range(N)],
        "amount": draw.normal(size=N).round(3),
        "kind": draw.choice(["a", "b", "c"], N),
        "churn": draw.choice(["Yes", "No"], N, p=[0.3, 0.7]),
    }
    return pl.DataFrame(base | more)


def known(found: Inferred, name: str) -> str:
    return found.contract.column(name).known


@pytest.mark.parametrize(
    ("xs", "kind", "more"),
    [
        (["1", "2", "-3"], "int", {}),
        (["1", "2.5"], "float", {}),
        (["1", " ", "2"], "int", {"null_values": (" ",), "nulls": True}),
        (["1.5", "NA", " "], "float", {"null_values": (" ", "NA"), "nulls": True}),
        (["1,5", "2,25"], "float", {"decimal": ","}),
        (["true", "false"], "bool", {}),
        (["2014-01-01", "2014-02-01"], "date", {}),
        (["2014-01-01 10:00:00", "2014-02-01 11:00"], "datetime", {"zone": "UTC", "assumed": ("zone",)}),
        (["2014-01-01T10:00:00Z"], "datetime", {"zone": None}),
        (["00123", "00124"] * 3, "category", {"values": ("00123", "00124")}),
        (["a", "b", "a", "b"], "category", {"values": ("a", "b")}),
        (["a", "b", "c", "d"], "string", {}),
        (["a", " ", "a", "b", "b"], "category", {"values": ("a", "b"), "null_values": (" ",)}),
        (["x@y.z", "a@b.c", "q@r.s"], "string", {}),
        ([1, 2], "int", {"seen": (1, 2)}),
        ([datetime(2014, 1, 1)], "datetime", {"zone": "UTC"}),
    ],
)  # fmt: skip
def test_types(xs: list[Any], kind: str, more: dict[str, Any]) -> None:
    found = guess(pl.Series("x", xs))
    assert found is not None and found.column.type == kind
    for key, value in more.items():
        assert getattr(found.column, key) == value


def test_a_column_of_numbers_with_a_few_other_texts_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        guess(pl.Series("x", ["1.5"] * 40 + ["70,35", "oops"]), file="t.csv")
    assert 't.csv, row 41, column x: "70,35" is not a number, and 95.2% of the column is (2 such rows: 41, 42)' in str(
        caught.value
    )
    assert guess(pl.Series("x", ["1", "A1", "B2", "7"])).column.type == "string"  # type: ignore[union-attr]


def test_infinities_are_refused() -> None:
    with pytest.raises(DataError, match=r"row 2, column x: inf is not a finite number"):
        guess(pl.Series("x", [1.0, float("inf")]))


@pytest.mark.parametrize(
    ("target", "task", "positive"),
    [
        (["Yes", "No", "No", "No"], "binary", "Yes"),
        (["up", "down", "up", "up"], "binary", "up"),
        (["p", "q", "q", "q"], "binary", "p"),
        ([True, False, True, None], "binary", "true"),
        ([0, 1, 1, 1], "binary", "1"),
        ([0.0, 1.0, None, 1.0], "binary", "1"),
        (["a", "b", "c", "a"], "multiclass", None),
        ([0, 1, 2, 1], "multiclass", None),
        ([0.5, 1.5, 2.5, 9.25], "regression", None),
        (list(range(0, 4000, 1000)), "regression", None),
    ],
)
def test_the_task_follows_from_the_target(target: list[Any], task: str, positive: str | None) -> None:
    frame = table().with_columns(goal=pl.Series(target * (N // 4))).drop("churn")
    found = infer(frame, target="goal")
    assert (found.task, found.positive) == (task, positive)
    assert found.contract.column("goal").role == "target"


def test_what_the_caller_says_counts() -> None:
    frame = table(goal=rng().integers(0, 5, N))
    assert infer(frame, target="goal").task == "multiclass"
    assert infer(frame, target="goal", task="regression").task == "regression"
    assert infer(table(), target="churn", positive="No").positive == "No"
    assert infer(table(), target="churn", entity="kind").entity == "kind"
    for wrong in ({"task": "binary"}, {"positive": "3"}, {"at": "amount"}, {"entity": "amount"}, {"at": "nope"}):
        with pytest.raises(UsageError):
            infer(frame, target="goal", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="did you mean churn"):
        infer(table(), target="chrun")


@pytest.mark.parametrize("goal", [["Yes"] * N, [None] * N, [1.5] * N])
def test_a_target_without_two_values_is_refused(goal: list[Any]) -> None:
    with pytest.raises(DataError):
        infer(table().with_columns(goal=pl.Series(goal)), target="goal")


def test_no_rows_and_one_row_are_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        infer(table().head(0), target="churn")
    with pytest.raises(DataError, match="one row"):
        infer(table().head(1), target="churn")


def test_entity_and_time_are_found() -> None:
    start = datetime(2020, 1, 1)
    times = [start + timedelta(hours=i) for i in range(N)]
    found = infer(table(created_at=times), target="churn")
    assert (found.entity, found.at) == ("customer_id", "created_at")
    assert found.contract.column("customer_id").log == "hash"
    assert found.contract.column("created_at").zone == "UTC"
    assert infer(table(), target="churn").at is None
    found = infer(table(store_id=[i % 40 for i in range(N)]).drop("customer_id"), target="churn")
    assert found.entity == "store_id"


def test_of_two_times_the_terminal_is_asked() -> None:
    start = datetime(2020, 1, 1)
    times = [start + timedelta(hours=i) for i in range(N)]
    frame = table(opened_at=times, seen_at=times)
    asked: list[tuple[str, str]] = []

    def ask(question: str, default: str) -> str:
        asked.append((question, default))
        return "seen_at"

    assert infer(frame, target="churn", ask=ask).at == "seen_at"
    assert asked[0][1] == "opened_at"
    assert infer(frame, target="churn").at == "opened_at"


def test_useless_columns_are_ignored_and_said() -> None:
    found = infer(table(n=range(1, N + 1), same=[3] * N, nothing=[None] * N), target="churn")
    assert {c.name for c in found.contract.columns if c.role == "ignore"} == {"n", "same", "nothing"}
    assert any(topic == "left out" and "n: it numbers the rows" in text for topic, text in found.decisions)


# -- known later -----------------------------------------------------------------------------------------------------


def test_names_are_hints() -> None:
    assert words("arrDelay_min") == ["arr", "delay", "min"]
    frame = table(**{n: rng().normal(size=N) for n in ("actual_cost", "arr_x", "churn_reason", "air_time", "plain")})
    found = infer(frame, target="churn")
    assert set(found.suspects) == {"actual_cost", "arr_x", "churn_reason", "air_time"}
    assert known(found, "plain") == "request"
    assert found.contract.column("arr_x").why == 'its name says "arr"'
    assert "arr_x" not in {c.name for c in found.contract.request_columns}


def test_nulls_where_the_label_is_null_are_a_hint() -> None:
    missing = [i % 20 == 0 for i in range(N)]
    some = [i % 40 == 0 for i in range(N)]
    values = rng().normal(size=N)
    frame = table(
        measured=[None if m else v for m, v in zip(missing, values, strict=True)],
        partly=[None if m else v for m, v in zip(some, values, strict=True)],
        elsewhere=[None if i % 20 == 1 else v for i, v in enumerate(values)],
    )
    frame = frame.with_columns(churn=pl.when(pl.Series(missing)).then(None).otherwise("churn"))
    found = infer(frame, target="churn")
    assert found.suspects == {
        "measured": "it is null exactly where the label is",
        "partly": "its nulls are all among rows without a label",
    }


def test_telling_the_target_alone_is_a_hint() -> None:
    frame = table()
    y = (frame["churn"] == "Yes").cast(pl.Float64).to_numpy()
    leaky = y + rng().normal(size=N) * 0.3
    code = ["x" if v and d else "y" for v, d in zip(y, rng().random(N) < 0.9, strict=True)]
    found = infer(frame.with_columns(leaky=leaky, code=pl.Series(code)), target="churn")
    assert set(found.suspects) == {"leaky", "code"}
    assert "AUC" in found.suspects["leaky"]
    many = pl.Series("m", [f"v{i % 150}" for i in range(N)])
    assert telling(many, frame["churn"], Column(name="m", type="category", values=("v",)), "binary") < 0.7


def test_parts_that_add_up_to_the_target_are_a_hint() -> None:
    draw = rng()
    a, b = draw.integers(0, 50, N), draw.integers(0, 300, N)
    found = infer(table(casual=a, registered=b, cnt=a + b), target="cnt")
    assert {"casual", "registered"} <= set(found.suspects)


def flights(*, labelled: bool) -> pl.DataFrame:
    """As the real table: hour and minute are those of the actual departure."""
    draw = rng()
    n = 4000
    sched = [datetime(2014, 1, 1) + timedelta(minutes=int(m)) for m in draw.integers(0, 500_000, n)]
    delay = [int(d) for d in draw.normal(5, 30, n)]
    left = [s + timedelta(minutes=d) for s, d in zip(sched, delay, strict=True)]
    late = [d + int(e) > 15 for d, e in zip(delay, draw.normal(0, 25, n), strict=True)]
    lost = [not labelled and i % 50 == 0 for i in range(n)]
    frame = pl.DataFrame(
        {
            "flight_id": range(n),
            "month": [s.month for s in sched],
            "day": [s.day for s in sched],
            "dep_time": [t.hour * 100 + t.minute for t in left],
            "hour": [t.hour for t in left],
            "minute": [t.minute for t in left],
            "sched_dep": sched,
            "left_local": left,
            "late": late,
        }
    )
    gone = pl.Series(lost)
    return frame.with_columns(
        pl.when(gone).then(None).otherwise(pl.col(n)).alias(n)
        for n in ("dep_time", "hour", "minute", "left_local", "late")
    )


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("without", [[], ["dep_time"], ["left_local"]])
def test_what_follows_from_a_suspect_is_suspect(labelled: bool, without: list[str]) -> None:
    found = infer(flights(labelled=labelled).drop(without), target="late")
    assert found.at == "sched_dep"
    expected = {"dep_time", "hour", "minute", "left_local"} - set(without)
    assert set(found.suspects) == expected


@pytest.mark.skipif(not DATA.exists(), reason="the shared data sets are not on this machine")
def test_real_flights() -> None:
    raw = pl.read_parquet(DATA / "pnw-flights" / "flights.parquet").with_columns(late=pl.col("arr_delay") > 15)
    left_out = {"dep_delay", "dep_time", "dep_local", "hour", "minute", "arr_time", "arr_delay", "air_time"}
    for frame in (raw, raw.filter(pl.col("late").is_not_null())):
        found = infer(frame, target="late")
        requested = {c.name for c in found.contract.request_columns}
        assert not left_out & requested and "year" not in requested
        assert {"carrier", "origin", "dest", "distance", "month", "day"} <= requested
        assert (found.at, found.entity) == ("sched_dep_local", "flight_id")
