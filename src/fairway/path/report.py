"""The report of a run: one HTML file that opens offline and prints, and the same sections as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairway.path import page
from fairway.path.charts import Axis, Bar, Line, hbars, lines
from fairway.path.page import Block, Chart, Code, Page, Section, Table

NAME = "report.html"


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What the report is made from; everything but the first five may be absent, and its section then says so.

    evaluation: `Evaluation.as_dict()`; evaluation_error: why there is none. checks: `CheckResult.as_dict()` of each.
    answer: the gate's pass, fail or ask. data: facts shown as they are. columns: rows of name, type, known, nulls and
    note. importance: (column, loss added when its values are shuffled), largest first. cost: facts. runtime: of the
    manifest. changes: since the last version. unknown: sentences. reproduce: ids and packages. row: an example request
    row. label: an example of the target.
    """

    model: str
    run: str
    task: str
    risk: str
    answer: str
    version: int | None = None
    owner: str = ""
    made: str = ""
    champion: str | None = None
    evaluation: Mapping[str, Any] | None = None
    evaluation_error: str = ""
    checks: Sequence[Mapping[str, Any]] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    columns: Sequence[Mapping[str, Any]] = ()
    importance: Sequence[tuple[str, float]] = ()
    runtime: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    changes: Sequence[str] = ()
    unknown: Sequence[str] = ()
    reproduce: Mapping[str, Any] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)
    label: Any = None

    @property
    def thing(self) -> str:
        return f"{self.model}@{self.version}" if self.version is not None else self.run


