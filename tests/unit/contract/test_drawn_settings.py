"""Files that say something wrong: each class is drawn with a recorded seed; each is one error that names its place."""

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from fairway.contract.columns import Column
from fairway.contract.settings import (
    DataSettings,
    EndpointSettings,
    MonitorSettings,
    RetrainSettings,
    RolloutSettings,
)
from fairway.contract.text import parse_contract, parse_settings
from fairway.data.project import Project, load_project, missing_variables, refuse_namesake, troubles
from fairway.data.source import read_table
from fairway.errors import FairwayError, SettingsError
from fairway.path.train import train
from fairway.store import schema

SEED = 20261121

TOP = """format = 1
name = "churn"
task = "binary"
target = "left"
positive = "yes"
entity = "customer"
"""
GOOD = TOP + '[data]\nsource = "t.csv"\n'
TABLES = {
    "endpoint": EndpointSettings, "rollout": RolloutSettings, "monitor": MonitorSettings, "retrain": RetrainSettings,
    "data": DataSettings,
}  # fmt: skip
CONTRACT = """format = 1
[columns.customer]
type = "string"
[columns.tenure]
type = "int"
[columns.left]
type = "category"
values = ["no", "yes"]
"""


def seeds(n: int) -> list[int]:
    return [SEED + i for i in range(n)]


def refused(text: str, read: Callable[[str], object] = parse_settings) -> str:
    with pytest.raises(SettingsError) as caught:
        read(text)
    return str(caught.value)


def mistyped(word: str, rng: random.Random) -> str:
    """One slip of the fingers."""
    place = rng.randrange(len(word))
    kind = rng.choice(["swap", "drop", "double"])
    if kind == "swap" and place + 1 < len(word) and word[place] != word[place + 1]:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if kind == "drop" and len(word) > 3:
        return word[:place] + word[place + 1 :]
    return word[:place] + word[place] + word[place:]


@pytest.mark.parametrize("seed", seeds(40))
def test_a_typo_is_named_with_the_nearest_key(seed: int) -> None:
    rng = random.Random(seed)
    table = rng.choice(list(TABLES))
    names = [f.name for f in fields(TABLES[table])]
    right = rng.choice([name for name in names if len(name) > 4])
    wrong = mistyped(right, rng)
    if wrong in names:
        return
    text = GOOD + f"{wrong} = 1\n" if table == "data" else GOOD + f"[{table}]\n{wrong} = 1\n"
    said = refused(text)
    assert f"fairway.toml line {len(text.splitlines())}: unknown key {table}.{wrong}" in said
    assert "did you mean" in said or "known here" in said


@pytest.mark.parametrize("seed", seeds(20))
def test_a_typo_in_the_contract(seed: int) -> None:
    rng = random.Random(seed)
    names = [f.name for f in fields(Column) if f.name != "name"]
    wrong = mistyped(rng.choice(names), rng)
    if wrong in names:
        return
    line = 1 + CONTRACT.splitlines().index('type = "int"') + 1
    said = refused(CONTRACT.replace('type = "int"\n', f'type = "int"\n{wrong} = 1\n'), parse_contract)
    assert f"contract.toml line {line}: unknown key columns.tenure.{wrong}" in said


@pytest.mark.parametrize("seed", seeds(20))
def test_an_unknown_section(seed: int) -> None:
    rng = random.Random(seed)
    wrong = mistyped(rng.choice(["endpoint", "rollout", "monitor", "retrain", "limits", "gates", "sources"]), rng)
    said = refused(GOOD + f"[{wrong}]\n")
    assert f"line 9: unknown key {wrong}" in said and "did you mean" in said


WRONG = {
    "rollout.margin": ["-0.1", "1.5", '"150%"', '"much"', "true", "[0.1]", "nan", "inf", '"-5%"', "0"],
    "rollout.n_min": ["0", "-1", "1.5", '"many"', "true", "99999999999999"],
    "rollout.shares": ["[]", "[0.5, 0.2]", "[0.5, 1.5]", "0.5", '["50"]', "[0]"],
    "endpoint.p99": ["30", '"30"', '"-30s"', '"0s"', '"2h"', '"fast"', "1.5", "true"],
    "endpoint.max_errors": ['"200%"', "-1", "2", '"few"'],
    "retrain.every": ['"0s"', '"soon"', "30", '"-1d"'],
    "retrain.per_month": ["-1", "1.5", '"two"'],
    "limits.memory_mb": ["1", "-5", '"1GB"', "1e9"],
    "limits.train": ['"5"', '"1000000d"', "60"],
    "split.test_share": ["0", "1", '"95%"', '"half"', "-0.2"],
    "label_delay": ['"30 days"', "30", '"-3d"', "true"],
    "risk": ['"hi"', "1", '""'],
    "name": ['"Churn"', '"../x"', '"a/b"', '""', '"-a"', '"' + "x" * 65 + '"'],
}


