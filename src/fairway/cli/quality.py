"""A table's standing by its contract, on the terminal: what is broken in full, the rest as a count."""

from collections.abc import Mapping
from typing import Any

from fairway.cli.terminal import table
from fairway.contract.result import places
from fairway.web.words import count

_SHOWN = 3  # bad rows of each rule


def lines(found: Mapping[str, Any], *, reviewed: bool = True) -> list[str]:
    """The result of `Quality.as_dict` in words."""
    rules = found["rules"]
    bad = [rule for rule in rules if rule["verdict"] != "pass"]
    broken = sum(rule["verdict"] == "fail" for rule in bad)
    said = f"{broken} of {count(len(rules), 'rule')} broken" if broken else f"{count(len(rules), 'rule')} hold"
    note = "" if reviewed else "; nobody has reviewed contract.toml yet"
    shown = [f"{found['table']}   {count(found['rows'], 'row')}   {said}{note}"]
    cells = []
    for rule in bad:
        first = places(rule, _SHOWN)
        more = ", …" if rule["broken"] > len(first) and first else ""
        what = "; ".join(first) + more if first else rule["told"]
        n = f"{rule['broken']:,}" if rule["verdict"] == "fail" and rule["rows"] else ""
        cells.append([rule["rule"], rule["verdict"], rule["says"], n, what])
    if cells:
        shown += table([["RULE", "", "WHAT MUST HOLD", "ROWS", "THE FIRST"], *cells], indent="  ", gap=3, right=[3])
    hints = dict.fromkeys(rule["hint"] for rule in bad if rule["hint"])
    shown += [f"  {hint}" for hint in hints]
    return shown + [f"  {text}" for text in _flags(found["flags"])] + [f"  {text}" for text in found["warnings"]]


def _flags(flags: Mapping[str, int]) -> list[str]:
    says = {"unseen": "never seen, and become null", "out_of_seen": "outside of what was seen"}
    found = []
    for flag, n in sorted(flags.items()):
        kind, _, column = flag.partition(":")
        values = f"{n:,} value is" if n == 1 else f"{n:,} values are"
        found.append(f"column {column}: {values} {says.get(kind, kind)}")
    return found
