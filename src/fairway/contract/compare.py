"""What changed between two contracts, and what each change does to those who send requests or train from the table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from fairway.contract.columns import Column, Contract, Rule
from fairway.contract.dump import toml_value

Effect = Literal["breaks", "changes", "widens", "none"]

_TABLE_ONLY = ("null_values", "decimal", "zone", "unique", "monotonic")
_SAME_WIRE = {("int", "float"), ("string", "text"), ("text", "string"), ("category", "string"), ("category", "text")}
_ORDER: tuple[Effect, ...] = ("breaks", "changes", "widens", "none")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One key of one column (or rule) that differs. one, other: as contract.toml writes them, None where there is none.

    effect: "breaks" (what was right is refused), "changes" (accepted, and means something else), "widens" (what was
    refused is accepted), "none" (readers, logs and drift only). says: in words, what it does to whom.
    """

    column: str
    key: str
    one: str | None
    other: str | None
    effect: Effect
    says: str

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def compare(one: Contract, other: Contract) -> tuple[Change, ...]:
    """All changes from `one` to `other`; those that break something first."""
    found = _columns(one, other) + _sources(one, other) + _rules(one.rules, other.rules)
    if one.rows != other.rows:
        says = "other numbers of rows are refused in training"
        found.append(_change("", "rows", one.rows, other.rows, "changes", says))
    if one.fresh != other.fresh:
        found.append(_change("", "fresh", one.fresh, other.fresh, "changes", "another age is refused in training"))
    return tuple(sorted(found, key=lambda change: _ORDER.index(change.effect)))


def _change(column: str, key: str, one: Any, other: Any, effect: Effect, says: str) -> Change:
    written = [None if value is None else toml_value(value) for value in (one, other)]
    return Change(column=column, key=key, one=written[0], other=written[1], effect=effect, says=says)


def _columns(one: Contract, other: Contract) -> list[Change]:
    before, after = ({c.name: c for c in contract.columns} for contract in (one, other))
    asked = [{c.name for c in contract.request_columns} for contract in (one, other)]
    found: list[Change] = []
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        was, now = name in asked[0], name in asked[1]
        if old is None and new is not None:
            found.append(_new(new, now))
        elif new is None and old is not None:
            says = "a request that sends it is refused (unknown_field)" if was else "it is not read any more"
            found.append(_change(name, "column", old.type, None, "breaks" if was else "none", says))
        elif old is not None and new is not None:
            found += _between(old, new, was, now)
    return found


def _new(column: Column, asked: bool) -> Change:
    must = asked and not column.nulls and column.role != "at"
    says = "a request without it is refused (missing_field)" if must else "callers may leave it out"
    says = says if asked else "it is no part of a request"
    return _change(column.name, "column", None, column.type, "breaks" if must else "widens" if asked else "none", says)


def _between(old: Column, new: Column, was: bool, now: bool) -> list[Change]:
    found: list[Change] = []
    if was and not now:
        says = "a request that sends it is refused (unknown_field)"
        found.append(_change(old.name, _why(old, new), *_values(old, new), "breaks", says))
    elif now and not was:
        must = not new.nulls and new.role != "at"
        says = "a request without it is refused (missing_field)" if must else "callers may send it"
        found.append(_change(old.name, _why(old, new), *_values(old, new), "breaks" if must else "widens", says))
    elif old.role != new.role or old.known != new.known:
        found.append(_change(old.name, _why(old, new), *_values(old, new), "changes", "it is used for something else"))
    for key in (f.name for f in fields(Column)):
        a, b = (getattr(column, key) for column in (old, new))
        if key == "max_length":
            a, b = old.longest, new.longest
        if a == b or key in ("name", "role", "known", "why", "assumed"):
            continue
        if key == "max_length" and old.type != new.type:
            continue  # another type has another limit
        effect, says = _effect(key, old, new, asked=was and now)
        found.append(_change(old.name, key, a if a != () else None, b if b != () else None, effect, says))
    return found


def _why(old: Column, new: Column) -> str:
    return "role" if old.role != new.role else "known"


def _values(old: Column, new: Column) -> tuple[str, str]:
    return (old.role, new.role) if old.role != new.role else (old.known, new.known)


