"""From a table to its contract and settings: what can be told from the values, and, said apart, what was assumed."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import polars as pl

from fairway.contract.classes import class_name, class_names
from fairway.contract.columns import Column, Contract
from fairway.contract.guess import Guess, guess
from fairway.contract.known import WORDLESS, suspects, telling, words
from fairway.contract.settings import Task
from fairway.contract.toml import nearest
from fairway.errors import DataError, UsageError

Ask = Callable[[str, str], str]  # (question, the answer in brackets) -> the answer
_YES = ("yes", "y", "true", "1", "positive", "pos", "spam", "fraud", "churn", "churned", "late", "default", "up", "bad")
_AT_WORDS = ("at", "ts", "time", "timestamp", "datetime", "date", "when", "day", "dteday")
_ID_WORDS = ("id", "uuid", "guid", "key", "ids", "identifier")
_FEW_CLASSES = 20  # an integer target with more values is a quantity
_ROWS_PER_CLASS = 10


@dataclass(frozen=True)
class Inferred:
    """What `new` writes. frame: typed. decisions: (topic, sentence) in the order they are shown.

    texts: free-text columns; strings: other strings that the baseline leaves out; suspects: column -> why it is
    unsure; assumed: sentences about what the table can't tell.
    """

    contract: Contract
    frame: pl.DataFrame
    task: Task
    target: str
    positive: str | None
    entity: str | None
    at: str | None
    decisions: tuple[tuple[str, str], ...]
    texts: tuple[str, ...]
    strings: tuple[str, ...]
    suspects: dict[str, str]
    assumed: tuple[str, ...]


def infer(
    raw: pl.DataFrame,
    *,
    target: str,
    file: str = "",
    at: str | None = None,
    entity: str | None = None,
    task: str | None = None,
    positive: str | None = None,
    ask: Ask | None = None,
) -> Inferred:
    """Types, roles and doubts about every column. What the caller gives is taken; what is unclear is asked.

    Raises: UsageError for a column that is not there or does not fit its role, DataError for a table that can't be
    learned from (no rows, one class, mixed columns).
    """
    for role, name in (("target", target), ("at", at), ("entity", entity)):
        if name is not None and name not in raw.columns:
            hint = nearest(name, raw.columns)
            says = f"did you mean {hint}?" if hint else f"columns: {', '.join(raw.columns[:30])}"
            raise UsageError(f"no column {name!r} for the {role} in {file or 'the table'}; {says}", field=role)
    if raw.height < 2:
        what = "no rows, only its columns" if not raw.height else "one row; a model needs many"
        raise DataError(f"the table has {what}", file=file or None)
    guesses = {name: guess(raw[name], file=file) for name in raw.columns}
    goal = guesses[target]
    if goal is None:
        raise UsageError(f"{target} is {raw.schema[target]}; a target is a class or a number", field="target")
    found_task, goal_column, topic = _task(goal, task, file)
    positive, said = _positive(goal_column, goal.values, found_task, positive)
    decisions = [("task", said or topic)]
    typed = {name: g for name, g in guesses.items() if g is not None and name != target}

    entity, text = _entity(typed, raw.height, entity, at)
    decisions.append(("entity", text))
    at, text = _at(typed, goal.values, at, ask, entity)
    decisions.append(("time", text))
    if at is not None and typed[at].column.type == "date":
        typed[at] = _as_datetime(typed[at], raw[at])

    columns = [_finish(name, guesses[name], typed, goal_column, raw, entity, at) for name in raw.columns]
    ignored = {c.name: c.why for c in columns if c.role == "ignore"}
    frame = pl.DataFrame([g.values for n, g in typed.items() if n not in ignored] + [goal.values.alias(target)])
    frame = frame.with_columns(_target_values(frame[target], goal_column))
    features = [c for c in columns if c.role == "feature"]
    doubts = suspects(frame, features, target=target, at=at, task=found_task)
    columns = [dataclasses.replace(c, known="unsure", why=doubts[c.name]) if c.name in doubts else c for c in columns]
    features = [c for c in columns if c.role == "feature" and c.known == "request"]
    decisions += _more_decisions(guesses, features, frame, target, found_task, ignored, doubts, raw)
    strings = tuple(c.name for c in features if c.type == "string")
    texts = tuple(c.name for c in features if c.type == "text")
    zones = [c.name for c in columns if "zone" in c.assumed and c.role != "ignore"]
    but = " (but those left out above)" if doubts else ""
    assumed = [f"every column is known when a prediction is asked{but}", "no units"]
    assumed += [f"{', '.join(zones)} in UTC (no zone was written)"] if zones else []
    return Inferred(
        contract=Contract(columns=tuple(columns)),
        frame=frame,
        task=found_task,
        target=target,
        positive=positive,
        entity=entity,
        at=at,
        decisions=tuple(decisions),
        texts=texts,
        strings=strings,
        suspects=doubts,
        assumed=tuple(assumed),
    )


# -- the target ------------------------------------------------------------------------------------------------------


def _task(goal: Guess, wanted: str | None, file: str) -> tuple[Task, Column, str]:
    """The task, the target's column with its classes, and the sentence about it."""
    column, values = goal.column, goal.values.drop_nulls()
    distinct = values.n_unique() if values.len() else 0
    whole = column.type == "int" or (column.type == "float" and bool((values == values.round(0)).all()))
    if distinct == 0:
        raise DataError("is null in every row", file=file or None, column=column.name)
    if distinct == 1:
        raise DataError(
            f"is {values[0]} in every row; there is nothing to tell apart", file=file or None, column=column.name
        )
    if wanted is not None and wanted not in ("binary", "multiclass", "regression"):
        raise UsageError(f"no task {wanted!r}; it is binary, multiclass or regression", field="task")
    guessed = _guess_task(column, values, distinct, whole)
    task = cast(Task, wanted or guessed)
    if task == "regression":
        if column.type not in ("int", "float"):
            raise UsageError(f"regression needs a number; {column.name} is a {column.type}", field="task")
        low, high = cast(float, values.min()), cast(float, values.max())
        text = f"regression: {column.name} is a number, {distinct:,} different values, {low} to {high}"
        return task, dataclasses.replace(column, role="target", known="later", seen=None), text
    if task == "binary" and distinct != 2:
        raise UsageError(f"binary needs two classes; {column.name} has {distinct:,}", field="task")
    if column.type not in ("category", "bool", "int") and not whole:
        raise UsageError(
            f"{column.name} has {distinct:,} different {column.type} values: too many for classes, and no number",
            field="target",
        )
    kind: Literal["int", "category", "bool"] = "int" if whole else cast(Literal["category", "bool"], column.type)
    ordered = values.cast(pl.Int64).unique().sort() if whole else values.unique().sort()
    names = column.values if kind == "category" else tuple(class_name(v) for v in ordered.to_list())
    column = dataclasses.replace(column, type=kind, role="target", known="later", seen=None, values=names)
    if kind == "bool" or names == ("0", "1"):
        column = dataclasses.replace(column, values=())
    why = "" if wanted is None else " (as told)"
    some = ", ".join(names[:6]) + (", …" if distinct > 6 else "")
    return task, column, f"multiclass{why}: {column.name} is one of {distinct:,} classes ({some})"


