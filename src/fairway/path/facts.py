"""What is known of a model's traffic before a rollout: the figures that its plan is made from."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.contract.settings import Settings
from fairway.monitor.losses import Labels, primary_loss, row_loss, score
from fairway.rollout.plan import Facts
from fairway.store import schema
from fairway.store.base import Store

TRAFFIC_SPAN = timedelta(days=7)
LATENCY_ROWS = 20_000
LOSS_ROWS = 2_000
CAP_ROWS = 1_000


def gather(
    store: Store,
    tx: Connection,
    *,
    model: str,
    champion: int,
    settings: Settings,
    labels: Labels,
    metrics: Mapping[str, Any],
    now: datetime,
) -> tuple[Facts, float | None]:
    """(facts, cap of the loss): traffic of the last 7 days and figures of the champion's newest predictions.

    metrics: of the challenger, for the spread of its difference from the champion on held-out rows. Latency is
    measured on the machine's clock and says nothing under a virtual one, so it is left out there.
    """
    table = schema.prediction
    mine = sa.and_(table.c.workspace == store.workspace, table.c.endpoint == model)
    recent = tx.execute(
        sa.select(sa.func.count().label("n"), sa.func.min(table.c.at).label("first")).where(
            mine, table.c.at > now - TRAFFIC_SPAN, table.c.at <= now
        )
    ).one()
    traffic = 0.0
    if recent.n:
        # A short time of traffic is not scaled up beyond what was seen: a burst is no day.
        span = max((now - recent.first) / timedelta(days=1), 1.0)
        traffic = recent.n / min(span, TRAFFIC_SPAN / timedelta(days=1))
    newest = tx.execute(
        sa.select(table.c.answers, table.c.label, table.c.label_at)
        .where(mine)
        .order_by(table.c.at.desc())
        .limit(LOSS_ROWS)
    ).all()
    loss_name = primary_loss(settings)
    scores, losses = [], []
    for row in newest:
        answer = row.answers.get(str(champion))
        if answer is None or answer["status"] != "ok":
            continue
        value = score(answer["output"])
        if value is not None:
            scores.append(value)
        loss = row_loss(loss_name, labels, row.label, answer["output"]) if row.label_at is not None else None
        if loss is not None:
            losses.append(loss)
    judged, scored = len(losses) >= 100, len(scores) >= 100
    facts = Facts(
        traffic_per_day=traffic,
        loss_mean=float(np.mean(losses)) if judged else _champion_loss(metrics),
        loss_sd=float(np.std(losses, ddof=1)) if judged else None,
        sd_diff=_sd_diff(metrics, loss_name),
        slow_ms=None if clock.is_virtual() else _slow(store, tx, model, champion),
        score_mean=float(np.mean(scores)) if scored else None,
        score_sd=float(np.std(scores, ddof=1)) if scored else None,
    )
    capped = loss_name == "absolute_error" and len(losses) >= CAP_ROWS
    return facts, float(np.quantile(losses, 0.999)) if capped else None


def _slow(store: Store, tx: Connection, model: str, champion: int) -> float | None:
    """The latency that 1 % of the champion's last 20,000 requests exceeded; None with fewer."""
    table = schema.prediction
    rows = tx.scalars(
        sa.select(table.c.answers)
        .where(table.c.workspace == store.workspace, table.c.endpoint == model, table.c.arm == champion)
        .order_by(table.c.at.desc())
        .limit(LATENCY_ROWS)
    ).all()
    known = [a[str(champion)]["latency_ms"] for a in rows if a.get(str(champion), {}).get("status") == "ok"]
    return float(np.quantile(known, 0.99)) if len(known) >= 0.99 * LATENCY_ROWS else None


def _comparison(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (metrics.get("comparisons") or {}).get("champion") or {}
    return found


def _sd_diff(metrics: Mapping[str, Any], loss: str) -> float | None:
    """From the 95 % interval of the paired difference of losses on the held-out rows."""
    found = _comparison(metrics)
    gap = found.get("loss_difference") or {}
    low, high, n = gap.get("low"), gap.get("high"), found.get("n") or 0
    if found.get("loss") != loss or low is None or high is None or n < 100 or high <= low:
        return None
    return float((high - low) / 2.0 / 1.96 * np.sqrt(n))


def _champion_loss(metrics: Mapping[str, Any]) -> float | None:
    found = _comparison(metrics)
    value = (found.get("metrics") or {}).get({"absolute_error": "mae"}.get(found.get("loss", ""), found.get("loss")))
    return float(value["value"]) if isinstance(value, Mapping) and value.get("value") is not None else None
