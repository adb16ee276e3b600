"""What can be wrong with a project, and the check that must refuse it by name: two for each check.

model: text put in place of another in the honest model.py. package: a change of the built package. wrong_build: a
change after which the manifest is made to agree. settings: text added to fairway.toml. given: a
change of what is checked.
process: only a real child process can show it.
"""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pack
import polars as pl

from fairway.checks.suite import CheckInput

FEATURES = 'ratio=pl.col("charge") / (pl.col("tenure").abs() + 1.0))'
RETURN = '    return data.drop("id")'
FIT = "HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=7, random_state=0, early_stopping=False).fit(X, y)"


@dataclass(frozen=True)
class Fault:
    name: str
    check: str
    says: str = ""
    table: Callable[[], pack.Table] = pack.binary
    model: tuple[tuple[str, str], ...] = ()
    package: Callable[[Path], None] | None = None
    wrong_build: Callable[[Path], None] | None = None
    settings: str = ""
    given: Callable[[CheckInput], CheckInput] | None = None
    process: bool = False

    def build(self, folder: Path) -> CheckInput:
        table = self.table()
        source = table.model
        for old, new in self.model:
            assert old in source, f"{self.name}: {old!r} is not in model.py"
            source = source.replace(old, new)
        given = pack.build(table, folder, model=source, settings=self.settings)
        if self.wrong_build is not None:
            pack.rebuild(given.package, self.wrong_build)
        if self.package is not None:
            self.package(given.package)
        return self.given(given) if self.given else given


def _feature(expression: str) -> tuple[tuple[str, str], ...]:
    return ((FEATURES, FEATURES[:-1] + f", odd={expression})"),)