def _effect(key: str, old: Column, new: Column, *, asked: bool) -> tuple[Effect, str]:
    """What another value of a key does. asked: the column is part of a request before and after."""
    if key in ("seen", "log"):
        says = {"seen": "drift and flags only", "log": "how the log keeps it from now on"}[key]
        return "none", says
    if key == "unit":
        return "changes", "the same numbers mean something else: models trained before read them wrongly"
    if key in _TABLE_ONLY:
        return "changes", "how the table is read or refused in training; requests are not touched"
    narrows, says = _narrowing(key, old, new)
    if narrows is None:
        return "changes", says
    if not narrows:
        return "widens", says
    return ("breaks" if asked else "changes"), says


def _narrowing(key: str, old: Column, new: Column) -> tuple[bool | None, str]:
    """Whether what was right may be refused now (None: it is read otherwise), and that in words."""
    if key == "type":
        widened = (old.type, new.type) in _SAME_WIRE
        says = f"a value of type {old.type} is {'still read' if widened else 'refused (wrong_type)'}"
        return (None, f"{says}; models trained before do not take it") if widened else (True, says)
    if key == "nulls":
        return (old.nulls, "a row without it is refused" if old.nulls else "it may be null or left out")
    if key == "range":
        return _range(old, new)
    if key == "values":
        return _listed(old, new)
    if key == "unseen":
        reject = new.unseen == "reject"
        return reject, "a value outside the list is refused" if reject else "a value outside the list becomes null"
    if key == "max_length":
        return new.longest < old.longest, f"at most {new.longest:,} are allowed"
    if key == "length":
        return True, "a vector of the old length is refused (wrong_length)"
    if key == "pattern":
        return new.pattern is not None, "another pattern is asked for" if new.pattern else "any text is accepted"
    if key == "formats":
        gone = set(old.formats) - set(new.formats) if old.formats else {"other"}
        narrowed = bool(new.formats) and bool(gone)
        return narrowed, "some images are refused" if narrowed else "more images are accepted"
    return None, "it differs"


def _range(old: Column, new: Column) -> tuple[bool, str]:
    if new.range is None:
        return False, "every value is accepted"
    (low, high), (old_low, old_high) = new.range, old.range or (None, None)
    below = low is None or (old_low is not None and low <= old_low)  # type: ignore[operator]
    above = high is None or (old_high is not None and high >= old_high)  # type: ignore[operator]
    inside = old.range is not None and below and above
    return not inside, "more values are accepted" if inside else "values outside are refused (out_of_range)"


def _listed(old: Column, new: Column) -> tuple[bool | None, str]:
    gone = [value for value in old.values if value not in new.values]
    added = [value for value in new.values if value not in old.values]
    kept = [value for value in new.values if value in old.values]
    moved = kept != [value for value in old.values if value in new.values] or new.values[: len(kept)] != tuple(kept)
    said = [f"+ {', '.join(added)}"] * bool(added) + [f"- {', '.join(gone)}"] * bool(gone)
    if gone and new.unseen == "reject":
        return True, f"{'; '.join(said)}: the removed values are refused"
    if gone or moved:
        said = said or ["another order"]
        return None, f"{'; '.join(said)}: places in the list move, so codes mean something else until a new training"
    return False, f"{'; '.join(said)}: no longer null and flagged"


def _sources(one: Contract, other: Contract) -> list[Change]:
    before, after = dict(one.sources), dict(other.sources)
    found: list[Change] = []
    for name in dict.fromkeys((*before, *after)):
        inner = [Contract(columns=contract.get(name, ())) for contract in (before, after)]
        for change in _columns(*inner):
            found.append(Change(**{**vars(change), "column": f"sources.{name}.{change.column}"}))
    return found


def _rules(one: Sequence[Rule], other: Sequence[Rule]) -> list[Change]:
    before, after = ({r.name: _said(r) for r in rules} for rules in (one, other))
    found: list[Change] = []
    for name in dict.fromkeys((*before, *after)):
        a, b = before.get(name), after.get(name)
        if a == b:
            continue
        effect: Effect = "widens" if b is None else "breaks"
        says = "rows that it refused are accepted" if b is None else "rows that break it are refused (rule_broken)"
        found.append(_change(f"rules.{name}", "rule", a, b, effect, says))
    return found


def _said(rule: Rule) -> str:
    return rule.check + (f" when {rule.when}" if rule.when else "")
