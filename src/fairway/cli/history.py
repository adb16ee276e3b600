"""What a backtest led to, as lines for a person. Pure: values in, lines out."""

from typing import Any

from fairway.cli.terminal import table
from fairway.web.words import local

Json = dict[str, Any]


def backtest(found: Json) -> list[str]:
    """The live metric week by week, then what the loop did, in the order in which it happened."""
    lines = [
        f"{found['model']}   {found['from'][:10]} to {found['to'][:10]}   {found['predictions']:,} predictions, "
        f"{found['labels']:,} labels, {found['events']:,} source events",
        "",
        *table([["WEEK FROM", "PREDICTIONS", "LABELLED", "LIVE METRIC (95 %)"], *(_week(w) for w in found["weeks"])]),
        "",
    ]
    happened = sorted(_happened(found))
    lines += table([[local(at), what] for at, what in happened], indent="  ") if happened else ["  nothing happened"]
    return [*lines, "", f"Look closer:  cd {found['folder']}  then  fairway status, fairway show rollouts"]


def _week(week: Json) -> list[str]:
    if week["metric"] is None:
        metric = f"unknown: {week['why']}"
    else:
        metric = f"{week['metric'].upper()} {week['value']:.3f} ({week['low']:.3f} to {week['high']:.3f})"
    return [week["from"], f"{week['predictions']:,}", f"{week['labels']:,}", metric]


def _happened(found: Json) -> list[tuple[str, str]]:
    model = found["model"]
    events = [(v["created_at"], f"{model}@{v['version']} trained; gate: {v['verdict']}") for v in found["versions"]]
    for rollout in found["rollouts"]:
        move = f"{rollout['rollout']} {rollout['champion'] or 'none'} -> {rollout['challenger']}"
        events.append((rollout["started_at"], f"{move} starts"))
        if rollout["ended_at"]:
            events.append((rollout["ended_at"], f"{move} {rollout['phase'].replace('_', ' ')}"))
    for alarm in found["alarms"]:
        events.append(
            (alarm["opened_at"], f"{alarm['alarm']} {alarm['severity']}: {alarm['kind']}, {alarm['subject']}")
        )
        if alarm["closed_at"]:
            events.append((alarm["closed_at"], f"{alarm['alarm']} closed"))
    events += [(review["opened_at"], f"{review['review']} asks: {review['question']}") for review in found["reviews"]]
    return events
