"""Late flights: will a flight land more than 15 minutes late? Asked one hour before its scheduled departure."""

import polars as pl
import polars.selectors as cs
from sklearn.ensemble import HistGradientBoostingClassifier

import fairway


@fairway.view(source="departures", entity="origin", window="2h")
def recent_delay(departures: pl.DataFrame) -> pl.DataFrame:
    """How late the flights were that left the same airport in the last two hours, in minutes."""
    return departures.group_by("origin", "at").agg(recent_delay=pl.col("dep_delay").mean())


def features(data: pl.DataFrame) -> pl.DataFrame:
    """One row in, one row out: also called for every request. Categories are in contract.toml."""
    return data.drop("flight_id", "decide_at").with_columns(cs.enum().to_physical())


def train(X: pl.DataFrame, y: pl.Series, params: dict) -> HistGradientBoostingClassifier:
    model = HistGradientBoostingClassifier(
        categorical_features=["carrier", "origin", "dest"], random_state=0, early_stopping=False, **params
    )
    return model.fit(X, y)
