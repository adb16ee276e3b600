"""The report: self-contained, escaped, complete when data are missing, the same in Markdown."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from fairway.path.charts import Axis, Line, hbars, lines, ticks
from fairway.path.report import RunReport, html, markdown, verdict, write_report
from fairway.training.evaluate import BASE_RATE, base_rate, evaluate

NASTY = '<script>alert("x")</script>'


def check(name: str, verdict: str, **more: object) -> dict[str, object]:
    base = {"name": name, "verdict": verdict, "summary": "because", "seconds": 0.1, "evidence": {}, "ask": False}
    return base | {"repeat": f"fairway check churn@2 --only {name}"} | more


def report(task: str = "binary", **more: object) -> RunReport:
    rng = np.random.default_rng(0)
    n = 800
    frame = pl.DataFrame({"kind": rng.choice(["a", NASTY], n, p=[0.6, 0.4])})
    if task == "regression":
        y = rng.normal(50, 10, n)
        found = evaluate("regression", y, y + rng.normal(0, 3, n), slices=frame,
                         rivals={BASE_RATE: base_rate("regression", y, k=0, n=n)})  # fmt: skip
    elif task == "multiclass":
        y = rng.integers(0, 3, n)
        found = evaluate("multiclass", y, rng.dirichlet([1, 1, 1], n), classes=("a", "b", NASTY))
    else:
        y = (rng.random(n) < 0.3).astype(np.int64)
        p = 1 / (1 + np.exp(-(2 * (y - 0.5) + rng.normal(size=n))))
        found = evaluate("binary", y, p, classes=("no", "yes"), slices=frame, champion=np.clip(p + 0.05, 0, 1),
                         rivals={BASE_RATE: base_rate("binary", y, k=2, n=n)})  # fmt: skip
    fields: dict[str, object] = {
        "model": "churn", "run": "run-7f3a", "task": task, "risk": "medium", "answer": "pass", "version": 2,
        "champion": "churn@1", "evaluation": found.as_dict(), "checks": [check("package-reload", "pass")],
        "data": {"source": NASTY}, "importance": [(NASTY, 0.2), ("b", -0.01)], "row": {"id": "O'Hare", "x": NASTY},
        "columns": [{"name": "tenure", "type": "int", "known": "request", "nulls": 0, "note": NASTY}],
    }  # fmt: skip
    return RunReport(**fields | more)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_page_is_self_contained_and_escaped(task: str, tmp_path: Path) -> None:
    path = write_report(tmp_path / "run-1", report(task))
    page = path.read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r'(src|href)="(?!#)', page), "nothing is loaded from elsewhere"
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(charts) == {"binary": 4, "multiclass": 2, "regression": 3}[task]
    for chart in charts:
        ElementTree.fromstring(chart)
        assert "nan" not in chart
    assert page.count("<section>") == page.count("</section>") and page.count("<div") == page.count("</div")
    assert "churn@2 may be deployed." in page and (tmp_path / "run-1" / "report.md").exists()


def test_a_refused_version_says_what_blocks_and_how_to_repeat() -> None:
    page = html(report(answer="fail", checks=[check("row-wise-features", "fail"), check("b", "pass")]))
    assert "may not be deployed: 1 of 2 checks block it (row-wise-features)" in page
    assert "fairway check churn@2 --only row-wise-features" in page
    asks = report(answer="ask", risk="high", checks=[check("contract-reviewed", "skip", ask=True)])
    assert "needs a person" in verdict(asks) and "contract-reviewed" in verdict(asks)


def test_missing_parts_are_said_not_invented() -> None:
    bare = RunReport(model="churn", run="run-1", task="binary", risk="low", answer="fail", evaluation={},
                     evaluation_error="outputs of row 3 are not finite")  # fmt: skip
    page = html(bare)
    assert "outputs of row 3 are not finite" in page and "nothing was checked" in page
    assert "Call it" not in page
    assert "| check |" not in markdown(bare)


def test_markdown_has_the_same_sections_and_escapes() -> None:
    text = markdown(report())
    titles = re.findall(r"^## (.+)$", text, flags=re.M)
    assert titles == re.findall(r'<h2 id="s\d+">(.+?)</h2>', html(report()))
    assert "| on the same rows | AUC |" in text and "\\<script\\>" in text


def test_the_shell_line_survives_a_quote() -> None:
    page = markdown(report())
    assert "O'\\''Hare" in page


def test_charts_of_odd_ranges_do_not_break() -> None:
    assert ticks(0, 1)[-1] == 1.0 and ticks(3, 3) == [3] and len(ticks(-1e9, 1e9)) <= 7
    ElementTree.fromstring(lines("flat", Axis("x", 1, 1), Axis("y", 2, 2), [Line("a & b", [(1, 2)], dots=True)]))
    ElementTree.fromstring(hbars("zeros", [("<a>", 0.0), ("b", -1e-9)]))
