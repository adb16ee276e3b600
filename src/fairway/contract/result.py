"""A table's standing by its contract, for machines (JSON) and for a browser (HTML, everything escaped)."""

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line shows results without loading what makes them
    from fairway.contract.examine import Examined, RuleResult

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:70rem}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}"
    "td.n{text-align:right}.fail{font-weight:600}ul{margin:0;padding-left:1rem}"
)


def as_dict(found: "Examined", *, table: str = "") -> dict[str, Any]:
    """{"table", "rows", "verdict", "rules": [...], "flags": {...}, "warnings": [...]}."""
    return {
        "table": table,
        "rows": found.rows,
        "verdict": found.verdict,
        "rules": [result.as_dict() for result in found.results],
        "flags": dict(found.flags),
        "warnings": list(found.warnings),
    }


def as_html(found: "Examined", *, table: str = "") -> str:
    """A page of its own: every rule, how many rows break it, and the first of them. No script, nothing from outside."""
    broken = len(found.broken)
    said = f"{broken:,} of {len(found.results):,} rules are broken" if broken else f"{len(found.results):,} rules hold"
    order = {"fail": 0, "unknown": 1, "pass": 2}
    lines = [_row(result) for result in sorted(found.results, key=lambda r: order[r.verdict])]
    notes = [f"{count:,} rows flagged {flag}" for flag, count in sorted(found.flags.items())] + list(found.warnings)
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{escape(table)}: contract</title><style>{_STYLE}</style>"
        f"<h1>{escape(table)}</h1><p>{found.rows:,} rows; {said}.</p>"
        "<table><thead><tr><th>Rule<th>What must hold<th>Verdict<th>Rows that break it<th>The first</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>{f'<h2>Noticed</h2><ul>{listed}</ul>' if notes else ''}</html>\n"
    )


def _row(result: "RuleResult") -> str:
    first = "".join(f"<li>{escape(text)}</li>" for text in places(result.as_dict()))
    shown = f"<ul>{first}</ul>" if first else escape(result.told)
    broken = f"{result.broken:,}" if result.verdict == "fail" else ""
    return (
        f'<tr class="{result.verdict}"><td>{escape(result.rule)}<td>{escape(result.says)}<td>{result.verdict}'
        f'<td class="n">{broken}<td>{shown}</tr>'
    )


def places(result: dict[str, Any], most: int = 10) -> list[str]:
    """The first bad rows in words: "row 12: 99", with the file where there are several columns or files."""
    rows = result["rows"][:most]
    files = {row["file"] for row in rows}
    found = []
    for row in rows:
        values = row["values"]
        several = len(values) > 1
        text = ", ".join(f"{name} {value}" if several else value for name, value in values.items())
        where = f"{row['file']} row {row['row']:,}" if len(files) > 1 else f"row {row['row']:,}"
        found.append(f"{where}: {text}")
    return found
