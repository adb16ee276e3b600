"""Project code that misbehaves while the model is served: that run fails and says why, and callers notice nothing.

What `train` itself keeps whole is in test_train.py, and each end of a child in servers/test_train_child.py; here it is
the command, beside real gateways that are asked all the time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from commands import PATIENT, Heard, asking, fairway, serving
from train_project import MODEL, SETTINGS, write_project

from fairway import clock
from fairway.cli.main import call
from fairway.store import schema
from fairway.store.workspace import Workspace

ROW = {"customer": "c1", "tenure": 3, "charges": 80.0, "plan": "pro"}
GOOD = SETTINGS + PATIENT


@dataclass
class Served:
    root: Path
    workspace: Workspace
    heard: Heard

    def state(self) -> tuple[list, list]:
        """Versions, and where traffic goes."""
        with self.workspace.store.read() as tx:
            versions = tx.execute(sa.select(schema.version).order_by(schema.version.c.version)).all()
            return versions, tx.execute(sa.select(schema.endpoint).order_by(schema.endpoint.c.endpoint)).all()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = write_project(tmp_path_factory.mktemp("bad-code") / "churn", settings=GOOD)
    trained = fairway(root, "train")
    assert trained.code == 0, trained.out + trained.err
    workspace = Workspace.find(root)
    with serving(root) as target:
        deployed = fairway(root, "deploy")
        assert deployed.code == 0, deployed.out + deployed.err
        with asking(target, "churn", [ROW], token=workspace.token()) as heard:
            yield Served(root, workspace, heard)
    workspace.store.close()


def in_features(statement: str) -> str:
    return MODEL.replace("    return data.drop", f"    {statement}\n    return data.drop")


def in_train(statement: str) -> str:
    return MODEL.replace("    return model.fit", f"    model.fit(X, y); {statement}\n    return model.fit")


def with_predict(value: str) -> str:
    return MODEL + f"\n\ndef predict(model, X):\n    return {value}\n"


LOUD = "[print('x' * (1 << 20)) for _ in range(200)]; raise ValueError('loud')"
HUNGRY = "held = [bytearray(8 << 20) for _ in iter(int, 1)]"

BAD = {
    # what model.py does: its text, more settings, the sentence, what the log holds
    "raises in features": (in_features("raise ValueError('boom')"), "", "in features(): ValueError: boom", "Traceback"),
    "raises in train": (in_train("raise RuntimeError('no')"), "", "in train(): RuntimeError: no", "Traceback"),
    "loops for ever": (in_train("[0 for _ in iter(int, 1)]"), 'train = "4s"', "stopped after 4 s, the time limit", ""),
    "exits half way": (in_train("__import__('sys').exit(0)"), "", "in train(): called sys.exit(0)", "SystemExit"),
    "ends its process": (in_train("__import__('os')._exit(0)"), "", "exit code 0) before it had a result", ""),
    "segfaults": (in_train("__import__('ctypes').string_at(0)"), "", "signal 11 (SIGSEGV)", "Segmentation fault"),
    "kills itself": (in_train("__import__('os').kill(__import__('os').getpid(), 9)"), "", "signal 9 (SIGKILL)", ""),
    "prints 200 MB": (in_train(LOUD), "", "in train(): ValueError: loud", "the log is full (64 MiB)"),
    "eats all memory": (in_train(HUNGRY), "memory_mb = 900", "ran out of memory", ""),
    "answers too few rows": (with_predict("[0.5]"), "", "shape", ""),
    "answers NaN": (with_predict("[float('nan')] * X.height"), "", "must be finite", ""),
}


@pytest.mark.parametrize("how", BAD)
def test_that_run_fails_and_nothing_else(
    served: Served, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, limits, says, logged = BAD[how]
    before, began = served.state(), clock.elapsed()
    (served.root / "model.py").write_text(model)
    (served.root / "fairway.toml").write_text(GOOD + (f"[limits]\n{limits}\n" if limits else ""))
    failed = fairway(served.root, "train", "--json")

    assert failed.code == 1, failed.out + failed.err
    error = json.loads(failed.out)  # whatever the code printed, this is the whole of stdout
    assert (error["code"], says in error["error"]) == ("model_code", True), error["error"]
    assert len(error["error"].splitlines()) == 1 and "Traceback" not in failed.err
    sentence, note = failed.err.splitlines()[-2:]
    assert sentence == error["error"] and note.endswith("churn@1 stays champion.")
    run = note.split()[0]
    with served.workspace.store.read() as tx:
        row = tx.execute(sa.select(schema.run).where(schema.run.c.run == run)).one()
    assert (row.status, row.error, row.result) == ("failed", error["error"], None)
    assert served.state() == before

    monkeypatch.chdir(served.root)
    assert call(["show", run, "--log"]) == 0
    log = capsys.readouterr().out
    assert error["error"] in log and logged in log
    assert len(log) < 70 << 20

    (served.root / "model.py").write_text(MODEL)
    (served.root / "fairway.toml").write_text(GOOD)
    assert call(["train"]) == 0
    assert "churn@1 may be deployed" in capsys.readouterr().out
    told = served.heard.since(began)
    assert len(told) > 3 and set(told) == {(200, 1)}


def test_the_next_version_is_made_as_if_nothing_had_been(served: Served) -> None:
    (served.root / "fairway.toml").write_text(GOOD.replace("max_iter = 20", "max_iter = 21"))
    trained = fairway(served.root, "train", "--json")
    assert trained.code == 0, trained.out + trained.err
    assert (json.loads(trained.out)["version"], json.loads(trained.out)["may_be_deployed"]) == (2, True)
    assert len(served.heard.answers) > 10
    assert {(status, what) for _, status, what in served.heard.answers} == {(200, 1)}