def _guess_task(column: Column, values: pl.Series, distinct: int, whole: bool) -> Task:
    if distinct == 2 and (column.type in ("category", "bool", "int") or whole):
        return "binary"
    if column.type == "category":
        return "multiclass"
    few = distinct <= _FEW_CLASSES and values.len() >= _ROWS_PER_CLASS * distinct
    if column.type == "int" and few and cast(int, values.min()) >= 0 and cast(int, values.max()) < 10 * _FEW_CLASSES:
        return "multiclass"
    return "regression" if column.type in ("int", "float") else "multiclass"


def _positive(column: Column, values: pl.Series, task: Task, wanted: str | None) -> tuple[str | None, str]:
    if task != "binary":
        if wanted is not None:
            raise UsageError(f"a positive class is for task binary; the task is {task}", field="positive")
        return None, ""
    names = class_names(column)
    whole = values.drop_nulls().cast(pl.Int64) if column.type == "int" else values.drop_nulls()
    counts = {class_name(v): n for v, n in whole.value_counts().iter_rows()}
    if wanted is not None and wanted not in names:
        raise UsageError(
            f"positive {wanted!r} is no class of {column.name}; it has {', '.join(names)}", field="positive"
        )
    known = [n for n in names if n.lower() in _YES]
    rarer = min(names, key=lambda n: (counts[n], n))
    chosen = wanted or (known[0] if len(known) == 1 else rarer)
    share, nulls = counts[chosen] / sum(counts.values()), values.null_count()
    text = f"binary: {column.name} is {chosen} in {100 * share:.1f} % of the rows"
    return chosen, text + (f"; {nulls:,} rows have none and are left out" if nulls else "")