@pytest.mark.parametrize("key", sorted(WRONG))
def test_wrong_types_and_ranges_are_said_with_what_is_allowed(key: str) -> None:
    for value in WRONG[key]:
        table, _, name = key.rpartition(".")
        if table:
            said = refused(f"{GOOD}[{table}]\n{name} = {value}\n")
        else:
            lines = [line for line in GOOD.splitlines() if not line.startswith(f"{name} ")]
            said = refused("\n".join([f"{name} = {value}", *lines]))
        assert key in said and "line " in said and len(said) < 400, (key, value, said)


@pytest.mark.parametrize("seed", seeds(10))
def test_units_are_in_the_value(seed: int) -> None:
    rng = random.Random(seed)
    percent = rng.randint(1, 99)
    shares = [parse_settings(f"{GOOD}[rollout]\nmargin = {text}\n").rollout.margin
              for text in (f'"{percent}%"', f"{percent / 100}")]  # fmt: skip
    assert shares == [pytest.approx(percent / 100)] * 2
    small = parse_settings(f'{GOOD}[rollout]\nmargin = "0.05%"\n').rollout.margin
    assert small == pytest.approx(0.0005)  # not 0.05
    n, unit = rng.randint(1, 50), rng.choice(["s", "min", "h"])
    length = parse_settings(f'label_delay = "{n}{unit}"\n{GOOD}').label_delay
    assert length == timedelta(**{{"s": "seconds", "min": "minutes", "h": "hours"}[unit]: n})


@pytest.mark.parametrize("value", ["no", "on", "yes", "1e3", "0o17", "0x1F", "null", "~", "2024-01-01", "1_000"])
def test_words_and_numbers_stay_what_they_are(value: str) -> None:
    """No YAML: what is in quotes is text, whatever it looks like; what is not must be TOML's."""
    made = parse_settings(GOOD + f'[train]\nplan = "{value}"\n')
    assert made.train == {"plan": value}
    contract = parse_contract(CONTRACT.replace('["no", "yes"]', f'["{value}x", "{value}"]'))
    assert contract.column("left").values == (f"{value}x", value)
    if value in ("no", "on", "yes", "null", "~"):
        assert "not readable as TOML" in refused(GOOD + f"[train]\nplan = {value}\n")


@pytest.mark.parametrize("seed", seeds(6))
def test_a_key_given_twice_is_refused(seed: int) -> None:
    rng = random.Random(seed)
    line = rng.choice(GOOD.splitlines()[:6])
    assert "each key may stand once" in refused(line + "\n" + GOOD)
    assert "fairway.toml line 9" in refused(GOOD + '[data]\nsource = "u.csv"\n')
    assert "contract.toml" in refused(CONTRACT + '[columns.tenure]\ntype = "int"\n', parse_contract)


@pytest.mark.parametrize("seed", seeds(3))
def test_bombs_are_bounded(seed: int) -> None:
    rng = random.Random(seed)
    depth = rng.randint(2_000, 20_000)
    assert "not readable as TOML" in refused(GOOD + "[train]\nx = " + "[" * depth + "]" * depth + "\n")
    assert "fairway.toml" in refused(GOOD + "[train]\nx = " + "{a = " * depth + "1" + "}" * depth + "\n")


def write(folder: Path, settings: str = GOOD, contract: str = CONTRACT) -> Path:
    (folder / ".fairway").mkdir(exist_ok=True)
    (folder / "fairway.toml").write_text(settings)
    (folder / "contract.toml").write_text(contract)
    return folder


def test_a_secret_whose_variable_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"FAIRWAY_TEST_{SEED}"
    monkeypatch.delenv(name, raising=False)
    text = TOP + f'[data]\nsql = "select 1"\nurl = "env:{name}"\n'
    project = load_project(write(tmp_path, text))
    with pytest.raises(FairwayError, match=name):
        read_table(project.settings.data, project.root)


