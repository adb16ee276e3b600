"""The model.py that `new` writes: a plain baseline that handles nulls, categories, dates, vectors and text.

Trees on numbers and codes, which serve fast; with free text, a linear model on its words and on all else as numbers,
which are held within what was trained on: a linear model would follow a huge one out of the doubles.
"""

import textwrap

import polars as pl

from fairway.contract.columns import Column
from fairway.contract.infer import Inferred

_TREES = {"learning_rate": 0.05, "max_leaf_nodes": 15, "max_iter": 100}
_LOOKED_AT, _SEVERAL = 10_000, 5  # rows; words, and rows with each
_FEW_ROWS, _FEW_LEAVES = 2_000, 5  # with fewer rows, larger trees learn noise: on one column, worse than its mean
MAX_LINES = 30
_LONG_SPAN_DAYS = 400  # a month says something when it comes back
_WIDTH = 110
_FIXED = "random_state=0, early_stopping=False"
_TIMES = ("datetime", "date")
_COUNTS = (
    ("length", "len_chars()"),
    ("words", r'count_matches(r"\S+")'),
    ("digits", 'count_matches(r"[0-9]")'),
    ("capitals", 'count_matches(r"[A-Z]")'),
    ("marks", 'count_matches(r"[!?£$€%]")'),
)


def params(found: Inferred) -> dict[str, float | int]:
    """What fairway.toml's [train] starts with: arguments of the model that `model_py` writes."""
    if not found.texts:
        return _TREES | ({"max_leaf_nodes": _FEW_LEAVES} if found.frame.height < _FEW_ROWS else {})
    return {"alpha": 1.0} if found.task == "regression" else {"C": 10.0}


def model_py(name: str, found: Inferred) -> str:
    """Its text: at most 30 lines, 45 with free text. Column names are Python literals, whatever is in them."""
    if found.texts:
        return "\n".join(_words(name, found)) + "\n"
    named = _lines(name, found, by_suffix=False)
    lines = named if len(named) <= MAX_LINES else _lines(name, found, by_suffix=True)
    return "\n".join(lines) + "\n"


def _lines(name: str, found: Inferred, *, by_suffix: bool) -> list[str]:
    """by_suffix: category columns are told by the suffix of their codes instead of by a list of names."""
    kind = "Regressor" if found.task == "regression" else "Classifier"
    categories = [c.name for c in _features(found) if c.type == "category"]
    by_suffix = by_suffix and bool(categories)
    title = name.replace("-", " ").replace("_", " ").capitalize()
    body = _body(found, by_suffix)
    lines = [f'"""{title}: the only code this project needs. A row is {_about(found)}."""', "", "import polars as pl"]
    lines += ["import polars.selectors as cs"] if any("cs." in line for line in body) else []
    lines += [f"from sklearn.ensemble import HistGradientBoosting{kind}", ""]
    if categories and not by_suffix:
        lines += [*_listed("CATEGORIES", categories), ""]
    lines += [
        "",
        "def features(data: pl.DataFrame) -> pl.DataFrame:",
        '    """One row in, one row out: also called for every request. Categories are in contract.toml."""',
        *body,
        "",
        "",
        f"def train(X: pl.DataFrame, y: pl.Series, params: dict) -> HistGradientBoosting{kind}:",
        '    """Nulls need no filling here; params come from [train] in fairway.toml."""',
    ]
    if by_suffix:
        lines.append('    codes = [name for name in X.columns if name.endswith("_code")]')
    chosen = "codes" if by_suffix else "CATEGORIES" if categories else "[]"
    return [
        *lines,
        f"    model = HistGradientBoosting{kind}(categorical_features={chosen}, {_FIXED}, **params)",
        "    return model.fit(X, y)",
    ]


def _words(name: str, found: Inferred) -> list[str]:
    """TF-IDF of every text column and one-hot categories beside clipped, standardised numbers, under a linear model."""
    columns = _features(found)
    categories = [c.name for c in columns if c.type == "category"]
    kind = "Ridge" if found.task == "regression" else "LogisticRegression"
    more = "" if found.task == "regression" else "max_iter=1000, "
    title = name.replace("-", " ").replace("_", " ").capitalize()
    body = _body(found, by_suffix=False)
    rare = "min_df=2, " if all(_repeats(found.frame[text]) for text in found.texts) else ""
    parts = f"        *((TfidfVectorizer(sublinear_tf=True, {rare}max_features=50_000), name) for name in TEXTS),"
    return [
        f'"""{title}: the only code this project needs. A row is {_about(found)}."""',
        "",
        "import polars as pl",
        *(["import polars.selectors as cs"] if any("cs." in line for line in body) else []),
        "from sklearn.compose import make_column_transformer",
        "from sklearn.feature_extraction.text import TfidfVectorizer",
        "from sklearn.impute import SimpleImputer",
        f"from sklearn.linear_model import {kind}",
        "from sklearn.pipeline import Pipeline, make_pipeline",
        f"from sklearn.preprocessing import MinMaxScaler, {'OneHotEncoder, ' if categories else ''}StandardScaler",
        "",
        *_listed("TEXTS", list(found.texts)),
        *(_listed("CATEGORIES", categories) if categories else []),
        "",
        "",
        "def features(data: pl.DataFrame) -> pl.DataFrame:",
        '    """One row in, one row out: also called for every request. Categories are in contract.toml."""',
        *body,
        "",
        "",
        "def train(X: pl.DataFrame, y: pl.Series, params: dict) -> Pipeline:",
        '    """The words of each text, and all else as numbers; params come from [train] in fairway.toml."""',
        "    within = MinMaxScaler(clip=True)  # beyond what was trained on counts as its end",
        "    numbers = make_pipeline(SimpleImputer(keep_empty_features=True), within, StandardScaler())",
        "    columns = make_column_transformer(",
        parts,
        *(['        (OneHotEncoder(handle_unknown="ignore"), CATEGORIES),'] if categories else []),
        "        remainder=numbers,",
        "    )",
        f"    return make_pipeline(columns, {kind}({more}**params)).fit(X, y)",
    ]


