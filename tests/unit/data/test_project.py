# ruff: noqa: E501  (one mistake and its message per line)
"""A project: found upwards, its two files read and checked against each other."""

from pathlib import Path

import pytest

from fairway import clock
from fairway.data.project import load_project, project_of
from fairway.errors import ModelNotFound, ProjectNotFound, SettingsError
from fairway.store import schema

SETTINGS = """format = 1
name = "churn"
task = "binary"
target = "churn"
positive = "yes"
entity = "id"
at = "when"
[data]
source = "t.csv"
"""
CONTRACT = """format = 1
[columns.id]
type = "int"
[columns.when]
type = "datetime"
[columns.churn]
type = "category"
values = ["no", "yes"]
"""


def write(folder: Path, settings: str = SETTINGS, contract: str = CONTRACT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fairway.toml").write_text(settings)
    (folder / "contract.toml").write_text(contract)
    return folder


def test_it_is_found_from_below_and_starts_its_own_workspace(tmp_path: Path) -> None:
    root = write(tmp_path / "churn")
    (root / "deep" / "er").mkdir(parents=True)
    found = load_project(root / "deep" / "er")
    assert found.root == root.resolve()
    assert found.workspace.root == root.resolve() and (root / ".fairway").is_dir()
    assert {c.name: c.role for c in found.contract.columns} == {"id": "entity", "when": "at", "churn": "target"}
    assert found.contract.column("churn").known == "later"


def test_it_joins_a_workspace_above(tmp_path: Path) -> None:
    (tmp_path / ".fairway").mkdir()
    assert load_project(write(tmp_path / "a" / "churn")).workspace.root == tmp_path.resolve()


def test_no_project_here(tmp_path: Path) -> None:
    with pytest.raises(ProjectNotFound, match="start a project with: fairway new"):
        load_project(tmp_path)
    write(tmp_path)
    (tmp_path / "contract.toml").unlink()
    with pytest.raises(SettingsError, match=r"contract\.toml"):
        load_project(tmp_path)
    (tmp_path / "fairway.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(SettingsError, match="is not UTF-8"):
        load_project(tmp_path)


@pytest.mark.parametrize(
    ("settings", "contract", "says"),
    [
        (('target = "churn"', 'target = "chrun"'), None, 'target = "chrun" is no column of contract.toml; did you mean churn?'),
        (('entity = "id"', ""), ('type = "int"', 'type = "int"\nrole = "entity"'), "column id has role = \"entity\", but fairway.toml has no entity"),
        (('at = "when"', 'at = "id"'), None, "the prediction time is a datetime"),
        (('positive = "yes"', ""), None, "has the classes no, yes; positive is missing"),
        (('positive = "yes"', 'positive = "Yes"'), None, 'positive = "Yes" is not one of them'),
        (None, ('["no", "yes"]', '["no", "yes", "?"]'), "task binary needs two classes; churn has 3"),
        (('task = "binary"\n', 'task = "regression"\n'), None, "positive is for task binary only"),
        (('source = "t.csv"', 'source = "t.csv"\nlabel_at = "when"\n'), None, None),
        (('source = "t.csv"', 'source = "t.csv"\nlabel_at = "id"\n'), None, "must be a datetime column"),
        (('[data]', '[sources.x]\nat = "t"\nkey = "k"\n[data]'), None, "add [sources.x.columns.COLUMN]"),
        (None, ("[columns.churn]", "[sources.y.columns.k]\ntype = 'int'\n[columns.churn]"), "source y is described here but not in fairway.toml"),
    ],
)  # fmt: skip
def test_the_two_files_must_agree(
    tmp_path: Path, settings: tuple[str, str] | None, contract: tuple[str, str] | None, says: str | None
) -> None:
    write(tmp_path, SETTINGS.replace(*(settings or ("", ""))), CONTRACT.replace(*(contract or ("", ""))))
    if says is None:
        assert load_project(tmp_path).settings.data.label_at == "when"
        return
    with pytest.raises(SettingsError) as caught:
        load_project(tmp_path)
    assert says in str(caught.value)


def test_the_project_of_a_model(tmp_path: Path) -> None:
    here = load_project(write(tmp_path / "churn"))
    workspace, store = here.workspace, here.workspace.store
    with pytest.raises(ModelNotFound, match="none registered yet"):
        project_of(workspace, "churn")
    row = {
        "workspace": store.workspace,
        "model": "churn",
        "project_path": str(here.root),
        "settings": {},
        "created_at": clock.now(),
    }
    with store.write() as tx:
        store.upsert(tx, schema.model, row)
    assert project_of(workspace, "churn").root == here.root
    with pytest.raises(ModelNotFound, match="known: churn"):
        project_of(workspace, "chrun")
    (here.root / "fairway.toml").unlink()
    with pytest.raises(ProjectNotFound, match="the project of churn was at"):
        project_of(workspace, "churn")
