"""The model.py that `new` writes: a plain baseline that handles nulls, categories, dates and text, and serves fast."""

import textwrap
from datetime import timedelta

import polars as pl

from fairway.contract.infer import Inferred

PARAMS = {"learning_rate": 0.05, "max_leaf_nodes": 15, "max_iter": 100}
_LONG_SPAN = timedelta(days=400)  # a month says something when it comes back
_MANY = 40  # more category columns than this are named by their suffix instead of one by one
_WIDTH = 110


def model_py(name: str, found: Inferred) -> str:
    """Its text: at most 30 lines. Column names are written as Python literals, whatever is in them."""
    kind = "Regressor" if found.task == "regression" else "Classifier"
    features = [c for c in found.contract.columns if c.role == "feature" and c.known == "request"]
    categories = [c.name for c in features if c.type == "category"]
    many = len(categories) > _MANY
    title = name.replace("-", " ").replace("_", " ").capitalize()
    lines = [f'"""{title}: the only code this project needs. A row is {_about(found)}."""', "", "import polars as pl"]
    lines += ["import polars.selectors as cs"] if categories or any(c.type == "bool" for c in features) else []
    lines += [f"from sklearn.ensemble import HistGradientBoosting{kind}", ""]
    if categories and not many:
        lines += [*_listed("CATEGORIES", categories), ""]
    lines += [
        "",
        "def features(data: pl.DataFrame) -> pl.DataFrame:",
        '    """One row in, one row out: also called for every request. Categories are in contract.toml."""',
        *_features(found, many),
        "",
        "",
        f"def train(X: pl.DataFrame, y: pl.Series, params: dict) -> HistGradientBoosting{kind}:",
        '    """Nulls need no filling here; params come from [train] in fairway.toml."""',
    ]
    chosen = "CATEGORIES" if categories else "[]"
    if many:
        lines.append('    codes = [name for name in X.columns if name.endswith("_code")]')
        chosen = "codes"
    lines += [
        f"    model = HistGradientBoosting{kind}(",
        f"        categorical_features={chosen}, random_state=0, early_stopping=False, **params",
        "    )",
        "    return model.fit(X, y)",
    ]
    return "\n".join(lines) + "\n"


def _about(found: Inferred) -> str:
    if found.entity is not None:
        return f"one {found.entity}" + (f" at its {found.at}" if found.at is not None else "")
    return f"what is known at {found.at}" if found.at is not None else "one case"


def _listed(name: str, values: list[str]) -> list[str]:
    """A list of names over as few lines as fit."""
    one = f"{name} = [{', '.join(map(_literal, values))}]"
    if len(one) <= _WIDTH:
        return [one]
    inner = textwrap.wrap(", ".join(map(_literal, values)) + ",", _WIDTH - 4, break_long_words=False)
    joined = [f"    {line}" for line in inner]
    # A name with blanks may have been broken over two lines: then each stands on its own.
    whole = all(any(_literal(v) in line for line in joined) for v in values)
    return [f"{name} = [", *(joined if whole else [f"    {_literal(v)}," for v in values]), "]"]


def _literal(name: str) -> str:
    text = repr(name)
    return f'"{name}"' if text[1:-1] == name and '"' not in name else text


def _features(found: Inferred, many: bool) -> list[str]:
    """The body of features(): what is dropped, and what is made of the rest, row by row."""
    columns = [c for c in found.contract.columns if c.role == "feature" and c.known == "request"]
    dropped = [name for name in (found.entity, found.at) if name is not None]
    made = []
    if any(c.type == "category" for c in columns) and not many:
        made.append("cs.enum().to_physical(),  # the place in the contract's list; never seen is null")
    if any(c.type == "bool" for c in columns):
        made.append("cs.boolean().cast(pl.Int8),")
    for c in found.contract.columns:
        timely = c.name == found.at or (c in columns and c.type in ("datetime", "date"))
        if timely:
            dropped += [c.name] if c.name not in dropped else []
            made += _parts(c.name, c.zone, found.frame[c.name])
    for name in found.texts:
        dropped.append(name)
        made += _of_text(name)
    dropped += list(found.strings)
    if many:
        made.append('cs.enum().to_physical().name.suffix("_code"),  # the place in the list; never seen is null')
    drops = [*(["cs.enum()"] if many else []), *map(_literal, dropped)]
    end = f".drop({', '.join(drops)})" if drops else ""
    if not made:
        return [f"    return data{end}"]
    return ["    made = data.with_columns(", *(f"        {line}" for line in made), "    )", f"    return made{end}"]


def _parts(name: str, zone: str | None, values: pl.Series) -> list[str]:
    """Hour, weekday and, over more than a year, month of a time, where they vary."""
    column = f"pl.col({_literal(name)})"
    local = f'{column}.dt.convert_time_zone("{zone}")' if zone not in (None, "UTC") else column
    parts = ["weekday"]
    if values.dtype != pl.Date and values.drop_nulls().dt.hour().n_unique() > 1:
        parts.insert(0, "hour")
    low, high = values.min(), values.max()
    if low is not None and high is not None and high - low > _LONG_SPAN:  # type: ignore[operator]
        parts.append("month")
    return [f"{local}.dt.{part}().alias({_literal(f'{name}_{part}')})," for part in parts]


def _of_text(name: str) -> list[str]:
    column = f"pl.col({_literal(name)})"
    return [
        f"{column}.str.len_chars().alias({_literal(name + '_length')}),",
        f'{column}.str.count_matches(r"\\S+").alias({_literal(name + "_words")}),',
        f'{column}.str.count_matches(r"[0-9]").alias({_literal(name + "_digits")}),',
        f'{column}.str.count_matches(r"[A-Z]").alias({_literal(name + "_capitals")}),',
        f'{column}.str.count_matches(r"[!?£$€%]").alias({_literal(name + "_marks")}),',
    ]