def _repeats(texts: pl.Series) -> bool:
    """Whether enough words are in several rows each: then one that is in a single row is noise, a name or a number."""
    words = texts.drop_nulls().head(_LOOKED_AT).str.to_lowercase().str.extract_all(r"\w\w+").list.unique().explode()
    return int((words.drop_nulls().value_counts()["count"] >= _SEVERAL).sum()) >= _SEVERAL


def _features(found: Inferred) -> list[Column]:
    """The columns of a request that are neither entity nor time."""
    return [c for c in found.contract.columns if c.role == "feature" and c.known == "request"]


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


def _body(found: Inferred, by_suffix: bool) -> list[str]:
    """The lines of features(): what is made of the columns, row by row, and what is dropped."""
    columns = _features(found)
    made = []
    if any(c.type == "category" for c in columns):
        named = '.name.suffix("_code")' if by_suffix else ""
        made.append(f"cs.enum().to_physical(){named},  # the place in the contract's list; never seen is null")
    if any(c.type == "bool" for c in columns):
        made.append("cs.boolean().cast(pl.Int8),")
    times = [c.name for c in found.contract.columns if c.name == found.at or (c in columns and c.type in _TIMES)]
    for part, names in _parts(found, times).items():
        made.append(f'{_columns(names, "cs.temporal()")}.dt.{part}().name.suffix("_{part}"),')
    texts = list(found.texts)
    if texts:
        made += [f'{_columns(texts, "cs.string()")}.str.{how}.name.suffix("_{what}"),' for what, how in _COUNTS]
        made.append(f'{_columns(texts, "cs.string()")}.fill_null(""),')
    vectors = {c.name: c.length or 1 for c in columns if c.type == "vector"}
    for name, length in vectors.items():
        numbered = _literal(name.replace("{", "{{").replace("}", "}}") + "_{i}")
        made.append(f"pl.col({_literal(name)}).arr.to_struct([f{numbered} for i in range({length})]),")
    images = [c.name for c in columns if c.type == "image"]
    dropped = [name for name in (found.entity, *times, *images, *found.strings) if name is not None]
    drops = ", ".join([*(["cs.enum()"] if by_suffix else []), *map(_literal, dropped)])
    if len(drops) > _WIDTH - 20:  # every text and time is dropped: they can be named by their kind
        strings = set() if texts else {c.name for c in found.contract.request_columns if c.type == "string"}
        others = [_literal(name) for name in dropped if name not in strings and name not in times]
        kinds = [
            k for k, there in (("cs.enum()", by_suffix), ("cs.string()", strings), ("cs.temporal()", times)) if there
        ]
        drops = ", ".join([*kinds, *others])
    end = f".drop({drops})" if drops else ""
    end += f".unnest({', '.join(map(_literal, vectors))})" if vectors else ""
    if not made:
        return [f"    return data{end}"]
    return ["    made = data.with_columns(", *(f"        {line}" for line in made), "    )", f"    return made{end}"]


def _columns(names: list[str], kind: str) -> str:
    """The columns by name, or by their kind where the names would not fit on a line."""
    text = f"pl.col({', '.join(map(_literal, names))})"
    return text if len(text) <= _WIDTH - 50 else kind


def _parts(found: Inferred, names: list[str]) -> dict[str, list[str]]:
    """Hour, weekday and, over more than a year, month of the times, where they vary. Times are UTC."""
    parts: dict[str, list[str]] = {"hour": [], "weekday": list(names), "month": []}
    for name in names:
        values = found.frame[name].drop_nulls()
        if values.dtype != pl.Date and values.dt.hour().n_unique() > 1:
            parts["hour"].append(name)
        days = values.cast(pl.Date).to_physical().to_numpy()
        if days.size and int(days.max()) - int(days.min()) > _LONG_SPAN_DAYS:
            parts["month"].append(name)
    return {part: chosen for part, chosen in parts.items() if chosen}
