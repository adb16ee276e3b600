"""A workspace with one real package, a dataset, log rows and a rollout, made through the functions that make them."""

import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl
import sqlalchemy as sa

from fairway import clock, fingerprint
from fairway.data import log, parts, segment
from fairway.data.segment import ColumnNote, Columns, LabelRow, Labels, Predictions, VersionAnswers
from fairway.registry import versions
from fairway.runtime import package
from fairway.store import schema
from fairway.store.workspace import Workspace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODEL = "small"
SETTINGS: dict[str, Any] = {
    "name": MODEL, "entity": "who", "target": "left", "owner": "ana@example.com", "risk": "low", "task": "binary",
    "data": {"source": "small.csv"}, "sources": {}, "log": {"keep": None}, "label_delay": "6h",
}  # fmt: skip


def notes(**log_rules: str) -> Columns:
    kinds = {"who": "string", "size": "float", "secret": "string"}
    columns = [
        ColumnNote(name, kind, "entity" if name == "who" else "feature", log_rules.get(name, "plain"))
        for name, kind in kinds.items()
    ]
    looked = [ColumnNote("seen", "string", segment.LOOKED_UP, log_rules["seen"])] if "seen" in log_rules else []
    return Columns("contract-1", "", columns + looked)


def request(name: str, who: list[str], *, at: datetime = NOW, **more: Any) -> Predictions:
    n, at_us = len(who), clock.to_us(at)
    places = list(range(n))
    return Predictions(
        endpoint=MODEL, model=MODEL, gateway="g1", contract="contract-1", request_id=name, body="b", received_us=at_us,
        rollout=None, share_epoch=1, ids=[fingerprint.prediction_id("default", MODEL, name, i) for i in places],
        at_us=[at_us + i for i in places], entities=list(who), units=list(who), arms=[1] * n, propensities=[1.0] * n,
        flags=[[]] * n, columns={"who": list(who), "size": [1.5] * n, "secret": more.get("secret", [None] * n)},
        looked_up=more.get("looked_up", [{}] * n),
        answers=[VersionAnswers(1, places, [True] * n, ["ok"] * n, [0.25] * n, more.get("errors", [None] * n), 1.0)],
    )  # fmt: skip


@dataclass
class Kept:
    """A workspace and what fills it."""

    workspace: Workspace
    folds: int = 0

    def package(self, who: list[str] = ("a", "b"), *, text: bytes = b"model") -> str:  # type: ignore[assignment]
        """A package of one text file with a held-out sample; its artifact."""
        files = {
            "model/weights.txt": text,
            "code/model.py": b"def features(data):\n    return data\n",
            "contract.toml": b"format = 1\n",
            "fairway.toml": b"format = 1\n",
            "heldout.msgpack": msgspec.msgpack.encode(
                {
                    "rows": [{"who": w, "size": 1.0} for w in who],
                    "events": [None] * len(who),
                    "outputs": [0.5] * len(who),
                }
            ),
        }
        made = {name: self.workspace.blobs.put(data) for name, data in files.items()}
        manifest = package.Manifest(
            model=MODEL, task="binary", positive="yes", classes=("no", "yes"), feature_columns=(("size", "Float64"),),
            views=(), contract="contract-1", runtime={"kind": "python"}, environment={"digest": "e" * 64}, files=made,
        )  # fmt: skip
        return self.workspace.blobs.put(manifest.to_bytes())

    def dataset(self, who: list[str], *, name: str | None = None) -> str:
        frame = pl.DataFrame({"who": who, "size": [float(i) for i in range(len(who))], "left": ["no"] * len(who)})
        dataset = name or "data-" + fingerprint.of_value(who)[:16]
        parts.store_dataset(self.workspace, dataset, frame, {"files": {}}, now=clock.now())
        return dataset

    def version(
        self, *, artifact: str | None = None, dataset: str | None = None, run: str = "run-1", **more: Any
    ) -> int:
        store = self.workspace.store
        new = versions.NewVersion(
            model=MODEL, project_path=str(self.workspace.root), run=run, artifact=artifact or self.package(),
            dataset=dataset or self.dataset(["a", "b", "c"]), contract="contract-1", verdict="pass",
            metrics=more.get("metrics", {"auc": 0.7}), checks=more.get("checks", [{"name": "x", "verdict": "pass"}]),
            settings=more.get("settings", SETTINGS), trained_until=NOW, author=more.get("author", "ana@example.com"),
        )  # fmt: skip
        with store.write() as tx:
            return versions.register(store, tx, new)

    def run(
        self, name: str, *, status: str = "done", result: Any = None, at: datetime | None = None, **more: Any
    ) -> None:
        began = at or clock.now()
        row = {
            "workspace": self.workspace.name, "run": name, "model": MODEL, "status": status, "cause": "person",
            "started_at": began, "ended_at": None if status == "running" else began, "settings": {}, "steps": [],
            "result": result, "error": None, "fairway": "0.2", "format": 1, **more,
        }  # fmt: skip
        with self.workspace.store.write() as tx:
            tx.execute(sa.insert(schema.run).values(**row))

    def fold(self, *records: Any, columns: Columns | None = None) -> None:
        self.folds += 1
        folder = self.workspace.dir("spool") / "sealed"
        folder.mkdir(exist_ok=True)
        path = folder / f"s{self.folds:04d}.seg"
        connection = segment.create(path, gateway="g1", opened_us=self.folds)
        with connection:
            connection.executemany(
                "insert into record(kind, data) values(?, ?)",
                [segment.encode(r) for r in (columns or notes(), *records)],
            )
        segment.close(connection)
        log.fold(self.workspace, path)

    def label(self, prediction: str, value: Any, *, at: datetime = NOW) -> Labels:
        us = clock.to_us(at)
        return Labels(us, [LabelRow(prediction, "left", "e", value, us)])

    def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        with self.workspace.store.read() as tx:
            return [dict(row._mapping) for row in tx.execute(sa.select(table).order_by(*table.primary_key.columns))]

    def actions(self) -> list[str]:
        return [row["action"] for row in self.rows(schema.audit)]

    def age(self, **by: float) -> None:
        """Make every blob and folder older."""
        import os

        past = (clock.machine_now() - timedelta(**by)).timestamp()
        for path in self.workspace.folder.rglob("*"):
            if "blobs" in path.parts or "cache" in path.parts or "runs" in path.parts:
                os.utime(path, (past, past))

    def parquet(self, blob: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(self.workspace.blobs.get(blob)))
