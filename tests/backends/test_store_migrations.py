"""Old stores open: one small store per format is kept, and each is upgraded; old and new code run together."""

import ast
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from fairway.cli import admin_format
from fairway.errors import StoreError, Unfinished
from fairway.store import audit, jobs, migrate, schema
from fairway.store.base import Store
from fairway.store.engine import make_engine
from fairway.store.workspace import Workspace

STORES = Path(__file__).parents[1] / "stores"
FORMATS = range(1, schema.FORMAT + 1)
VERSIONS = migrate.FOLDER / "versions"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store that code of format 1 wrote."""
    return shutil.copy(STORES / "format-1.db", tmp_path / "store.db")


def at_format_1(url: str) -> None:
    """The tables of format 1 in an empty database, as its code would have made them."""
    config = Config()
    config.set_main_option("script_location", str(migrate.FOLDER))
    engine = make_engine(url)
    with engine.execution_options(fairway_begin="BEGIN IMMEDIATE").begin() as tx:
        config.attributes["connection"] = tx
        migrate.command.upgrade(config, "0001")
        tx.execute(sa.text(f"drop table {migrate.VERSION_TABLE}"))  # no code of format 1 ran alembic
        tx.execute(sa.insert(schema.meta).values(workspace="", key="format", value=1))
    engine.dispose()


def differences(store: Store) -> list[Any]:
    def ours(_object: object, name: str | None, kind: str, *_: object) -> bool:
        return not (kind == "table" and name == migrate.VERSION_TABLE)

    with store.read() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True, "include_object": ours})
        return list(compare_metadata(context, schema.metadata))


def ddl(store: Store) -> dict[str, set[tuple[str, str, bool]]]:
    """What alembic does not compare as well: every column's type as the database has it, and the keys."""
    with store.read() as tx:
        inspect = sa.inspect(tx)
        return {
            table: {(c["name"], repr(c["type"]), bool(c["nullable"])) for c in inspect.get_columns(table)}
            | {(name, "key", True) for name in inspect.get_pk_constraint(table)["constrained_columns"]}
            for table in schema.metadata.tables
        }


@pytest.mark.parametrize("format", FORMATS)
def test_a_store_of_each_format_opens_with_all_it_held(format: int, tmp_path: Path) -> None:
    path = Path(shutil.copy(STORES / f"format-{format}.db", tmp_path / "store.db"))
    with Store(f"sqlite:///{path}") as store:
        assert differences(store) == []
        assert audit.verify(store) is None and len(audit.entries(store)) == 3
        assert jobs.pending(store) == 1
        with store.read() as tx:
            endpoint = tx.execute(sa.select(schema.endpoint)).one()
            predicted = tx.execute(sa.select(schema.prediction)).one()
            versions = tx.execute(sa.select(schema.version)).all()
        assert (endpoint.champion, endpoint.previous, endpoint.shares) == (2, 1, {"2": 1.0})
        assert predicted.at == datetime(2014, 5, 1, 7, 0, 0, 123457, tzinfo=UTC) and predicted.label == 1
        assert [row.metrics for row in versions] == [{"auc": 0.8125, "ü": None}] * 2
        with store.write() as tx:
            assert store.next_number(tx, "version/churn") == 3
    with Store(f"sqlite:///{path}", workspace="other") as other:
        assert audit.verify(other) is None and len(audit.entries(other)) == 1
    copies = [p.name for p in tmp_path.glob("store.db.*")]
    assert copies == ([] if format == schema.FORMAT else [f"store.db.format-{format}"])


def test_the_copy_beside_an_upgraded_store_is_the_store_as_it_was(old: Path) -> None:
    Store(f"sqlite:///{old}").close()
    engine = sa.create_engine(f"sqlite:///{old}.format-1")
    original = sa.create_engine(f"sqlite:///{STORES / 'format-1.db'}")
    with engine.connect() as copied, original.connect() as first:
        for name in sa.inspect(first).get_table_names():
            rows = sa.text(f"select * from {name} order by 1, 2")
            assert copied.execute(rows).all() == first.execute(rows).all()
    engine.dispose()
    original.dispose()


def test_migrated_tables_are_those_of_a_new_store_on_postgres(postgres_server: Any, postgres_url: str) -> None:
    at_format_1(postgres_url)
    with Store(postgres_url) as migrated, Store(postgres_server.new_database()) as fresh:
        assert differences(migrated) == [] and differences(fresh) == []
        assert ddl(migrated) == ddl(fresh)
        assert migrate.contract(migrated) and not migrate.contract(migrated)


def test_migrated_tables_are_those_of_a_new_store_on_sqlite(old: Path, tmp_path: Path) -> None:
    with Store(f"sqlite:///{old}") as migrated, Store(f"sqlite:///{tmp_path / 'new.db'}") as fresh:
        assert differences(fresh) == []
        assert ddl(migrated) == ddl(fresh)


def test_code_of_the_format_before_goes_on_after_expand(old: Path) -> None:
    """Its statements name the columns it knows, so they are made here from the tables as it left them."""
    engine = sa.create_engine(f"sqlite:///{old}")
    before = sa.MetaData()
    before.reflect(engine)
    with Store(f"sqlite:///{old}") as new, engine.begin() as tx:
        with new.read() as reading:
            assert migrate.formats(reading) == (1, schema.FORMAT)
        for table in before.tables.values():
            rows = [dict(row._mapping) for row in tx.execute(sa.select(table))]
            if rows:
                tx.execute(sa.delete(table))
                tx.execute(sa.insert(table), rows)
        # What such code looks at before anything else: it turns away from a newer format.
        assert tx.scalar(sa.text("select value from meta where workspace = '' and key = 'format'")) == 1
    engine.dispose()
    with Store(f"sqlite:///{old}") as new:
        assert audit.verify(new) is None


