"""Makes format-N.db, a small store as the code of format N writes it: `python make_store.py SRC OUT`, SRC being the
`src` folder of a release that has this format. Made once per format, when it is released, and then kept.
"""

import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import sqlalchemy as sa

from fairway.rollout import traffic
from fairway.store import audit, jobs, schema, tokens
from fairway.store.base import Store

AT = datetime(2014, 5, 1, 7, 0, 0, 123457, tzinfo=UTC)
OWN = {"workspace": "default"}


def main(out: Path) -> None:
    out.unlink(missing_ok=True)
    store, other = Store(f"sqlite:///{out}"), Store(f"sqlite:///{out}", workspace="other")
    with store.write() as tx:
        fill(store, tx)
    with other.write() as tx:
        audit.record(other, tx, actor="bob", action="token_created", subject="ci")
    tokens.create(store, name="ci", roles=["predict"], actor="ana")
    store.close()
    other.close()
    connection = sqlite3.connect(out)
    connection.execute("pragma page_size = 512")
    connection.execute("vacuum")
    connection.close()
    print(f"{out}: format {schema.FORMAT}, {out.stat().st_size:,} bytes")


def fill(store: Store, tx: sa.Connection) -> None:
    model = {"model": "churn", "settings": {"risk": "low"}, "project_path": "/p", "created_at": AT}
    tx.execute(sa.insert(schema.model).values(**OWN, **model))
    for number in (1, 2):
        assert store.next_number(tx, "version/churn") == number
        run = {
            "run": f"run-{number}", "model": "churn", "status": "done", "cause": "person", "started_at": AT,
            "ended_at": AT, "settings": {}, "steps": [{"name": "train", "seconds": 1.5}], "result": {"verdict": "pass"},
            "fairway": "0.1.0", "format": 1,
        }  # fmt: skip
        version = {
            "model": "churn", "version": number, "run": f"run-{number}", "artifact": "a" * 64,
            "dataset": f"data-{number}", "contract": "contract-1", "verdict": "pass",
            "metrics": {"auc": 0.8125, "ü": None}, "checks": [], "settings": {}, "trained_until": AT, "author": "ana",
            "created_at": AT, "fairway": "0.1.0", "format": 1,
        }  # fmt: skip
        dataset = {
            "dataset": f"data-{number}", "blob": f"{number}" * 64, "rows": 7043, "columns": [], "origin": {},
            "created_at": AT,
        }  # fmt: skip
        for table, row in ((schema.run, run), (schema.version, version), (schema.dataset, dataset)):
            tx.execute(sa.insert(table).values(**OWN, **row))
    one, two = {"champion": 1, "shares": {"1": 1.0}}, {"champion": 2, "previous": 1, "shares": {"2": 1.0}}
    traffic.change(store, tx, "churn", actor="ana", action="deploy", now=AT, model="churn", **one)
    traffic.change(store, tx, "churn", actor="ana", action="promote", now=AT, **two)
    jobs.submit(store, tx, kind="train", key="churn", payload={"why": "alarm-1"})
    prediction = {
        "prediction": "p-1", "endpoint": "churn", "model": "churn", "at": AT, "received_at": AT, "unit": "7590-VHVEG",
        "share_epoch": 2, "arm": 2, "propensity": 1.0, "contract": "contract-1", "flags": [], "body": "b",
        "answers": {"2": {"role": "served", "status": "ok", "output": 0.25, "latency_ms": 1.5}}, "segment": "s1",
        "label": 1, "label_at": AT,
    }  # fmt: skip
    tx.execute(sa.insert(schema.prediction).values(**OWN, **prediction))
    store.add_to_counter(tx, "segment_broken", 3)


if __name__ == "__main__":
    main(Path(sys.argv[2]))
