# ruff: noqa: E501  (one mistake and its message per line)
"""fairway.toml and contract.toml: what is read, what is refused and how, and that what is written reads back equal."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.contract.columns import Column, Contract
from fairway.contract.settings import (
    DataSettings,
    EndpointSettings,
    RetrainSettings,
    RolloutSettings,
    Settings,
    SourceSettings,
)
from fairway.contract.text import dump_contract, dump_settings, parse_contract, parse_settings
from fairway.errors import SettingsError

GOOD = """format = 1
name = "churn"
task = "binary"
target = "Churn"
positive = "Yes"
entity = "customerID"
at = "when"
label_delay = "30d"

[data]
source = "../telco.csv"

[train]
learning_rate = 0.05
nested = {depth = [1, 2]}

[gates]
auc = ">= 0.80"

[rollout]
margin = "1%"

[retrain]
every = "never"
"""


def test_a_good_file_is_read() -> None:
    found = parse_settings(GOOD)
    assert found.label_delay == timedelta(days=30)
    assert found.rollout.margin == 0.01
    assert found.retrain.every is None
    assert found.train == {"learning_rate": 0.05, "nested": {"depth": [1, 2]}}


def refusal(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("auc =", "acu =", "fairway.toml line 18: unknown key gates.acu; did you mean auc?"),
        ("[gates]", "[gaets]", "fairway.toml line 17: unknown key gaets; did you mean gates?"),
        ("label_delay", "label_dealy", "line 8: unknown key label_dealy; did you mean label_delay?"),
        ('auc = ">= 0.80"', "auc = 0.8", 'line 18: gates.auc must be a condition such as ">= 0.80", got the number 0.8'),
        ("auc =", "mae =", "unknown key gates.mae; "),
        ('"30d"', "30", 'line 8: label_delay must be a duration in quotes such as "6h" or "unknown", got the number 30'),
        ('"30d"', '"30 days"', 'label_delay is "30 days"; it must be a duration such as 30s, 15min, 6h or 30d'),
        ('"30d"', '"-3d"', 'label_delay is "-3d"'),
        ('margin = "1%"', 'margin = "150%"', "line 21: rollout.margin is 150%; allowed is above 0 to 1"),
        ('margin = "1%"', "margin = -0.1", "rollout.margin is -0.1; allowed is above 0 to 1"),
        ('margin = "1%"', "margin = nan", "rollout.margin is nan; allowed is above 0 to 1"),
        ('margin = "1%"', 'margin = "much"', 'rollout.margin is "much"; it must be a number above 0 to 1'),
        ('margin = "1%"', "shares = [0.1, 0.05]", "rollout.shares must grow from step to step, got [0.1, 0.05]"),
        ('margin = "1%"', "shares = [0.5, 1.5]", "rollout.shares is 1.5; allowed is above 0 to 1"),
        ('margin = "1%"', 'primary = "absolute_error"', 'rollout.primary is "absolute_error"; it must be brier or zero_one'),
        ('margin = "1%"', "n_min = 1.5", "rollout.n_min must be a whole number from 1 to"),
        ('task = "binary"', 'task = "binry"', 'task is "binry"; it must be binary, multiclass or regression (did you mean binary?)'),
        ('task = "binary"', "", "fairway.toml: task is missing"),
        ('"churn"', '"../etc"', 'name is "../etc"; it must be'),
        ('"churn"', '"churn.staging"', 'name is "churn.staging"; it must be'),
        ("format = 1", "format = 2", "format is 2; this fairway reads up to 1: install a newer one"),
        ("format = 1", "", "format is missing"),
        ('source = "../telco.csv"', "", "line 10: data.source is missing"),
        ('source = "../telco.csv"', 'source = "a"\nsql = "select 1"', "line 12: data.sql and data.source are both given"),
        ("learning_rate = 0.05", "learning_rate = nan", "train.learning_rate is nan; numbers must be finite"),
        ("learning_rate = 0.05", "learning_rate = 2014-05-01", "train.learning_rate must be text, number"),
        ('at = "when"', 'at = "Churn"', 'at is "Churn", which is the target'),
        ('every = "never"', 'every = "never"\nevery = "1d"', "line 25: not readable as TOML: this key was given before"),
        ('every = "never"', "every = never", "line 24: not readable as TOML"),
        ('every = "never"', "on_alarm = 1", "retrain.on_alarm must be true or false (no quotes), got the number 1"),
        ('every = "never"', "on_alarm = no", "line 24: not readable as TOML"),
        ('[data]\nsource = "../telco.csv"', "data = 3", "line 10: data must be a table, got the number 3"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(old: str, new: str, says: str) -> None:
    assert old in GOOD
    message = refusal(GOOD.replace(old, new, 1))
    assert says in message
    assert len(message) < 300


def test_gates_belong_to_the_task() -> None:
    text = (
        GOOD.replace('"binary"', '"regression"')
        .replace('positive = "Yes"\n', "")
        .replace("auc", "mae")
        .replace("margin", "n_min = 5 #")
    )
    found = parse_settings(text)
    assert found.gates == {"mae": ">= 0.80"}
    assert found.rollout.margin is None  # 2 % of the champion's mean


def test_a_key_in_a_long_file_is_found_behind_texts_of_many_lines() -> None:
    text = GOOD + '\n[monitor]\n# x = 1\nbudget = """\n[gates]\nacu = 1\n"""\n'
    assert "line 28: monitor.budget must be a number above 0, got a text" in refusal(text)


def test_deep_nesting_is_refused() -> None:
    assert "not readable as TOML" in refusal("x = " + "[" * 100_000)


def test_settings_read_back_equal() -> None:
    settings = Settings(
        name="late",
        task="regression",
        target='the "target"',
        at="when",
        label_delay=timedelta(hours=36),
        data=DataSettings(source="a b.csv", log=False, until="2014-05-01"),
        sources={"departures": SourceSettings(path=None, at="t", key="k")},
        train={"a": [1, 2.5, "x\n"], "b": {"c": True}},
        gates={"mae": "<= 3"},
        endpoint=EndpointSettings(max_skew=timedelta(minutes=20), at_from_caller=True),
        rollout=RolloutSettings(margin=None, shadow=timedelta(0), shares=(0.2, 1.0)),
        retrain=RetrainSettings(every=timedelta(days=14)),
    )
    assert parse_settings(dump_settings(settings)) == settings
    assert parse_settings(dump_settings(settings, show=("retrain.every", "risk"), comments={"name": "it"})) == settings


# -- the contract ----------------------------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=12).filter(
    lambda s: s.strip("_") and not any(0xD800 <= ord(c) < 0xE000 for c in s)
)


@st.composite
def columns(draw: Any) -> Column:
    kind = draw(st.sampled_from(["int", "float", "bool", "category", "string", "datetime", "date"]))
    seen = None
    if kind in ("int", "float"):
        number = st.integers(-(2**62), 2**62) if kind == "int" else st.floats(allow_nan=False, allow_infinity=False)
        ends = draw(st.none() | st.tuples(number, number))
        seen = tuple(sorted(ends)) if ends else None
    return Column(
        name=draw(names),
        type=kind,
        known=draw(st.sampled_from(["request", "lookup", "later", "unsure"])),
        nulls=draw(st.booleans()),
        null_values=tuple(draw(st.lists(names, unique=True, max_size=2))),
        unit=draw(st.none() | names),
        seen=seen,
        values=tuple(draw(st.lists(names, unique=True, min_size=1, max_size=4))) if kind == "category" else (),
        zone="Europe/Madrid" if kind == "datetime" and draw(st.booleans()) else None,
        log=draw(st.sampled_from(["plain", "hash", "drop"])),
        why=draw(st.none() | names),
        assumed=tuple(draw(st.lists(st.sampled_from(["known", "unit"]), unique=True))),
    )


@given(st.lists(columns(), min_size=1, max_size=5, unique_by=lambda c: c.name), st.booleans())
def test_contracts_read_back_equal(found: list[Column], reviewed: bool) -> None:
    contract = Contract(columns=tuple(found), sources=(("events", tuple(found[:2])),), reviewed=reviewed)
    again = parse_contract(dump_contract(contract))
    assert again == contract
    assert again.version == contract.version


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("format = 1\n[columns.a]\ntype = 'flaot'", "contract.toml line 3: columns.a.type is \"flaot\"; it must be int"),
        ("format = 1\n[columns.a]\ntyp = 'int'", "line 3: unknown key columns.a.typ; did you mean type?"),
        ("format = 1\n[columns.a]\nnulls = true", "columns.a.type is missing"),
        ("format = 1\n[columns.a]\ntype = 'category'", "line 2: columns.a.values is missing"),
        ("format = 1\n[columns.a]\ntype = 'category'\nvalues = ['x', 'x']", 'columns.a.values names "x" twice'),
        ("format = 1\n[columns.a]\ntype = 'int'\nvalues = ['x']", 'is for type "category"'),
        ("format = 1\n[columns.a]\ntype = 'int'\nrange = [3, 1]", "the low end stands above the high one"),
        ("format = 1\n[columns.a]\ntype = 'int'\nrange = 3", "must be [low, high], got the number 3"),
        ("format = 1\n[columns.a]\ntype = 'datetime'\nrange = ['2014-01-01', '2015-01-01']", "must be two texts such as"),
        ("format = 1\n[columns.a]\ntype = 'datetime'\nzone = 'Europe/Madird'", "no time zone; Europe/Madrid?"),
        ("format = 1\n[columns.a]\ntype = 'int'\nrole = 'at'", "the prediction time must be a datetime"),
        ("format = 1\n[columns.a]\ntype = 'int'\nrole='entity'\n[columns.b]\ntype = 'int'\nrole='entity'", "both have role entity"),
        ("format = 1\nreviewed = 'yes'\n[columns.a]\ntype = 'int'", "reviewed must be true or false"),
        ("format = 1", "no columns"),
        ("format = 3", "format is 3"),
    ],
)  # fmt: skip
def test_a_wrong_contract_is_refused(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_contract(text)
    assert says in str(caught.value)
