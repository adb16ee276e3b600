"""`train`: from data to a tested version, step by step. It never changes traffic.

    snapshot -> contract -> features -> train -> evaluate -> package -> checks -> register

The project's code runs only in child processes. A run that ends early is recorded as failed, and nothing is registered.
"""

import contextlib
import importlib
import secrets
import shutil
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import sqlalchemy as sa
from numpy.typing import NDArray

import fairway
from fairway import clock, fingerprint
from fairway.checks.gate import judge
from fairway.checks.result import CheckResult
from fairway.contract.dump import dump_contract, dump_settings
from fairway.data.project import Project
from fairway.data.snapshot import Snapshot, snapshot, source_events
from fairway.errors import FairwayError, ModelCodeError
from fairway.monitor.resolved import as_dict
from fairway.path import steps, summary
from fairway.path.made import Judged, Made, Progress, Rows
from fairway.path.split import Split, split
from fairway.registry import versions
from fairway.runtime import package
from fairway.runtime.code import closure
from fairway.runtime.environment import environment
from fairway.store import schema, tokens
from fairway.store.base import Row
from fairway.train import work
from fairway.train.child import Child, Limits
from fairway.train.targets import check_classes, encode

RUN_FORMAT = 1
Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run came to. new: False when nothing had changed, and `version` is the one that was there already.

    verdict: the gate's: pass, fail or ask. metrics: `Evaluation.as_dict()`; None when outputs could not be evaluated.
    """

    run: str
    model: str
    version: int | None
    new: bool
    verdict: versions.Verdict
    metrics: dict[str, Any] | None
    checks: tuple[CheckResult, ...]
    report: Path
    dataset: str
    artifact: str
    runtime: dict[str, Any]
    ms_per_row: dict[str, float]
    steps: tuple[steps.StepLine, ...]
    seconds: float
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON form, for --json."""
        plain = {name: value for name, value in vars(self).items() if name not in ("checks", "steps", "report")}
        return plain | {
            "checks": [check.as_dict() for check in self.checks],
            "steps": [line.as_dict() for line in self.steps],
            "report": str(self.report),
        }

    def _repr_html_(self) -> str:
        """The report, in the cell of a notebook."""
        import html

        page = html.escape(self.report.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:40em;border:1px solid #ccc"></iframe>'


def train(
    project: Project,
    *,
    cause: str = "person",
    actor: str | None = None,
    seed: int = 0,
    say: steps.Say = lambda line: None,
    data: Snapshot | None = None,
) -> TrainResult:
    """Train, evaluate, package, check and register one version of the project's model.

    cause: "person", "schedule", "alarm-12", … actor: who asked (default: the person at this machine). data: train on
    this instead of a snapshot of now. Safe to run beside others.
    Raises: DataError, ContractViolation, ModelCodeError, … after the run was recorded as failed, with its log.
    """
    with contextlib.ExitStack() as stack:
        trip = _Trip(project, cause, actor or tokens.owner(project.workspace).name, seed, say, stack)
        trip.begin()
        try:
            return trip.go(data)
        except BaseException as exc:
            trip.fail(exc)
            raise


class _Trip:
    """One run on its way."""

    def __init__(
        self,
        project: Project,
        cause: str,
        actor: str,
        seed: int,
        say: steps.Say,
        stack: contextlib.ExitStack,
    ) -> None:
        self.project, self.settings, self.contract = project, project.settings, project.contract
        self.workspace, self.store = project.workspace, project.workspace.store
        self.cause, self.actor, self.seed, self._stack = cause, actor, seed, stack
        self.steps = steps.Steps(project.workspace, say)
        self.started, self.clock0 = clock.now(), clock.elapsed()
        self.run = ""
        self._checks_child: Child | None = None

    # -- the run's own record ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        values = {
            "model": self.settings.name, "status": "running", "cause": self.cause, "started_at": self.started,
            "settings": as_dict(self.settings), "steps": [], "fairway": fairway.__version__, "format": RUN_FORMAT,
        }  # fmt: skip
        for size in (2, 2, 2, 3, 4, 8):
            self.run = f"run-{secrets.token_hex(size)}"
            with self.store.write() as tx:
                if self.store.insert_new(
                    tx, schema.run, {"workspace": self.store.workspace, "run": self.run, **values}
                ):
                    break
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.touch()

    @property
    def folder(self) -> Path:
        return self.workspace.dir("runs") / self.run

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def fail(self, exc: BaseException) -> None:
        """Record why; the log gets the trace. Must not hide the error itself."""
        message = str(exc) if isinstance(exc, FairwayError) else f"{type(exc).__name__}: {exc}"
        trace = exc.trace if isinstance(exc, ModelCodeError) and exc.trace else "".join(traceback.format_exception(exc))
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"\n{message}\n\n{trace}\n")
        with self.store.write() as tx:
            self._end(tx, status="failed", error=message[:2000])

    def _end(self, tx: sa.Connection, **values: Any) -> None:
        table = schema.run
        keyed = [line.as_dict() | {"key": self.steps.keys.get(line.name)} for line in self.steps.lines]
        tx.execute(
            sa.update(table)
            .where(table.c.workspace == self.store.workspace, table.c.run == self.run)
            .values(ended_at=clock.now(), steps=keyed, **values)
        )

    # -- the way -----------------------------------------------------------------------------------------------------

    def go(self, data: Snapshot | None) -> TrainResult:
        root = self.project.root
        code = closure(root)
        code_key = fingerprint.of_value({name: fingerprint.of_bytes(text) for name, text in code.items()})
        env = environment(root)
        hint = self._hint(code_key, env)
        child = None
        if self.steps.result(hint) is None:  # something changed: a child will be needed, so let it warm up
            child = self._stack.enter_context(self._child())
        begun = clock.elapsed()
        taken = data or snapshot(self.project, now=self.started)
        self._say_snapshot(taken, clock.elapsed() - begun)
        begun = clock.elapsed()
        part = split(taken.frame, self.settings)
        target = self.contract.column(self.settings.target)
        series, classes = encode(taken.frame[target.name], target, self.settings)
        y = series.to_numpy()
        if classes:
            check_classes(y, part.test, classes, target.name)
        reviewed = "reviewed" if self.contract.reviewed else "not reviewed yet"
        self.steps.say("contract", f"0 rows refused; {reviewed}", clock.elapsed() - begun, id=self.contract.version)
        events = {name: source_events(self.project, name, now=self.started) for name in self.settings.sources}
        rows = Rows(
            dataset=taken.dataset, frame=taken.frame, events=events, split=part, y=y, classes=classes,
            scratch=self.steps.new_folder,
        )  # fmt: skip
        made = self._features_and_train(child, code, code_key, env, rows)
        judged = self._evaluate(made, rows)
        artifact, folder = self._package(made, rows, code, env)
        known = versions.same(self.store, model=self.settings.name, artifact=artifact, dataset=taken.dataset)
        checks = self._check(made, judged, rows, artifact, folder)
        self.steps.keep("hint", hint, {"run": self.run})
        return self._register(made, judged, artifact, folder, checks, taken, part, known, env)

    def _hint(self, code_key: str, env: Mapping[str, Any]) -> str:
        """Tells, without reading data, whether this may be a run like the last one: then nothing is started early."""
        source = self.settings.data.source
        path = self.project.root / source if source else None
        stat = path.stat() if path is not None and path.is_file() else None
        return self.steps.key(
            "hint", model=self.settings.name, code=code_key, environment=env["digest"],
            settings=as_dict(self.settings), contract=self.contract.version, seed=self.seed,
            source=[stat.st_size, stat.st_mtime_ns] if stat else None,
        )  # fmt: skip

    def _child(self) -> Child:
        return Child(cwd=self.project.root, log=self.log, limits=self._limits, warm=work.WARM)

    @cached_property
    def _limits(self) -> Limits:
        limits = self.settings.limits
        return Limits(time_s=limits.train.total_seconds(), memory_mb=limits.memory_mb)

    def _say_snapshot(self, taken: Snapshot, seconds: float) -> None:
        key = self.steps.key("snapshot", dataset=taken.dataset)
        seen = self.steps.result(key) is not None
        if not seen:
            self.steps.keep("snapshot", key, {"dataset": taken.dataset, "rows": taken.frame.height})
        text = f"{taken.frame.height:,} rows, {taken.frame.width} columns"
        self.steps.say("snapshot", text, seconds, cached=seen, id=taken.dataset)

    def _features_and_train(
        self, child: Child | None, code: Mapping[str, bytes], code_key: str, env: Mapping[str, Any], rows: Rows
    ) -> Made:
        """Both in one child process; or from an earlier run."""
        part, events, y = rows.split, rows.events, rows.y
        settings = as_dict(self.settings)
        features_key = self.steps.key(
            "features", dataset=rows.dataset, events={name: _content(frame) for name, frame in events.items()},
            code=code_key, contract=self.contract.version, environment=env["digest"], at=self.settings.at,
            sources=settings["sources"],
        )  # fmt: skip
        train_key = self.steps.key(
            "train", features=features_key, params=settings["train"], seed=self.seed, task=self.settings.task,
            target=self.settings.target, positive=self.settings.positive,
            test=fingerprint.of_bytes(part.test.tobytes()),
        )  # fmt: skip
        n_train = int((~part.test).sum())
        before, place = self.steps.result(train_key), self.steps.folder(train_key)
        if before is not None and (place / "outputs.npy").exists() and (place / "looked.arrow").exists():
            self.steps.say("features", f"{len(before['feature_columns'])} columns", 0.0, cached=True)
            self.steps.say("train", f"{n_train:,} rows", 0.0, cached=True)
            return Made(train_key, place, before)
        folder = self.steps.new_folder()
        try:
            looked = self._earlier_features(features_key, folder)
            for name, text in code.items():
                (folder / "code" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "code" / name).write_bytes(text)
            if looked is None:
                rows.frame.write_ipc(folder / "frame.arrow")
            (folder / "events").mkdir()
            for name, frame in events.items():
                frame.write_ipc(folder / "events" / f"{name}.arrow")
            np.save(folder / "y.npy", y)
            np.save(folder / "test.npy", part.test)
            payload = work.write_values(self.settings, self.contract) | {
                "folder": str(folder), "classes": list(rows.classes), "seed": self.seed, "looked": looked,
            }  # fmt: skip

            def ready() -> None:  # the checks' child warms up while the model is trained
                from fairway.path import judging

                self._checks_child = self._stack.enter_context(judging.warm_child(self.project, self.log))

            progress = Progress(folder / work.PROGRESS, self.steps, features_cached=looked is not None, ready=ready)
            worker = child or self._stack.enter_context(self._child())
            # While the child works this process has nothing else to do; loading SciPy takes it half a second.
            threading.Thread(target=importlib.import_module, args=("fairway.path.judging",), daemon=True).start()
            result: dict[str, Any] = worker.run(work.ENTRY, payload, watch=progress.look)
            progress.look()
            for scrap in ("frame.arrow", "events", "code", "y.npy", "test.npy", work.PROGRESS):
                path = folder / scrap
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            if looked is None:
                self._keep_features(features_key, folder, result["schemas"])
            place = self.steps.finish_folder(folder, train_key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.steps.keep("train", train_key, result)
        return Made(train_key, place, result)

    def _earlier_features(self, key: str, folder: Path) -> dict[str, Any] | None:
        """The views' columns of features that are put into `folder`, when an earlier run made them."""
        found, place = self.steps.result(key), self.steps.folder(key)
        if found is None or not (place / "X.arrow").exists():
            return None
        for name in ("looked.arrow", "X.arrow"):
            (folder / name).hardlink_to(place / name)
        schemas: dict[str, Any] = found["schemas"]
        return schemas

    def _keep_features(self, key: str, folder: Path, schemas: Mapping[str, Any]) -> None:
        place = self.steps.new_folder()
        for name in ("looked.arrow", "X.arrow"):
            (place / name).hardlink_to(folder / name)
        self.steps.finish_folder(place, key)
        self.steps.keep("features", key, {"schemas": dict(schemas)})

    def _evaluate(self, made: Made, rows: Rows) -> Judged:
        begun = clock.elapsed()
        champion = versions.champion(self.store, self.settings.name)
        key = self.steps.key(
            "evaluate", train=made.key, loss=self.settings.rollout.primary, seed=self.seed,
            champion=champion.artifact if champion else None,
        )  # fmt: skip
        name = f"{self.settings.name}@{champion.version}" if champion else None
        text = f"{int(rows.split.test.sum()):,} rows held back"
        before = self.steps.result(key)
        if before is not None:
            self.steps.say("evaluate", text, 0.0, cached=True)
            return Judged.of(before, key=key, champion=name)
        from fairway.path import judging

        result = judging.evaluation(
            self.project, made, rows, champion=champion, limits=self._limits, log=self.log, seed=self.seed
        )
        self.steps.keep("evaluate", key, result)
        self.steps.say("evaluate", text, clock.elapsed() - begun)
        return Judged.of(result, key=key, champion=name)

    def _package(self, made: Made, rows: Rows, code: Mapping[str, bytes], env: Mapping[str, Any]) -> tuple[str, Path]:
        begun = clock.elapsed()
        settings_toml, contract_toml = dump_settings(self.settings), dump_contract(self.contract)
        key = self.steps.key("package", train=made.key, settings=settings_toml, contract=contract_toml)
        before, runtime = self.steps.result(key), made.result["runtime"]
        text = f"{runtime['kind']}: {runtime['reason']}"
        if before is not None and before["artifact"] in self.workspace.blobs:
            artifact = str(before["artifact"])
            folder = package.materialise(self.workspace, artifact)
            self.steps.say("package", text, 0.0, cached=True, id=artifact[:12])
            return artifact, folder
        from fairway.path import judging

        manifest = package.Manifest(
            model=self.settings.name, task=self.settings.task, positive=self.settings.positive, classes=rows.classes,
            feature_columns=tuple((name, dtype) for name, dtype in made.result["feature_columns"]),
            views=tuple(view | {"columns": made.result["schemas"][view["name"]]} for view in made.result["views"]),
            contract=self.contract.version, runtime=runtime, environment=dict(env),
        )  # fmt: skip
        built = self.steps.new_folder()
        try:
            package.build(
                built / "package", manifest, settings_toml=settings_toml, contract_toml=contract_toml, code=code,
                model=made.folder / "model", reference=judging.reference(self.project, made, rows),
                heldout=msgspec.msgpack.decode((made.folder / "heldout.msgpack").read_bytes()),
            )  # fmt: skip
            artifact = package.store_package(self.workspace, built / "package")
        finally:
            shutil.rmtree(built, ignore_errors=True)
        folder = package.materialise(self.workspace, artifact)
        self.steps.keep("package", key, {"artifact": artifact})
        self.steps.say("package", text, clock.elapsed() - begun, id=artifact[:12])
        return artifact, folder

    def _check(self, made: Made, judged: Judged, rows: Rows, artifact: str, folder: Path) -> tuple[CheckResult, ...]:
        begun = clock.elapsed()
        key = self.steps.key(
            "checks", artifact=artifact, dataset=rows.dataset, evaluate=judged.key, seed=self.seed
        )  # the gates are in the artifact
        before = self.steps.result(key)
        if before is not None:
            results = tuple(CheckResult.from_dict(value) for value in before["checks"])
        else:
            from fairway.path import judging

            results = judging.checks(
                self.project, made, judged, rows, package=folder, run=self.run, log=self.log, seed=self.seed,
                child=self._checks_child,
            )  # fmt: skip
            if all(result.verdict != "unknown" for result in results):  # what did not run is asked again
                self.steps.keep("checks", key, {"checks": [result.as_dict() for result in results]})
        text = judge(results, risk=self.settings.risk).sentence
        self.steps.say("checks", text, 0.0 if before else clock.elapsed() - begun, cached=before is not None)
        return results

    def _register(
        self, made: Made, judged: Judged, artifact: str, folder: Path, checks: tuple[CheckResult, ...],
        taken: Snapshot, part: Split, known: Row | None, env: Mapping[str, Any],
    ) -> TrainResult:  # fmt: skip
        gate = judge(checks, risk=self.settings.risk)
        settings, name = as_dict(self.settings), self.settings.name
        previous = versions.newest(self.store, name)
        details = summary.details(
            project=self.project, made=made.result, importance=made.importance, taken=taken, env=env,
            n_train=int((~part.test).sum()), n_test=int(part.test.sum()), how=part.how, champion=judged.champion,
            champion_error=judged.champion_error,
        )  # fmt: skip
        with self.store.write() as tx:
            if known is not None:
                number = int(known.version)
            else:
                number = versions.register(self.store, tx, versions.NewVersion(
                    model=name, project_path=str(self.project.root), run=self.run, artifact=artifact,
                    dataset=taken.dataset, contract=self.contract.version, verdict=gate.answer,
                    metrics=judged.evaluation or {}, checks=[c.as_dict() for c in checks], settings=settings,
                    trained_until=part.trained_until, author=self.actor,
                ))  # fmt: skip
            self.steps.say("register", f"{name}@{number}", 0.0, cached=known is not None, id=f"{name}@{number}")
            report = self.folder / "report.html"
            result = TrainResult(
                run=self.run, model=name, version=number, new=known is None,
                verdict=known.verdict if known is not None else gate.answer, metrics=judged.evaluation,
                checks=_named(checks, self.run, f"{name}@{number}"),
                report=report, dataset=taken.dataset, artifact=artifact, runtime=made.result["runtime"],
                ms_per_row=made.result["ms_per_row"], steps=tuple(self.steps.lines),
                seconds=clock.elapsed() - self.clock0, details=details,
            )  # fmt: skip
            versions.remember_model(self.store, tx, name, str(self.project.root), settings)
            stored = {
                key: value for key, value in result.as_dict().items() if key not in ("checks", "metrics", "steps")
            }
            self._end(tx, status="done", result=stored)
        summary.report(self.folder, result, self.project, folder, previous=previous, error=judged.error)
        return result


def _content(frame: pl.DataFrame) -> str:
    """Content hash of a frame of events."""
    import io

    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return fingerprint.of_bytes(buffer.getvalue())


def _named(results: tuple[CheckResult, ...], run: str, version: str) -> tuple[CheckResult, ...]:
    """The results with the version's name in the commands that repeat them."""
    return tuple(replace(result, repeat=result.repeat.replace(run, version)) for result in results)