def write_report(folder: Path, report: RunReport) -> Path:
    """Write report.html and report.md into the run's folder; returns the path of the HTML file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    path.write_text(html(report), encoding="utf-8")
    (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    return path


def html(report: RunReport) -> str:
    """The whole page."""
    return page.html(as_page(report))


def markdown(report: RunReport) -> str:
    """The same sections for a pull request."""
    return page.markdown(as_page(report))


def as_page(report: RunReport) -> Page:
    """Title, verdict and sections."""
    about = (report.run, report.task, f"risk {report.risk}", report.owner, report.made)
    return Page(
        title=report.thing, kind="report", about=tuple(a for a in about if a), lead=verdict(report),
        tone=TONE[report.answer], sections=tuple(sections(report)),
    )  # fmt: skip


TONE = {"pass": "pass", "fail": "fail", "ask": "warn"}


def verdict(report: RunReport) -> str:
    """One sentence: may it be deployed, and if not what blocks."""
    blocks = [c for c in report.checks if c["verdict"] in ("fail", "unknown")]
    if report.answer == "pass":
        return f"{report.thing} may be deployed."
    if report.answer == "ask":
        asked = ", ".join(str(c["name"]) for c in report.checks if c.get("ask"))
        return f"{report.thing} needs a person's approval before it is deployed (risk {report.risk}): {asked}."
    if not report.checks:
        return f"{report.thing} may not be deployed: nothing was checked."
    names = ", ".join(str(c["name"]) for c in blocks[:4]) + (" ..." if len(blocks) > 4 else "")
    return f"{report.thing} may not be deployed: {len(blocks)} of {len(report.checks)} checks block it ({names})."


def sections(report: RunReport) -> list[Section]:
    """All sections that have something to say, in the order of the page."""
    parts = [
        Section("Compared", tuple(compared(report))),
        Section("Where it is right and wrong", tuple(_curves(report))),
        Section("Slices", tuple(slices(report))),
        Section("What changed", tuple(report.changes) or ("Nothing to compare with: there is no version before.",)),
        Section("Checks", tuple(_checks(report))),
        Section("Data", tuple(_data(report))),
        Section("Features", tuple(_features(report))),
        Section("Cost", tuple(_cost(report))),
        Section("Not known", tuple(unknown(report))),
        Section("Reproduce", tuple(_reproduce(report))),
        Section("Call it", tuple(call(report))),
    ]
    return [part for part in parts if part.blocks]


def _value(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "unknown"
    plus, size = "+" if signed else "", abs(value)
    if size >= 1000:
        return f"{value:{plus},.0f}"
    if size < 1e-12:
        return "0"
    return f"{value:{plus}.2g}" if size < 5e-5 else f"{value:{plus}.{3 if size >= 0.001 else 4}f}"


def _span(estimate: Mapping[str, Any], *, signed: bool = False) -> str:
    if estimate["value"] is None:
        return f"unknown: {estimate['why']}"
    if estimate["low"] is None:
        return _value(estimate["value"], signed=signed)
    low, high = (_value(estimate[end]) for end in ("low", "high"))
    return f"{_value(estimate['value'], signed=signed)} ({low} to {high})"


_METRIC = {"auc": "AUC", "log_loss": "log loss", "mae": "MAE", "rmse": "RMSE", "r2": "R²", "f1": "F1", "brier": "Brier",
           "balanced_accuracy": "balanced accuracy"}  # fmt: skip
_MAIN = {
    "binary": ("auc", "accuracy", "brier", "log_loss"),
    "multiclass": ("accuracy", "balanced_accuracy", "brier", "log_loss"),
    "regression": ("mae", "rmse", "r2"),
}


def compared(report: RunReport) -> list[Block]:
    found = report.evaluation
    if not found:
        return [f"Not evaluated: {report.evaluation_error or 'the run ended before'}."]
    metrics = [m for m in _MAIN[report.task] if m in found["metrics"]]
    head = ("on the same rows", *(_METRIC.get(m, m) for m in metrics))
    rows = [("this version", *(_span(found["metrics"][m]) for m in metrics))]
    for name, against in found["comparisons"].items():
        title = f"{name} ({report.champion})" if name == "champion" and report.champion else name
        rows.append((title, *(_span(against["metrics"][m]) for m in metrics)))
    blocks: list[Block] = [
        f"{found['rows']}. In brackets: 95 % intervals.",
        Table(head, tuple(rows), tuple(range(1, len(head)))),
    ]
    gaps, said = [], []
    for name, against in found["comparisons"].items():
        gaps.append((f"minus {name}", *(_span(against["differences"][m], signed=True) for m in metrics)))
        gap, loss = against["loss_difference"], _METRIC.get(against["loss"], against["loss"].replace("_", " "))
        word = {"better": "better", "worse": "worse", "neither": "neither better nor worse is shown"}[against["shown"]]
        said.append(f"Against {name}: {word}; {loss} differs by {_span(gap, signed=True)} on {against['n']:,} rows.")
        if against.get("flips") and name == "champion":
            flips = against["flips"]
            said.append(
                f"{flips['differ']:,} decisions differ from the champion's: {flips['b']:,} right to wrong, "
                f"{flips['c']:,} wrong to right (p {flips['p_mid']:.2g})."
            )
    if gaps:
        blocks.append(Table(("difference", *head[1:]), tuple(gaps), tuple(range(1, len(head)))))
    return [*blocks, *said]


def _curves(report: RunReport) -> list[Block]:
    found = report.evaluation
    if not found:
        return []
    blocks: list[Block] = [*_class_charts(found)]
    if found["residuals"]:
        blocks += _residual_charts(found["residuals"])
    if found["thresholds"]:
        keys = ("precision", "recall", "accuracy")
        rows = tuple(
            (f"{r['threshold']:g}", f"{r['flagged']:.1%}", *("-" if r[k] is None else f"{r[k]:.3f}" for k in keys))
            for r in found["thresholds"]
        )
        blocks.append(Table(("flag at or above", "flagged", *keys), rows, (0, 1, 2, 3, 4)))
    if found["confusion"] and len(found["classes"]) <= 12:
        names = [str(c) for c in found["classes"]]
        counts = found["confusion"]
        cells = tuple((n, *(f"{c:,}" for c in row)) for n, row in zip(names, counts, strict=True))
        blocks.append(Table(("true \\ predicted", *names), cells, tuple(range(1, len(names) + 1))))
    return blocks


def _class_charts(found: Mapping[str, Any]) -> list[Chart]:
    charts = []
    if found["roc"]:
        x, y = Axis("false positive rate", 0.0, 1.0), Axis("true positive rate", 0.0, 1.0)
        drawn = [Line("chance", [(0, 0), (1, 1)], 0, dashed=True), Line("this version", found["roc"])]
        charts.append(Chart("ROC", lines("ROC curve", x, y, drawn), f"AUC {_span(found['metrics']['auc'])}"))
        base = found["class_rows"][1] / found["n"]
        x, y = Axis("recall", 0.0, 1.0), Axis("precision", 0.0, 1.0)
        drawn = [Line("base rate", [(0, base), (1, base)], 0, dashed=True), Line("this", found["precision_recall"])]
        note = f"dashed: flag everything, {base:.3f}"
        charts.append(Chart("Precision and recall", lines("Precision and recall", x, y, drawn), note))
    if found["calibration"]:
        table = found["calibration"]
        high = min(1.0, max(max(r["stated"], r["high"]) for r in table) * 1.05) or 1.0
        x, y = Axis("stated probability", 0.0, high), Axis("share that happened", 0.0, high)
        drawn = [
            Line("perfect", [(0, 0), (high, high)], 0, dashed=True),
            Line("this version", [(r["stated"], r["happened"]) for r in table], dots=True),
        ]
        bars = [Bar(r["stated"], min(r["low"], high), min(r["high"], high)) for r in table]
        note = f"mean distance {found['calibration_error']:.3f}; bars: 95 %"
        charts.append(Chart("Calibration", lines("Calibration", x, y, drawn, bars=bars), note))
    return charts


def _residual_charts(found: Mapping[str, Any]) -> list[Block]:
    table = found["by_prediction"]
    if len(table) < 2:
        return [f"Every prediction is about {_value(table[0]['predicted'])}: nothing to draw."] if table else []
    xs, happened = [r["predicted"] for r in table], [r["happened"] for r in table]
    x = Axis("prediction", min(xs), max(xs))
    ends = [0.0, *(r[k] for r in table for k in ("p10", "p90"))]
    left = [
        Line("none", [(x.low, 0), (x.high, 0)], 0, dashed=True),
        Line("median", [(r["predicted"], r["p50"]) for r in table], dots=True),
    ]
    band = Line("80 %", [(r["predicted"], r["p10"], r["p90"]) for r in table])
    y = Axis("truth minus prediction", min(ends), max(ends))
    mean = Axis("mean of what happened", min(xs + happened), max(xs + happened))
    low, high = max(x.low, mean.low), min(x.high, mean.high)
    right = [
        Line("perfect", [(low, low), (high, high)], 0, dashed=True),
        Line("this version", list(zip(xs, happened, strict=True)), dots=True),
    ]
    return [
        Chart("Residuals", lines("Residuals", x, y, left, band=band), "median, and the middle 80 % of the rows"),
        Chart("Calibration", lines("Calibration", x, mean, right), "20 bins of equal rows"),
    ]


def slices(report: RunReport) -> list[Block]:
    found = report.evaluation
    if not found or not (found["slices"] or found["untested"]):
        return []
    blocks: list[Block] = []
    if found["slices"]:
        against, raw = found["sliced_against"], found["slices"][0]["metric"]
        shown = found["slices"][:20]
        rows = tuple((p["name"], f"{p['n']:,}", _span(p), *(_slice_gap(p, raw) if against else ())) for p in shown)
        tones = tuple("fail" if (p["against"] or {}).get("flagged") else "" for p in shown)
        head = ("slice", "rows", _METRIC.get(raw, raw), *((f"minus {against}", "judged") if against else ()))
        blocks += ["Worst first.", Table(head, rows, (1, 2, 3), tones)]
        more = len(found["slices"]) - len(shown)
        if more > 0:
            blocks.append(f"{more} more slices are better than these.")
    if found["untested"]:
        names = "; ".join(f"{u['name']} ({u['n']:,} rows)" for u in found["untested"][:12])
        rest = len(found["untested"]) - 12
        needed = found["untested"][0]["n_needed"]
        blocks.append(f"Too small to tell, {needed} rows needed: {names}{f'; and {rest} more' if rest > 0 else ''}.")
    return blocks


def _slice_gap(part: Mapping[str, Any], metric: str) -> tuple[str, str]:
    """(difference in the metric's own direction, how it is judged) of a slice against the other version."""
    other = part["against"]
    if not other or other["diff"] is None:
        return "-", "-"
    judged = "worse" if other["flagged"] else "not worse" if other["testable"] else "too small to tell"
    return _value(-other["diff"] if metric == "accuracy" else other["diff"], signed=True), judged


def _checks(report: RunReport) -> list[Block]:
    if not report.checks:
        return ["No check ran."]
    order = {"fail": 0, "unknown": 1, "too_few": 2, "skip": 3, "pass": 4}
    tone = {"fail": "fail", "unknown": "fail", "too_few": "warn", "skip": "", "pass": "pass"}
    listed = sorted(report.checks, key=lambda c: order[c["verdict"]])
    words = {"too_few": "too few"}
    rows = tuple(
        (str(c["name"]), words.get(c["verdict"], c["verdict"]), str(c["summary"]), f"{c['seconds']:.2f} s")
        for c in listed
    )
    tones = tuple(tone[c["verdict"]] for c in listed)
    blocks: list[Block] = [Table(("check", "verdict", "evidence", "took"), rows, (3,), tones)]
    commands = [str(c["repeat"]) for c in listed if c["verdict"] in ("fail", "unknown") and c.get("repeat")]
    if commands:
        blocks += ["Repeat what failed:", Code("\n".join(commands))]
    else:
        blocks.append(f"Repeat one of them: fairway check {report.thing} --only NAME")
    return blocks


def _facts(values: Mapping[str, Any]) -> Table:
    return Table(("", ""), tuple((str(k), str(v)) for k, v in values.items()))


def _data(report: RunReport) -> list[Block]:
    blocks: list[Block] = [_facts(report.data)] if report.data else []
    if report.columns:
        keys = ("name", "type", "known", "nulls", "note")
        rows = tuple(tuple("" if c.get(k) is None else str(c.get(k)) for k in keys) for c in report.columns)
        blocks.append(Table(("column", "type", "known", "nulls", ""), rows, (3,)))
    leak = next((c for c in report.checks if c["name"] == "leak-suspect"), None)
    if leak:
        blocks.append(f"Leak suspects: {leak['summary']}.")
    return blocks


def _features(report: RunReport) -> list[Block]:
    if not report.importance:
        return []
    top = [(str(n), float(v)) for n, v in report.importance[:15]]
    note = "loss added when the column's held-out values are shuffled"
    blocks: list[Block] = [Chart("Importance", hbars("Importance of the columns", top), note)]
    rest = len(report.importance) - len(top)
    return [*blocks, f"{rest} more columns matter less."] if rest > 0 else blocks


def _cost(report: RunReport) -> list[Block]:
    facts = dict(report.cost)
    if report.runtime:
        facts["runtime"] = f"{report.runtime.get('kind')}: {report.runtime.get('reason')}"
        for other in report.runtime.get("candidates", ()):
            if not other.get("chosen"):
                facts[f"not {other.get('kind')}"] = other.get("why")
    latency = next((c for c in report.checks if c["name"] == "latency-budget"), None)
    if latency:
        facts["latency"] = latency["summary"]
    return [_facts(facts)] if facts else []


def unknown(report: RunReport) -> list[Block]:
    said: list[str] = [str(s) for s in report.unknown]
    said += [f"{c['name']}: {c['summary']}." for c in report.checks if c["verdict"] in ("too_few", "unknown", "skip")]
    return [*said] if said else ["Nothing is listed as unknown."]


def _reproduce(report: RunReport) -> list[Block]:
    blocks: list[Block] = [_facts(report.reproduce)] if report.reproduce else []
    return [*blocks, Code(f"fairway train --reproduce {report.run}")]


def call(report: RunReport) -> list[Block]:
    if not report.row:
        return []
    import json

    body = json.dumps({"rows": [dict(report.row)]}, ensure_ascii=False, default=str)
    quoted = body.replace("'", "'\\''")
    label = json.dumps(report.label, default=str) if report.label is not None else '"..."'
    curl = (
        f"curl -s localhost:8080/v1/models/{report.model}/predict \\\n"
        '  -H "Authorization: Bearer $(cat .fairway/token)" \\\n'
        f"  --json '{quoted}'\n"
        "curl -s localhost:8080/v1/feedback \\\n"
        '  -H "Authorization: Bearer $(cat .fairway/token)" \\\n'
        f'  --json \'{{"id": "p-...", "label": {label}}}\''
    )
    python = (
        "import httpx, pathlib\n"
        'token = pathlib.Path(".fairway/token").read_text().strip()\n'
        f'answer = httpx.post("http://127.0.0.1:8080/v1/models/{report.model}/predict",\n'
        '                    headers={"Authorization": f"Bearer {token}"},\n'
        f"                    json={json.loads(body)!r})\n"
        'print(answer.json()["outputs"])'
    )
    return [Code(curl), Code(python)]
