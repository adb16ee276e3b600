"""The read models as lines for a person: one function per kind of thing. Pure: values in, lines out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fairway import clock
from fairway.cli import jobs
from fairway.cli.terminal import table
from fairway.web import evidence
from fairway.web.words import (
    VERDICTS,
    ago,
    alone,
    count,
    equality,
    estimates,
    live_metric,
    local,
    number,
    person,
    plain,
    shares,
    short,
    steps,
    sums_rows,
    traffic,
)

Json = dict[str, Any]


# -- status ----------------------------------------------------------------------------------------------------------


def status(found: Json) -> list[str]:
    now = clock.parse_iso(found["at"])
    lines = [f"AS IT WAS: {found['moved']}", ""] if found["moved"] else []
    if found["models"]:
        rows = [["MODEL", "LIVE", "TRAFFIC", "LIVE METRIC (95 %)", "STATE", "MISSING"]]
        rows += [model_row(line) for line in found["models"]]
        lines += table(rows, gap=3)
    else:
        lines.append("no model here yet; in a project's folder: fairway train")
    if found["reviews"]:
        lines += ["", "NEEDS A PERSON"]
        lines += table(
            [
                [
                    r["review"],
                    r["model"],
                    r["question"],
                    f"open {ago(r['opened_at'], now)}",
                    f"fairway show {r['review']}",
                ]
                for r in found["reviews"]
            ],
            indent="  ",
        )
    if found["rollouts"]:
        lines += ["", "ROLLING OUT"]
        lines += table(
            [
                [r["rollout"], r["model"], f"{r['champion'] or 'none'} -> {r['challenger']}", r["phase"],
                 f"since {ago(r['started_at'], now)}", f"fairway show {r['rollout']}"]
                for r in found["rollouts"]
            ],
            indent="  ",
        )  # fmt: skip
    if found["alarms"]:
        lines += ["", "ALARMS"]
        lines += table(
            [
                [
                    a["alarm"],
                    a["model"],
                    a["severity"],
                    f"{a['kind']}: {a['subject']}",
                    f"open {ago(a['opened_at'], now)}",
                ]
                for a in found["alarms"]
            ],
            indent="  ",
        )
    lines += jobs.failed_lines(found["failed_jobs"])
    if found.get("broken"):
        lines += ["", "SETTINGS"]
        lines += [f"  {model}: {error}" for model, error in found["broken"].items()]
        lines.append("  What is served goes on as it was deployed; training waits until this is right.")
    lines.append("")
    serving = found.get("serving")
    if serving:
        lines.append(f"serving at {serving.get('predict')}; pages at {serving.get('console')}")
    else:
        lines.append("nothing serves this workspace; start it with: fairway serve")
    return lines


def store_away(found: Json) -> list[str]:
    """What can be said without the store: what this machine's gateways answer with."""
    lines, serving, ready = [found["store"]], found["serving"], found["ready"]
    if serving is None:
        return [*lines, "nothing serves this workspace on this machine"]
    if ready is None:
        return [*lines, f"the gateways at {serving['predict']} don't answer: look into .fairway/serve/"]
    lines.append(f"serving at {serving['predict']} what the store said last; predictions are kept until it is back")
    rows = [
        [name, f"@{live['champion']}" if live["champion"] else "", f"epoch {live['epoch']}"]
        for name, live in sorted(found["active"].items())
    ]
    lines += table(rows, indent="  ")
    return lines if ready["ready"] else [*lines, f"  still loading: {', '.join(ready['loading'])}"]


def model_row(line: Json) -> list[str]:
    return [
        line["model"],
        str(line["live"]) if line["live"] is not None else "-",
        traffic(line),
        live_metric(line),
        line["state"],
        ", ".join(line["missing"]) or "-",
    ]


# -- models, versions, runs ------------------------------------------------------------------------------------------


def model(found: Json) -> list[str]:
    end = found["endpoint"]
    lines = [f"{found['model']}   {found['task']}, risk {found['risk']}, owner {found['owner']}   {found['state']}"]
    if end is None:
        lines.append("  live       nothing: no version was deployed")
    elif not end["shares"]:
        lines.append(f"  live       nothing ({end['state']}): callers get 503 no_champion")
    else:
        lines.append(f"  live       {shares(end)}   since {local(end['changed_at'])}, by {end['changed_by']}")
    lines.append(f"  traffic    {traffic(found)}")
    lines.append(f"  metric     {live_metric(found)}")
    lines += _equality(found["windows"])
    lines += [f"  {source['source']:<10} {_source(source)}" for source in found["sources"]]
    lines += ["", *listing("versions", found["versions"])] if found["versions"] else []
    for kind in ("rollouts", "alarms", "reviews"):
        if found[kind]:
            lines += ["", *listing(kind, found[kind][:10])]
    return lines