def _code(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "code" / "model.py"
        text = path.read_text()
        assert old in text, old
        path.write_text(text.replace(old, new))

    return change


def _object(body: str) -> tuple[tuple[str, str], ...]:
    """A predict() of the project, with `p` the model's probability of yes."""
    return ((FIT, f"{FIT}\n\n\ndef predict(model, X):\n    p = model.predict_proba(X)[:, 1]\n{body}"),)


def _stale(folder: Path) -> None:
    """The model files of another training."""
    other = folder.parent / "other"
    pack.build(pack.binary(600), other, model=pack.BINARY_MODEL.replace("max_iter=30", "max_iter=9"))
    shutil.rmtree(folder / "model")
    shutil.copytree(other / "package" / "model", folder / "model")


def _unproven(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"chosen": true', '"chosen": false'))


def _inexact(folder: Path) -> None:
    import json

    path = folder / "manifest.json"
    value = json.loads(path.read_text())
    value["runtime"]["candidates"][0]["max_diff"] = 0.01
    path.write_text(json.dumps(value))


def _flip_byte(folder: Path) -> None:
    path = folder / "model" / "trees.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _extra_file(folder: Path) -> None:
    (folder / "code" / "helper.py").write_text("x = 1\n")


def _with_column(values: Callable[[CheckInput], pl.Series]) -> Callable[[CheckInput], CheckInput]:
    """The answer planted in an input column of the training rows."""

    def change(given: CheckInput) -> CheckInput:
        return dataclasses.replace(given, train=given.train.with_columns(values(given)))

    return change


def _copied(given: CheckInput) -> pl.Series:
    return pl.Series("charge", given.y_train * 10.0)


def _nearly_copied(given: CheckInput) -> pl.Series:
    noise = np.random.default_rng(0).normal(0, 0.4, len(given.y_train))
    return pl.Series("charge", given.y_train * 2.0 + noise)


def _overlap(rows: int) -> Callable[[CheckInput], CheckInput]:
    return lambda given: dataclasses.replace(given, heldout=pl.concat([given.heldout, given.train[:rows]]))


_LOOKS_AHEAD = (
    'return departures.group_by("origin", "at").agg(recent_delay=pl.col("delay").mean())',
    "pairs = departures.select(\"origin\", \"at\").unique()\n"
    "    import glob, pathlib\n"
    "    every = pl.read_ipc(pathlib.Path(\"{events}\"))\n"
    "    apart = (pl.col(\"left_at\") - pl.col(\"at\")).abs()\n"
    "    seen = pairs.join(every, on=\"origin\").filter(apart < pl.duration(hours=2))\n"
    "    return seen.group_by(\"origin\", \"at\").agg(recent_delay=pl.col(\"delay\").mean())",
)  # fmt: skip


def views_from_file(folder: Path) -> Fault:
    """A view that reads the whole table by itself, two hours ahead included."""
    path = folder / "departures.arrow"
    pack.flights().events["departures"].write_ipc(path)
    old, new = _LOOKS_AHEAD
    return Fault("view reads the future from a file", "views-point-in-time", "made from something else",
                 table=pack.flights, model=((old, new.format(events=path)),))  # fmt: skip


_ALONE = "    if data.height == 1:\n        {body}\n"

_FORGETS = (
    (".fit(X, y)", ".fit(X, y)])"),
    ("return Hist", "return Fitted([Hist"),
    ("def features", """class Fitted(list):
    pass


def predict(model, X):
    return model[0].predict_proba(X)[:, 1] if model[0] else 0.3 + 0.0 * X["tenure"].to_numpy()


def save(model, folder):
    (folder / "m").write_text("x")


def load(folder):
    return [None]


def features"""),
)  # fmt: skip


def _copied_rows(table: Callable[[], pack.Table]) -> Callable[[], pack.Table]:
    """Every row twice, under two ids: as of a join that went wrong."""

    def twice() -> pack.Table:
        honest = table()
        other = pl.col("id") + 1_000_000 if honest.frame["id"].dtype.is_integer() else pl.lit("again ") + pl.col("id")
        again = honest.frame.with_columns(id=other)
        return dataclasses.replace(honest, frame=pl.concat([honest.frame, again]))

    return twice


def _target_was(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[CheckInput], CheckInput]:
    def given(honest: CheckInput) -> CheckInput:
        y = np.concatenate([honest.y_train, honest.y_heldout])
        return dataclasses.replace(honest, champion="shop@1", y_champion=change(y))

    return given


FAULTS: list[Fault] = [
    # features that look at other rows
    Fault("frame mean", "row-wise-features", 'column "odd"', model=_feature('pl.col("charge").mean()')),
    Fault("shift", "row-wise-features", 'column "odd"', model=_feature('pl.col("tenure").shift(1)')),
    Fault("rank", "row-wise-features", 'column "odd"', model=_feature('pl.col("charge").rank()')),
    Fault("rows dropped alone", "row-wise-features", "returned 0 rows for 1",
          model=((RETURN, '    data = data.filter((pl.len() > 1) | (pl.col("tenure") < 0))\n' + RETURN),)),
    Fault("state counter", "row-wise-features", "a second time",
          model=((RETURN, "    COUNT.append(1)\n" + RETURN), ("def features", "COUNT = []\n\n\ndef features"),
                 *_feature("pl.lit(float(len(COUNT)))"))),
    # views
    Fault("view over all that was asked", "views-point-in-time", 'column "recent_delay"', table=pack.flights,
          model=(('.agg(recent_delay=pl.col("delay").mean())',
                  '.agg(recent_delay=pl.col("delay").mean()).with_columns(recent_delay=pl.col("recent_delay").rank())'),)),
    # reloading and runtime
    Fault("stale artifact", "package-reload", "otherwise than the trained one", wrong_build=_stale),
    Fault("save() forgets", "package-reload", "otherwise than the trained one", model=_FORGETS),
    Fault("stale trees", "native-runtime", "answers otherwise", wrong_build=_stale),
    Fault("no proof", "native-runtime", "no proof", package=_unproven),
    Fault("inexact runtime", "native-runtime", "no proof", package=_inexact),
    Fault("byte changed", "package-intact", "model/trees.bin was changed", package=_flip_byte),
    Fault("file added", "package-intact", "does not belong", package=_extra_file),
    # the same again
    Fault("unseeded model", "determinism-train", "under one seed",
          model=(("HistGradientBoostingClassifier", "RandomForestClassifier"),
                 ("max_iter=30, max_leaf_nodes=7, random_state=0, early_stopping=False", "n_estimators=5, max_depth=4"),
                 ("X, y)", "X.fill_null(0).to_numpy(), y.to_numpy())"), ("def features", "def predict(model, X):\n"
                  "    return model.predict_proba(X.fill_null(0).to_numpy())\n\n\ndef features"))),
    Fault("rows drawn anew", "determinism-train", "under one seed",
          model=((".fit(X, y)", ".fit(X[PICK(len(X))], y[LAST[0]])"),
                 ("def features", "import numpy as np\nLAST = [0]\n\n\ndef PICK(n):\n    LAST[0] = "
                  "np.random.default_rng().integers(0, n, n)\n    return LAST[0]\n\n\ndef features"))),
    Fault("noise in answers", "determinism-predict", "another answer",
          wrong_build=_code("def features", "import random\n\n\ndef features"),
          model=_object("    import random\n    return p * 0.9 + 0.1 * random.Random().random()\n")),
    Fault("scaled by the batch", "determinism-predict", "another answer",
          model=_object("    return p / (p.max() + 1e-9) * 0.9\n")),
    # names and order
    Fault("swapped columns", "feature-schema", "columns are swapped",
          wrong_build=_code(FEATURES, FEATURES + '.select(pl.col("charge"), pl.all().exclude("charge"))')),
    Fault("feature gone", "feature-schema", "columns are swapped, gone or new",
          wrong_build=_code(FEATURES, FEATURES + '.drop("region")')),
    Fault("columns renamed by place", "column-order", "not supported for dtype",
          model=((RETURN, "    data = data.rename(dict(zip(data.columns, NAMES)))\n" + RETURN),
                 ("def features", 'NAMES = ["id", "tenure", "charge", "plan", "region", "senior"]\n\n\ndef features'))),
    Fault("a column taken by place", "column-order", "in another order",
          model=((FEATURES, FEATURES[:-1] + ", tenure=data.to_series(1).to_physical().cast(pl.Float64))"),)),
    # answers
    Fault("NaN output", "output-range", "finite",
          wrong_build=_code("    return p\n", "    p[:] = float('nan')\n    return p\n"),
          model=_object("    return p\n")),
    Fault("probability above 1", "output-range", "within 0..1",
          wrong_build=_code("    return p\n", "    return p + 1.0\n"), model=_object("    return p\n")),
    Fault("slow alone", "latency-budget", "p99", settings='[endpoint]\np99 = "10ms"\n',
          model=((RETURN, _ALONE.format(body="__import__('time').sleep(0.03)") + RETURN),)),
    Fault("slow on one category", "latency-budget", "p99", settings='[endpoint]\np99 = "10ms"\n',
          model=((RETURN, "    if data.height == 1 and data['plan'][0] == 'pro':\n"
                  "        __import__('time').sleep(0.03)\n" + RETURN),)),
    # extreme requests
    Fault("crash on unseen", "extreme-category", "unseen",
          model=((RETURN, "    if data['plan'].null_count():\n        raise KeyError('unseen plan')\n" + RETURN),)),
    Fault("look-up without unseen", "extreme-category", "column",
          model=_feature("pl.Series([{'north': 1, 'south': 2, 'west': 3}[v] for v in data['region'].to_list()])")),
    Fault("breaks on huge", "extreme-float", "huge",
          model=((RETURN, "    if (data['charge'].abs() > 1e100).any():\n"
                  "        raise OverflowError('too large')\n" + RETURN),)),
    Fault("infinite feature", "extreme-float", "column \"charge\"", model=_feature('pl.col("charge") * 1e10')),
    Fault("minus one", "extreme-int", "minus one",
          model=((RETURN, "    if (data['tenure'] == -1).any():\n"
                  "        raise ValueError('negative tenure')\n" + RETURN),)),
    Fault("int32 only", "extreme-int", "int", model=_feature('pl.col("tenure").cast(pl.Int32)')),
    Fault("needs a plain id", "extreme-string", "id",
          model=((RETURN, "    data['id'].str.slice(1).cast(pl.Int64)\n" + RETURN),)),
    Fault("id with a newline", "extreme-string", "id",
          model=((RETURN, "    assert not data['id'].str.contains('\\n').any(), 'a newline'\n" + RETURN),)),
    Fault("false is missing", "extreme-bool", "false",
          model=((RETURN, "    assert data.height > 300 or data['senior'].any(), 'no seniors'\n" + RETURN),)),
    Fault("true is unknown", "extreme-bool", "true",
          model=((RETURN, "    assert data.height > 300 or not data['senior'].all(), 'only seniors'\n" + RETURN),)),
    Fault("early days", "extreme-date", "1900", table=pack.regression,
          model=(('    return data.drop("id")', "    assert data['sold'].dt.year().min() >= 1960, 'too early'\n"
                  '    return data.drop("id")'),)),
    Fault("epoch day", "extreme-date", "epoch", table=pack.regression,
          model=(('    return data.drop("id")', "    assert (data['sold'].to_physical() != 0).all(), 'day 0'\n"
                  '    return data.drop("id")'),)),
    Fault("old times", "extreme-datetime", "epoch", table=pack.flights,
          model=(('    return data.drop("id", "decide_at")',
                  "    assert data['decide_at'].dt.year().min() > 1970, 'old'\n"
                  '    return data.drop("id", "decide_at")'),)),
    Fault("leap day", "extreme-datetime", "leap day", table=pack.flights,
          model=(('    return data.drop("id", "decide_at")', "    leap = (data['decide_at'].dt.ordinal_day() == 60) & "
                  "(data['decide_at'].dt.month() == 2)\n    assert not leap.any(), 'leap'\n"
                  '    return data.drop("id", "decide_at")'),)),
    Fault("pairs refused", "extreme-row", "two rows",
          model=((RETURN, "    assert data.height != 2 and data.height != 3, 'two'\n" + RETURN),)),
    # what the numbers say
    Fault("noise", "better-than-base-rate", "not shown to know more",
          model=(("with_columns(codes, " + FEATURES, 'select(noise=pl.col("id").hash(1) % 1000)'),
                 ("def features(data", "def features(data"), ('data.drop("id").select', "data.select"))),
    Fault("turned around", "better-than-base-rate", "not shown to know more", model=_object("    return 1.0 - p\n")),
    Fault("auc gate", "metric-gate-auc", "wanted >= 0.99", settings='[gates]\nauc = ">= 0.99"\n'),
    Fault("brier gate", "metric-gate-brier", "wanted < 0.01", settings='[gates]\nbrier = "< 0.01"\n'),
    Fault("copied label", "leak-suspect", "'charge'", given=_with_column(_copied)),
    Fault("nearly copied label", "leak-suspect", "'charge'", given=_with_column(_nearly_copied)),
    Fault("one row in both", "train-heldout-apart", "1 held-out rows", given=_overlap(1)),
    Fault("many rows in both", "train-heldout-apart", "50 held-out rows", given=_overlap(50)),
    Fault("joined twice", "copies-apart", "copies of training rows", table=_copied_rows(pack.binary),
          model=(("max_iter=30, max_leaf_nodes=7", "max_iter=200, max_leaf_nodes=None, min_samples_leaf=1"),)),
    Fault("numbers joined twice", "copies-apart", "copies of training rows", table=_copied_rows(pack.regression),
          model=(("max_iter=30, max_leaf_nodes=7", "max_iter=200, max_leaf_nodes=None, min_samples_leaf=1"),)),
    Fault("other unit", "target-steady", "Another unit?", table=pack.regression, given=_target_was(lambda y: y / 1000)),
    Fault("class lost", "target-steady", "has none now", table=pack.multiclass,
          given=lambda g: dataclasses.replace(_target_was(np.copy)(g), y_train=g.y_train.clip(0, 1),
                                              y_heldout=g.y_heldout.clip(0, 1))),
    # only a process of its own can show these
    Fault("segfault alone", "row-wise-features", "signal 11", process=True,
          model=((RETURN, _ALONE.format(body="__import__('ctypes').string_at(0)") + RETURN),)),
    Fault("hangs alone", "row-wise-features", "did not come back", process=True,
          model=((RETURN, _ALONE.format(body="__import__('time').sleep(60)") + RETURN),)),
    Fault("exits alone", "row-wise-features", "sys.exit", process=True,
          model=((RETURN, _ALONE.format(body="__import__('sys').exit(0)") + RETURN),)),
]  # fmt: skip