@pytest.mark.parametrize(
    ("settings", "contract", "says"),
    [
        (GOOD + "[rollout]\nshares = [0.5, 1.2]\n", CONTRACT, "rollout.shares"),
        (GOOD + "[rollout]\nshares = [0.5, 0.6, 1.01]\n", CONTRACT, "rollout.shares is 1.01"),
        (GOOD + '[rollout]\nshares = ["60%", "50%"]\n', CONTRACT, "must grow from step to step"),
        (GOOD + '[rollout]\nseason = "2d"\ntimeout = "47h"\n', CONTRACT, "every rollout would end undecided"),
        (GOOD + '[rollout]\nshadow = "7d"\ntimeout = "6d"\n', CONTRACT, "shorter than shadow (7d)"),
        (GOOD + '[data.x]\na = 1\n', CONTRACT, "unknown key data.x"),
        (GOOD.replace('entity = "customer"', 'entity = "custmer"'), CONTRACT, "did you mean customer?"),
        (GOOD.replace('target = "left"', 'target = "customer"'), CONTRACT, "customer"),
        (GOOD, CONTRACT.replace('["no", "yes"]', '["no", "yes", "maybe"]'), "task binary needs two classes"),
        (GOOD, CONTRACT.replace('["no", "yes"]', '["no", "ja"]'), "positive"),
        (GOOD, CONTRACT + '[rules.r]\ncheck = "tenure > custmer"\n', "rules.r.check"),
        (GOOD, "rows = [5, 1]\n" + CONTRACT, "the low end stands above the high one"),
        (GOOD, "rows = [5]\n" + CONTRACT, "rows must be [fewest, most]"),
        (GOOD, 'fresh = "2 days"\n' + CONTRACT, 'fresh is "2 days"'),
        (GOOD, 'fresh = "2d"\n' + CONTRACT, "fresh"),
        (GOOD, CONTRACT.replace('type = "string"', 'type = "vector"\nlength = 3'), "entity"),
    ],
)  # fmt: skip
def test_what_contradicts_is_refused_as_a_whole(tmp_path: Path, settings: str, contract: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_project(write(tmp_path, settings, contract))
    assert says in str(caught.value)


@pytest.mark.parametrize("seed", seeds(4))
def test_variables_that_are_not_set_are_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    names = [f"FAIRWAY_TEST_{rng.randrange(10**6)}_{i}" for i in range(3)]
    said = rng.sample(names, 2)
    for name in names:
        monkeypatch.setenv(name, "sqlite:///w.db")
    for name in said:
        monkeypatch.delenv(name)
    text = TOP + f'[data]\nsql = "select 1"\nurl = "env:{names[0]}"\n'
    columns = ""
    for name in names[1:]:
        source = name.lower().replace("_", "-")
        text += f'[sources.{source}]\nsql = "select 1"\nurl = "env:{name}"\nat = "at"\nkey = "k"\n'
        columns += f'[sources.{source}.columns.at]\ntype = "datetime"\n[sources.{source}.columns.k]\ntype = "int"\n'
    project = load_project(write(tmp_path, text, CONTRACT + columns))
    missing = missing_variables(project.settings)
    assert len(missing) == 2 and all(any(name in line for line in missing) for name in said)
    known(project, "churn", tmp_path)
    assert troubles(project.workspace) == {}
    assert set(said) <= set(re.findall(r"FAIRWAY_TEST_\d+_\d", troubles(project.workspace, variables=True)["churn"]))


def known(project: Project, model: str, folder: Path) -> None:
    """As after a first training."""
    store = project.workspace.store
    with store.write() as tx:
        values = {"workspace": store.workspace, "model": model, "project_path": str(folder), "settings": {}}
        tx.execute(sa.insert(schema.model).values(**values, created_at=datetime(2026, 1, 1, tzinfo=UTC)))


def test_two_projects_of_one_name_have_one_route(tmp_path: Path) -> None:
    (tmp_path / ".fairway").mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fairway.toml").write_text(GOOD)
        (tmp_path / name / "contract.toml").write_text(CONTRACT)
    one, two = (load_project(tmp_path / name) for name in ("one", "two"))
    refuse_namesake(one)
    known(one, "churn", one.root)
    refuse_namesake(one)
    with pytest.raises(SettingsError, match=f'name = "churn" is the model of {one.root}, in the same workspace'):
        train(two)
    with two.workspace.store.read() as tx:
        assert tx.execute(sa.select(schema.run)).all() == []  # refused before anything was begun
    (one.root / "fairway.toml").write_text("[")  # broken is not gone
    with pytest.raises(SettingsError, match="is the model of"):
        refuse_namesake(two)
    (one.root / "fairway.toml").write_text(GOOD.replace('"churn"', '"other"'))
    refuse_namesake(two)
    (one.root / "fairway.toml").unlink()  # moved
    refuse_namesake(two)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copytree(tmp_path / ".fairway", copy / ".fairway")
    (one.root / "fairway.toml").write_text(GOOD)
    shutil.copytree(one.root, copy / "one")
    refuse_namesake(load_project(copy / "one"))  # of another workspace, which happens to know that path


@pytest.mark.parametrize("seed", seeds(6))
def test_a_newer_file_is_not_touched(tmp_path: Path, seed: int) -> None:
    newer = random.Random(seed).randint(2, 1000)
    assert "install a newer one" in refused(GOOD.replace("format = 1", f"format = {newer}"))
    assert "install a newer one" in refused(CONTRACT.replace("format = 1", f"format = {newer}"), parse_contract)
    assert "format is missing" in refused(GOOD.replace("format = 1\n", ""))
    for odd in ("0", "-1", '"1"', "1.0", "true"):
        assert "format" in refused(GOOD.replace("format = 1", f"format = {odd}"))


@pytest.mark.parametrize("seed", seeds(60))
def test_whatever_is_in_a_file_it_is_read_or_refused(seed: int) -> None:
    """One line of a good file changed at random: never another exception than the one that names the file."""
    rng = random.Random(seed)
    for text, read in ((GOOD, parse_settings), (CONTRACT, parse_contract)):
        place = rng.randrange(len(text))
        insert = "".join(rng.choices('"[]{}=.\\#\n\x00é0-tTn,', k=rng.randint(1, 4)))
        changed = text[:place] + insert + text[place + rng.randint(0, 3) :]
        said = ".toml"
        try:
            read(changed)
        except SettingsError as error:
            said = str(error)
        assert ".toml" in said