def _target_values(values: pl.Series, column: Column) -> pl.Series:
    return values.cast(pl.Int64) if column.type == "int" and values.dtype.is_float() else values


# -- entity and time -------------------------------------------------------------------------------------------------


def _entity(typed: dict[str, Guess], height: int, wanted: str | None, at: str | None) -> tuple[str | None, str]:
    """The column that says what a row is about: told, or named like an id and (nearly) without repeats."""
    if wanted is not None:
        g = typed.get(wanted)
        if g is None or g.column.type not in ("string", "text", "int", "category"):
            raise UsageError(f"{wanted} can't be the entity: it must be text or a whole number", field="entity")
        if g.values.null_count():
            raise UsageError(f"{wanted} can't be the entity: {g.values.null_count():,} rows have none", field="entity")
        return wanted, f"{wanted}: {g.values.n_unique():,} different values, as told"
    full = {
        n: g for n, g in typed.items()
        if n != at and g.column.type in ("string", "int", "category") and not g.values.null_count()
    }  # fmt: skip
    named = [n for n in full if words(n) and words(n)[-1] in _ID_WORDS]
    unique = [n for n in named if full[n].values.n_unique() == height]
    coded = [
        n for n, g in full.items()
        if g.column.type == "string" and g.values.n_unique() == height
    ]  # fmt: skip
    repeated = [n for n in named if 1 < full[n].values.n_unique() <= height // 2]
    for name in (*unique[:1], *coded[:1]):
        return name, f"{name}: {height:,} different values, none missing"
    if len(repeated) == 1:
        name = repeated[0]
        return name, f"{name}: {full[name].values.n_unique():,} different values; rows of one stay together"
    return None, "no column says what a row is about; requests are told apart by their id"


def _at(
    typed: dict[str, Guess], goal: pl.Series, wanted: str | None, ask: Ask | None, entity: str | None
) -> tuple[str | None, str]:
    """The prediction time: told, or the column of times that is named like one; rows with a label all have it."""
    split = "rows are split by it: the newest are held back"
    if wanted is not None:
        g = typed.get(wanted)
        if g is None or g.column.type not in ("datetime", "date"):
            raise UsageError(f"{wanted} can't be the prediction time: it holds no times", field="at")
        if g.values.null_count():
            raise UsageError(
                f"{wanted} can't be the prediction time: {g.values.null_count():,} rows have none", field="at"
            )
        return wanted, f"{wanted}, as told; {split}"
    times = [n for n, g in typed.items() if g.column.type in ("datetime", "date") and n != entity]
    full = [
        n for n in times
        if not (typed[n].values.is_null() & goal.is_not_null()).any() and typed[n].values.n_unique() > 2
    ]  # fmt: skip
    by_hash = f'rows will be split by a hash of {entity or "the row"}, so "later" can\'t be tested'
    if not full:
        return None, f"no column{' without gaps' if times else ''}; {by_hash}"
    ranked = sorted(full, key=lambda n: (typed[n].column.type != "datetime", _at_rank(n), full.index(n)))
    best = ranked[0]
    if ask is not None and len(full) > 1:
        answer = ask(f"Which column is the time a prediction is asked ({', '.join(ranked)}, or none)?", best).strip()
        if answer == "none":
            return None, f"none, as told; {by_hash}"
        if answer not in ranked:
            raise UsageError(f"{answer!r} is none of {', '.join(ranked)}", field="at")
        return answer, f"{answer}, as told; {split}"
    others = f" ({', '.join(n for n in ranked[1:])} could be it too)" if len(ranked) > 1 else ""
    return best, f"{best}, assumed to be when a prediction is asked{others}; {split}"


def _at_rank(name: str) -> int:
    own = words(name)
    return 0 if name.lower() in _AT_WORDS else 1 if any(w in _AT_WORDS or w.startswith("sched") for w in own) else 2


def _as_datetime(found: Guess, raw: pl.Series) -> Guess:
    column = dataclasses.replace(found.column, type="datetime", zone="UTC", seen=None, assumed=("zone",))
    return Guess(column, found.values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"), found.note)


# -- every column ----------------------------------------------------------------------------------------------------


def _finish(
    name: str, found: Guess | None, typed: dict[str, Guess], goal: Column, raw: pl.DataFrame, entity: str | None,
    at: str | None,
) -> Column:  # fmt: skip
    """The column with its role."""
    if name == goal.name:
        return goal
    if found is None:
        return Column(name=name, type="string", role="ignore", nulls=True, why=_no_type(raw.schema[name]))
    column, values = typed[name].column, typed[name].values
    if name == entity:
        if column.type in ("string", "text"):
            return dataclasses.replace(column, type="string", role="entity", seen=None, log="hash")
        return dataclasses.replace(column, role="entity", seen=None)
    if name == at:
        return dataclasses.replace(column, role="at", nulls=False, seen=None)
    why = _useless(values)
    if why:
        return dataclasses.replace(column, role="ignore", why=why)
    return dataclasses.replace(column, assumed=("known", *column.assumed))


def _no_type(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.List):
        return "its lists are no vectors: those have numbers in them, all finite, and as many in every row"
    return f"{dtype} has no type here"


def _useless(values: pl.Series) -> str | None:
    if values.null_count() == len(values):
        return "it is null in every row"
    if values.drop_nulls().n_unique() == 1 and not values.null_count():
        return "it has the same value in every row"
    if (
        values.dtype == pl.Int64
        and not values.null_count()
        and len(values) > 20
        and (values.diff().drop_nulls() == 1).all()
    ):
        return "it numbers the rows"
    return None


def _more_decisions(
    guesses: dict[str, Guess | None], features: Sequence[Column], frame: pl.DataFrame, target: str, task: Task,
    ignored: dict[str, str | None], doubts: dict[str, str], raw: pl.DataFrame,
) -> list[tuple[str, str]]:  # fmt: skip
    found = []
    notes = [g.note for g in guesses.values() if g is not None and g.note]
    found += [("numbers" if "was text" in note else "nulls", note) for note in notes]
    n = sum(c.type == "category" for c in features)
    if n:
        columns = "1 column" if n == 1 else f"{n} columns"
        found.append(("categories", f"{columns}; a value never seen becomes null and is counted"))
    wide = [c.name for c in features if c.type == "string"]
    if wide:
        counts = ", ".join(f"{name} ({frame[name].n_unique():,} values)" for name in wide)
        found.append(("strings", f"{counts}: too many values for categories"))
    vectors = [f"{c.name} ({c.length:,} numbers)" for c in features if c.type == "vector"]
    found += [("vectors", ", ".join(vectors))] * bool(vectors)
    images = [f"{c.name} ({', '.join(c.formats) or 'bytes of no known format'})" for c in features if c.type == "image"]
    found += [("images", ", ".join(images))] * bool(images)
    if ignored:
        alike = {why: [name for name, same in ignored.items() if same == why] for why in ignored.values()}
        listed = "; ".join(f"{', '.join(names)}: {why}" for why, names in alike.items())
        found.append(("left out", listed))
    found += [("copies", _copies(raw.height - raw.n_unique()))] * (raw.n_unique() < raw.height)
    found.append(("leaks", _leaks(features, frame, target, task, doubts)))
    return found + [("", f"{name}: {why}") for name, why in doubts.items()]


def _copies(n: int) -> str:
    return "1 row is an exact copy of another; kept" if n == 1 else f"{n:,} rows are exact copies of others; kept"


def _leaks(features: Sequence[Column], frame: pl.DataFrame, target: str, task: Task, doubts: dict[str, str]) -> str:
    if doubts:
        one = len(doubts) == 1
        return f"{len(doubts)} column{'' if one else 's'} may be known only later: left out until you say (known = …)"
    if task == "multiclass":
        return "none suspected by name or nulls"
    labelled = frame.filter(pl.col(target).is_not_null()).head(50_000)
    plain = [c for c in features if c.type not in WORDLESS]
    strength = {c.name: telling(labelled[c.name], labelled[target], c, task) for c in plain}
    if not strength:
        return "none suspected"
    best = max(strength, key=lambda n: strength[n])
    word = "rank correlation" if task == "regression" else "AUC"
    return f"none suspected; the best single column is {best}, {word} {strength[best]:.2f}"