def _equality(windows: Sequence[Json]) -> list[str]:
    """The newest window whose predictions were recomputed."""
    for window in reversed(windows):
        told = (window["judgement"] or {}).get("equality")
        if told and told["n"]:
            since = local(window["start_at"])
            return [f"  equality   {equality(told)}: predictions of the window from {since}, recomputed as in training"]
    return []


def _source(found: Json) -> str:
    """A table as it was last read."""
    newest = f", newest {local(found['newest'])}" if found["newest"] else ""
    said = {"held": f"   HELD: {found['review']}", "accepted": f"   accepted: {found['review']}"}.get(
        found["state"], ""
    )
    return f"{found['rows']:,} rows{newest}, read {local(found['read_at'])}{said}"


def version(found: Json) -> list[str]:
    lines = [
        f"{found['model']}@{found['version']}   {VERDICTS.get(found['verdict'], found['verdict'])}",
        f"  made       {local(found['created_at'])} by {found['author']} in {found['run']}",
        f"  from       {short(found['dataset'] or '-')}, {found['contract']}, artifact {found['artifact'][:12]}",
    ]
    if found["trained_until"]:
        lines.append(f"  until      {local(found['trained_until'])} (newest training row)")
    lines += ["", *metrics(found["metrics"])]
    if found["checks"]:
        lines += ["", *checks(found["checks"])]
    return lines


def metrics(found: Any) -> list[str]:
    """A version's figures with their 95 % intervals."""
    rows = [
        [name, number(value), f"{number(low)} - {number(high)}" if low is not None and high is not None else ""]
        for name, value, low, high in estimates(found)
    ]
    return table(rows, indent="  ", right=[1])


def checks(found: Sequence[Json], *, only: Sequence[str] | None = None) -> list[str]:
    rows = [
        [str(check.get("name")).replace("_", " "), str(check.get("verdict")), str(check.get("summary") or "")]
        for check in found
        if only is None or check.get("verdict") in only
    ]
    return table(rows, indent="  ")


def run(found: Json) -> list[str]:
    took = f" after {found['seconds']:.1f} s" if found["seconds"] is not None else ""
    made = f" -> {found['version']}" if found["version"] else ""
    lines = [f"{found['run']}   {found['model']}{made}   {found['status']}{took}   {found['cause']}"]
    if found["error"]:
        lines += ["  " + line for line in str(found["error"]).splitlines()[:5]]
        lines.append(f"  log: fairway show {found['run']} --log")
    lines += table(
        [
            [step["name"], str(step.get("text", "")), f"{step.get('seconds', 0):.1f} s",
             "cached" if step.get("cached") else ""]
            for step in found["steps"]
        ],
        indent="  ", right=[2],
    )  # fmt: skip
    lines += [f"  noticed    {note}" for step in found["steps"] for note in step.get("notes", ())]
    if found["status"] == "done":
        lines.append(f"  Report: {found['folder']}/report.html")
    return lines


def dataset(found: Json) -> list[str]:
    columns = found["columns"]
    return [
        f"{short(found['dataset'])}   {count(found['rows'], 'row')}, {count(len(columns), 'column')}"
        f"   {local(found['created_at'])}",
        f"  id         {found['dataset']}",
        f"  versions   {', '.join(found['versions']) or 'none'}",
        *fields({"origin": found["origin"]}),
    ]


# -- rollouts, alarms, reviews ---------------------------------------------------------------------------------------


def rollout(found: Json) -> list[str]:
    champion = f"@{found['champion']}" if found["champion"] else "no champion"
    lines = [
        f"{found['rollout']}   {found['model']}   {found['champion'] or 'none'} -> {found['challenger']}   "
        f"{found['phase'].replace('_', ' ').upper()}",
        f"  started    {local(found['started_at'])} by {found['started_by']}"
        + (f", ended {local(found['ended_at'])}" if found["ended_at"] else ""),
    ]
    stages = steps(found)
    if stages:
        lines.append("  steps      " + "   ".join(f"{step['text']} {step['state']}" for step in stages))
    if found["shares"]:
        lines.append(f"  shares     {shares({'shares': found['shares'], 'shadows': []})}")
    rows = [["", champion, f"@{found['challenger']}"], *(list(row) for row in sums_rows(found["totals"]))]
    if not found["champion"]:  # a first version: nothing stands beside it
        rows = [[alone(name), theirs] for name, _, theirs in rows]
    if len(rows) > 1:
        lines += ["", *table(rows, indent="  ", right=[1, 2])]
    decision = found["decision"] or (found["looks"][-1]["decision"] if found["looks"] else None)
    if decision:
        lines += ["", *decision_lines(decision)]
    lines.append(f"  {count(len(found['looks']), 'look')}; again from the stored sums: "
                 f"fairway show {found['rollout']} --recompute")  # fmt: skip
    return lines


