"""Make the example's tables from the raw flights: what a warehouse would hold, and what the demo sends later.

data/flights.parquet      the training table: flights of January to April 2014, with their outcome
data/departures.parquet   the history of the source table "departures": one event when a flight leaves
data/later.parquet        flights, departures and outcomes from May on: the demo sends them one by one
"""

from datetime import timedelta
from pathlib import Path

import polars as pl

HERE = Path(__file__).parent
ZONE = "America/Los_Angeles"
LATE_MIN = 15
TAXI = timedelta(minutes=20)  # the file has no landing time in one zone; air time and a usual taxi time give it


def flights(raw: Path = HERE / "data" / "pnwflights14.parquet") -> pl.DataFrame:
    """Every flight with a known schedule (cancelled ones have none in this file), in order of `decide_at`."""

    def utc(column: str) -> pl.Expr:
        return (
            pl.col(column)
            .dt.replace_time_zone(ZONE, ambiguous="earliest", non_existent="null")
            .dt.convert_time_zone("UTC")
        )

    return (
        pl.read_parquet(raw)
        .with_columns(scheduled_at=utc("sched_dep_local"), departed_at=utc("dep_local"))
        .filter(pl.col("scheduled_at").is_not_null())
        .with_columns(
            decide_at=pl.col("scheduled_at") - timedelta(hours=1),
            arrived_at=pl.col("departed_at") + pl.duration(minutes="air_time") + TAXI,
            late=pl.when(pl.col("arr_delay") > LATE_MIN).then(pl.lit("yes")).otherwise(pl.lit("no")),
            minute_of_day=pl.col("sched_dep_local").dt.hour().cast(pl.Int64) * 60
            + pl.col("sched_dep_local").dt.minute().cast(pl.Int64),
            weekday=pl.col("sched_dep_local").dt.weekday().cast(pl.Int64),
        )
        .with_columns(late=pl.when(pl.col("arr_delay").is_not_null()).then("late"))
        .sort("decide_at", "flight_id")
    )


def main() -> None:
    columns = ["flight_id", "decide_at", "carrier", "origin", "dest", "distance", "minute_of_day", "weekday"]
    every = flights()
    until = pl.datetime(2014, 5, 1, 7, time_zone="UTC")  # midnight in Seattle
    past = every.filter(pl.col("decide_at") < until)
    past.filter(pl.col("late").is_not_null()).select(*columns, "late").write_parquet(HERE / "data" / "flights.parquet")
    departures = ["flight_id", "departed_at", "origin", "dep_delay"]
    every.filter(pl.col("departed_at") < until).select(departures).sort("departed_at", "flight_id").write_parquet(
        HERE / "data" / "departures.parquet"
    )
    every.filter(pl.col("decide_at") >= until - timedelta(days=2)).select(
        *columns, "late", "departed_at", "arrived_at", "dep_delay"
    ).write_parquet(HERE / "data" / "later.parquet")


if __name__ == "__main__":
    main()