def test_contract_waits_for_older_code_and_then_turns_it_away(old: Path) -> None:
    with Store(f"sqlite:///{old}") as store:
        with store.write() as tx:
            row = {
                "workspace": "other", "gateway": "g1", "supervisor": "s", "heartbeat_at": store.database_now(tx),
                "pid": 1, "prepared": {}, "active": {}, "report": {"url": "http://127.0.0.1:1"},
            }  # fmt: skip
            tx.execute(sa.insert(schema.gateway).values(**row))
        with pytest.raises(Unfinished, match="g1 of workspace other"):
            migrate.contract(store)
        with store.write() as tx:
            tx.execute(sa.update(schema.gateway).values(report={"format": schema.FORMAT}))
        assert migrate.contract(store)
        with store.read() as tx:
            assert migrate.formats(tx) == (schema.FORMAT, schema.FORMAT)
            assert [row.parts for row in tx.execute(sa.select(schema.dataset))] == [["1" * 64], ["2" * 64]]


NEXT = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = {revision!r}, {down!r}, None, None
def upgrade():
    {statement}
"""


@pytest.fixture
def next_format(tmp_path: Path) -> Path:
    """The migrations of a release after this one: it adds a column, and later takes one away."""
    folder = Path(shutil.copytree(migrate.FOLDER, tmp_path / "migrations"))
    number = f"{schema.FORMAT + 1:04d}"
    revisions = ScriptDirectory(str(migrate.FOLDER))
    for mark, statement in (("", "op.add_column('run', sa.Column('colour', sa.String))"),
                            ("c", "op.drop_column('run', 'error')")):  # fmt: skip
        down = revisions.get_revision(f"{'contract' if mark else 'expand'}@head")
        assert down is not None
        text = NEXT.format(revision=number + mark, down=down.revision, statement=statement)
        (folder / "versions" / f"{number}{mark}_next.py").write_text(text)
    return folder


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_this_code_goes_on_beside_the_next_format_until_it_contracts(
    engine: str, next_format: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}" if engine == "sqlite" else request.getfixturevalue("postgres_url")
    with Store(url) as running:
        with Store(url) as newer:
            migrate.expand(newer, folder=next_format, target=schema.FORMAT + 1)
            migrate.expand(newer, folder=next_format, target=schema.FORMAT + 1)  # a second process: nothing to do
        with Store(url) as again:  # opened by this code after that
            for store in (running, again):
                with store.write() as tx:
                    run = {
                        "workspace": "default", "run": f"run-{store.next_number(tx, 'run')}", "model": "churn",
                        "status": "running", "cause": "person", "started_at": datetime(2026, 1, 1, tzinfo=UTC),
                        "settings": {}, "steps": [], "fairway": "0", "format": 1,
                    }  # fmt: skip
                    tx.execute(sa.insert(schema.run).values(**run))
                    tx.execute(sa.select(schema.run)).all()
            assert migrate.contract(again, folder=next_format, target=schema.FORMAT + 1)
    with pytest.raises(StoreError, match=f"format {schema.FORMAT + 1}.*install a newer one"):
        Store(url)


def test_expand_only_adds() -> None:
    allowed = {"op.add_column", "op.create_table", "op.create_index"}
    for path in VERSIONS.glob("[0-9]*_*.py"):
        if path.name[4] == "c":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("op."):
                assert ast.unparse(node.func) in allowed, f"{path.name}:{node.lineno}: {ast.unparse(node.func)}"
                if ast.unparse(node.func) == "op.add_column":
                    assert "nullable=False" not in ast.unparse(node), f"{path.name}:{node.lineno}: not null"


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(old: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{old}")
    with engine.begin() as tx:
        tx.execute(sa.text("create table source_state (mine int)"))  # in the way, in the middle
    before = sa.inspect(engine).get_table_names()
    with pytest.raises(StoreError, match="is as it was"):
        Store(f"sqlite:///{old}")
    assert sa.inspect(engine).get_table_names() == before
    with engine.begin() as tx:
        tx.execute(sa.text("drop table source_state"))
    engine.dispose()
    with Store(f"sqlite:///{old}") as store:
        assert differences(store) == []


def test_opening_a_current_store_loads_no_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    code = f"import sys\nfrom fairway.store.base import Store\nfor _ in 'ab': Store({url!r}).close()\n"
    code += "sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_admin_format_says_where_an_upgrade_is_and_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.create(tmp_path)
    shutil.copy(STORES / "format-1.db", workspace.folder / "store.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FAIRWAY_STORE", raising=False)
    admin_format.format_()
    assert "fairway of format 1 and newer opens it" in capsys.readouterr().out
    admin_format.format_(contract=True, dry_run=True)
    assert "would contract it" in capsys.readouterr().out
    admin_format.format_(contract=True)
    assert "older fairway is turned away from now on" in capsys.readouterr().out
    admin_format.format_()
    assert "nothing is left to do" in capsys.readouterr().out
    assert [entry.action for entry in audit.entries(workspace.store)][-1] == "store.contract"