def decision_lines(decision: Json) -> list[str]:
    """One look's decision, its rule and each test with its figures."""
    lines = [f"  {decision['decision']:<10} {decision['text']}"]
    rows = [["TEST", "EVIDENCE", "FOUND", "INTERVAL", ""]]
    rows += [[test.name, test.evidence, test.found, test.interval, test.said]
             for test in evidence.tests(decision.get("checks") or ())]  # fmt: skip
    return lines + (["", *table(rows, indent="  ")] if len(rows) > 1 else [])


def recomputed(found: Json, again: Json) -> list[str]:
    """A look decided again, its evidence beside the stored one: equal, or what differs."""
    rows = evidence.again(again["stored"], again["computed"])
    said = "equal" if again["equal"] else "NOT equal"
    lines = [f"{found['rollout']}: look {again['look']} decided again from its stored sums: {said}", ""]
    shown = [["", "STORED", "COMPUTED", ""]]
    shown += [[what, one, two, "" if equal else "differs"] for what, one, two, equal in rows]
    lines += [*table(shown, indent="  ", right=[1, 2]), "", f"  {again['computed']['text']}"]
    return lines


def prediction(found: Json) -> list[str]:
    """One row of one request: who answered what, what turned out to be true, and what it was asked with."""
    answers = found.get("answers") or {}
    lines = [
        f"{found['prediction']}   {found['model']}   asked {local(clock.iso(found['at']))}",
        f"  {'request':<10} {found['request_id']}, row {found['row']}"
        + (f", {found['entity']}" if found.get("entity") else ""),
        f"  {'assigned':<10} @{found['arm']}, share {plain(found['propensity'])}"
        + (f", {found['rollout']}" if found.get("rollout") else ""),
    ]
    for version, answer in answers.items():
        said = plain(answer["output"]) if answer.get("status") == "ok" else str(answer.get("status"))
        lines.append(f"  {answer.get('role', 'answer'):<10} @{version}: {said}   {plain(answer.get('latency_ms'))} ms")
    known = (
        f"{found['label']}, since {local(clock.iso(found['label_at']))}" if found.get("label_at") else "not known yet"
    )
    lines.append(f"  {'label':<10} {known}")
    if found.get("flags"):
        lines.append(f"  {'flags':<10} {plain(found['flags'])}")
    for name in ("inputs", "looked_up"):
        if found.get(name):
            lines += fields({name: found[name]})
    return lines


def prediction_rows(found: Json, rows: Sequence[Json]) -> list[str]:
    """The rows that the challenger answered badly come first; at most 20 are printed."""
    challenger = str(found["challenger"])

    def status_of(row: Json) -> str:
        answers = row.get("answers")
        if isinstance(answers, str):
            import json

            answers = json.loads(answers)
        return str((answers or {}).get(challenger, {}).get("status", "-"))

    ordered = sorted(rows, key=lambda row: status_of(row) in ("ok", "-"))
    lines = [f"{found['rollout']}: {count(len(rows), 'prediction')}"]
    shown = [["PREDICTION", "AT", "ARM", "@" + challenger, "LABEL"]]
    shown += [
        [str(r["prediction_id"]), str(r["at"])[:19], str(r.get("arm") or "-"), status_of(r), str(r.get("label"))]
        for r in ordered[:20]
    ]
    lines += table(shown, indent="  ")
    if len(rows) > 20:
        lines.append(f"  ... {len(rows) - 20:,} more with --json")
    return lines


def alarm(found: Json) -> list[str]:
    ended = f"closed {local(found['closed_at'])}" if found["closed_at"] else "open"
    lines = [
        f"{found['alarm']}   {found['model']}   {found['severity']}: {found['kind']} of {found['subject']}   {ended}",
        f"  {'opened':<12} {local(found['opened_at'])}",
    ]
    lines += [f"  {name:<12} {text}" for name, text in evidence.alarm_facts(found)]
    if found["action"]:
        lines.append(f"  {'done':<12} {evidence.done(found['action'])}")
    return lines


def review(found: Json) -> list[str]:
    due = f", answer by {local(found['due_at'])}" if found["due_at"] else ""
    state = f"answered: {found['answer']}" if found["answer"] else "open" + due
    lines = [
        f"{found['review']}   {found['question']}",
        f"  about      {found['subject']} of {found['model']}, asked {local(found['opened_at'])}",
        f"  for        {found['assignee']}   {state}",
    ]
    facts = dict(found["evidence"])
    looked = evidence.tests(facts.pop("checks", None) or ())
    lines += fields(facts)
    if looked:
        lines += ["", *table([[t.name, t.evidence, t.found, t.interval, t.said] for t in looked], indent="  "), ""]
    if found["answer"]:
        lines.append(f"  answer     {found['answer']} by {found['answered_by']}, {local(found['answered_at'])}")
        if found["why"]:
            lines.append(f"  why        {found['why']}")
        return lines
    choices = found["choices"]
    pairs = list(choices.items()) if isinstance(choices, Mapping) else [(str(c), "") for c in choices]
    for place, (name, effect) in enumerate(pairs):
        lines.append(f"  {'choices' if place == 0 else '':<10} {name:<10} {effect}".rstrip())
    if found["not_by"]:
        lines.append(f"  not by     {found['not_by']}: the author may not answer")
    first = pairs[0][0] if pairs else "CHOICE"
    lines.append(f'  Answer: fairway answer {found["review"]} {first} --why "..."')
    return lines


# -- lists and plain fields ------------------------------------------------------------------------------------------


def _move(r: Json) -> str:
    return f"{r['champion'] or 'none'} -> {r['challenger']}"


LISTS: dict[str, tuple[list[str], Callable[[Json], list[str]]]] = {
    "models": (["MODEL", "LIVE", "TRAFFIC", "LIVE METRIC (95 %)", "STATE", "MISSING"], model_row),
    "runs": (
        ["RUN", "MODEL", "STATUS", "VERSION", "CAUSE", "STARTED"],
        lambda r: [r["run"], r["model"], r["status"], r["version"] or "-", r["cause"], local(r["started_at"])],
    ),
    "versions": (
        ["VERSION", "VERDICT", "METRICS", "DATA", "MADE", "BY"],
        lambda v: [f"{v['model']}@{v['version']}", v["verdict"], metrics_short(v["metrics"]),
                   short(v["dataset"] or "-"), local(v["created_at"]), person(v["author"])],
    ),
    "datasets": (
        ["DATASET", "ROWS", "MADE"],
        lambda d: [short(d["dataset"]), f"{d['rows']:,}", local(d["created_at"])],
    ),
    "rollouts": (
        ["ROLLOUT", "MODEL", "MOVE", "PHASE", "STARTED", "ENDED"],
        lambda r: [r["rollout"], r["model"], _move(r), r["phase"], local(r["started_at"]), local(r["ended_at"])],
    ),
    "alarms": (
        ["ALARM", "MODEL", "SEVERITY", "WHAT", "OPENED", "CLOSED"],
        lambda a: [a["alarm"], a["model"], a["severity"], f"{a['kind']}: {a['subject']}", local(a["opened_at"]),
                   local(a["closed_at"])],
    ),
    "reviews": (
        ["REVIEW", "MODEL", "QUESTION", "FOR", "OPENED", "ANSWER"],
        lambda r: [r["review"], r["model"], r["question"], r["assignee"], local(r["opened_at"]), r["answer"] or "open"],
    ),
}  # fmt: skip


LISTS |= jobs.LISTS


def listing(kind: str, found: Sequence[Any]) -> list[str]:
    """A list as a table; of what has no table, each as its fields."""
    if not found:
        return [f"no {kind}"]
    if kind not in LISTS:
        return [line for item in found for line in (fields(item) if isinstance(item, dict) else [str(item)])]
    head, row = LISTS[kind]
    return table([head, *(row(item) for item in found)])


def metrics_short(found: Any) -> str:
    """The first two figures of a version's metrics."""
    return ", ".join(f"{name} {number(value)}" for name, value, _, _ in estimates(found)[:2]) or "-"


def fields(value: Json, *, indent: int = 2, depth: int = 0) -> list[str]:
    """Any JSON object as "name  value" lines, nested ones deeper; long lists are cut, with their length said."""
    width = max((len(str(name)) for name in value), default=0)
    width = max(width, 10) if depth == 0 else width
    lines = []
    for name, item in value.items():
        head = " " * indent + str(name).replace("_", " ").ljust(width)
        if isinstance(item, Mapping) and item:
            lines.append(head.rstrip())
            lines += fields(dict(item), indent=indent + 2, depth=depth + 1)
        elif isinstance(item, list) and item and isinstance(item[0], Mapping):
            lines.append(f"{head} {count(len(item), 'entry', 'entries')}")
            for entry in item[:5]:
                lines.append(" " * (indent + 2) + ", ".join(f"{k} {plain(v)}" for k, v in entry.items()))
        else:
            lines.append(f"{head} {plain(item)}".rstrip())
    return lines
