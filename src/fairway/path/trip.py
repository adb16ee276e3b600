"""The steps of a run, one after the other. Loaded only when there is something to do; see `path.train`."""

import contextlib
import importlib
import io
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from fairway import clock, fingerprint
from fairway.checks.gate import judge
from fairway.checks.result import CheckResult
from fairway.contract.dump import dump_contract, dump_settings
from fairway.data.project import Project
from fairway.data.snapshot import Snapshot, snapshot, source_events
from fairway.data.source_state import Look
from fairway.errors import ModelCodeError
from fairway.monitor.resolved import as_dict
from fairway.path import card, making, source_hold, summary
from fairway.path.made import Judged, Made, Progress, Rows
from fairway.path.record import Record, TrainResult
from fairway.path.split import Split, split
from fairway.path.steps import Steps
from fairway.registry import versions
from fairway.runtime import package
from fairway.runtime.closure import packages
from fairway.runtime.environment import lock_files, machine
from fairway.store.base import Row
from fairway.training import work
from fairway.training.child import Child, limits_of
from fairway.training.targets import check_classes, encode


class Trip:
    """One run on its way. settled: whether the same files will give the same rows from now on, known after `go`."""

    def __init__(
        self, project: Project, record: Record, steps: Steps, *, actor: str, seed: int, stack: contextlib.ExitStack,
        child: Child, register: bool = True,
    ) -> None:  # fmt: skip
        self.project, self.settings, self.contract = project, project.settings, project.contract
        self.workspace, self.store = project.workspace, project.workspace.store
        self.record, self.steps, self.actor, self.seed = record, steps, actor, seed
        self._stack, self._child, self._may_register = stack, child, register
        self._checks_child: Child | None = None
        self.settled = False

    @property
    def as_of(self) -> str:
        return clock.iso(self.record.started)

    def go(
        self, code: Mapping[str, bytes], code_key: str, env: Mapping[str, Any], data: Snapshot | None
    ) -> TrainResult:
        """All steps in order."""
        begun = clock.elapsed()
        taken = data or snapshot(self.project, now=self.record.started, seen=self._held())
        self._say_snapshot(taken, clock.elapsed() - begun)
        begun = clock.elapsed()
        part = split(taken.frame, self.settings)
        target = self.contract.column(self.settings.target)
        series, classes = encode(taken.frame[target.name], target, self.settings)
        y = series.to_numpy()
        if classes:
            check_classes(y, part.test, classes, target.name)
        reviewed = "reviewed" if self.contract.reviewed else "not reviewed yet"
        self.steps.say(
            "contract", f"0 rows refused; {reviewed}", clock.elapsed() - begun, id=self.contract.version,
            notes=summary.noticed(taken),
        )  # fmt: skip
        events = {
            name: source_events(self.project, name, now=self.record.started, seen=self._held())
            for name in self.settings.sources
        }
        self.settled = self._is_settled(taken, events)
        rows = Rows(
            dataset=taken.dataset, frame=taken.frame, events=events, split=part, y=y, classes=classes,
            scratch=self.steps.new_folder,
        )  # fmt: skip
        made = self._features_and_train(code, code_key, env, rows)
        judged = self._evaluate(made, rows)
        artifact, folder = self._package(made, rows, code, env)
        known = versions.same(self.store, model=self.settings.name, artifact=artifact, dataset=taken.dataset)
        checks = self._check(made, judged, rows, artifact, folder)
        kept = making.keep_events(self.workspace, self.settings, events, now=self.record.started)
        return self._register(made, judged, artifact, folder, checks, taken, part, known, env, kept)

    def _held(self) -> Callable[[Look], None] | None:
        """What refuses a table that is late, empty or shrunk; a check and a replay use the table as it is."""
        return source_hold.holder(self.project, now=self.record.started) if self._may_register else None

    def _is_settled(self, taken: Snapshot, events: Mapping[str, pl.DataFrame]) -> bool:
        """Whether a later look at the same files gives the same rows: none is still to become known."""
        # A history of events may hold some that lie in the future of this run: they are not in `events`.
        return not (events or taken.counts.get("future") or taken.counts.get("unknown_yet"))

    def _say_snapshot(self, taken: Snapshot, seconds: float) -> None:
        key = self.steps.key("snapshot", dataset=taken.dataset)
        seen = self.steps.result(key) is not None
        if not seen:
            self.steps.keep("snapshot", key, {"dataset": taken.dataset, "rows": taken.frame.height})
        text = f"{taken.frame.height:,} rows, {taken.frame.width} columns"
        self.steps.say("snapshot", text, seconds, cached=seen, id=taken.dataset)

    def _features_and_train(self, code: Mapping[str, bytes], code_key: str, env: Mapping[str, Any], rows: Rows) -> Made:
        """Both in one child process; or from an earlier run."""
        part, events = rows.split, rows.events
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
            payload = making.lay_out(folder, rows, code, self.settings, self.contract, seed=self.seed, looked=looked)

            def ready() -> None:  # the checks' child warms up while the model is trained
                from fairway.path import judging

                self._checks_child = self._stack.enter_context(judging.warm_child(self.project, self.record.log))

            progress = Progress(folder / work.PROGRESS, self.steps, features_cached=looked is not None, ready=ready)
            # While the child works this process has nothing else to do; loading SciPy takes it half a second.
            threading.Thread(target=importlib.import_module, args=("fairway.path.judging",), daemon=True).start()
            try:
                result: dict[str, Any] = self._child.run(work.ENTRY, payload, watch=progress.look)
            except ModelCodeError as exc:
                raise work.explained(exc, folder, packages(code)) from exc
            progress.look()
            making.tidy(folder)
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
            self.project,
            made,
            rows,
            champion=champion,
            log=self.record.log,
            seed=self.seed,
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

        built = self.steps.new_folder()
        try:
            making.build(
                built / "package", made, rows, code, self.settings, self.contract,
                texts=(settings_toml, contract_toml), environment=env, locks=lock_files(self.project.root),
                reference=judging.reference(self.project, made, rows),
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
                self.project, made, judged, rows, package=folder, run=self.record.run, log=self.record.log,
                seed=self.seed, child=self._checks_child,
            )  # fmt: skip
            if all(result.verdict != "unknown" for result in results):  # what did not run is asked again
                self.steps.keep("checks", key, {"checks": [result.as_dict() for result in results]})
        text = judge(results, risk=self.settings.risk).sentence
        self.steps.say("checks", text, 0.0 if before else clock.elapsed() - begun, cached=before is not None)
        return results

    def _register(
        self, made: Made, judged: Judged, artifact: str, folder: Path, checks: tuple[CheckResult, ...],
        taken: Snapshot, part: Split, known: Row | None, env: Mapping[str, Any],
        events: Mapping[str, str],
    ) -> TrainResult:  # fmt: skip
        checks = _named(checks, "")
        gate = judge(checks, risk=self.settings.risk)
        settings, name = as_dict(self.settings), self.settings.name
        previous = versions.newest(self.store, name)
        details = summary.details(
            project=self.project, made=made.result, importance=made.importance, taken=taken, env=env,
            n_train=int((~part.test).sum()), n_test=int(part.test.sum()), how=part.how, champion=judged.champion,
            champion_error=judged.champion_error, seed=self.seed, events=events,
            machine=machine(threads=limits_of(self.settings).threads),
        )  # fmt: skip
        new = versions.NewVersion(
            model=name, project_path=str(self.project.root), run=self.record.run, artifact=artifact,
            dataset=taken.dataset, contract=self.contract.version, verdict=gate.answer,
            metrics=judged.evaluation or {}, checks=[c.as_dict() for c in checks], settings=settings,
            trained_until=part.trained_until, author=self.actor,
        )  # fmt: skip
        with self.store.write() as tx:
            number = None
            if self._may_register:
                number = int(known.version) if known is not None else versions.register(self.store, tx, new)
                versions.remember_model(self.store, tx, name, str(self.project.root), settings, actor=self.actor)
                thing = f"{name}@{number}"
                self.steps.say("register", thing, 0.0, cached=known is not None, id=thing)
                checks = _named(checks, thing)
            result = TrainResult(
                run=self.record.run, model=name, version=number, new=number is not None and known is None,
                verdict=known.verdict if known is not None else gate.answer, metrics=judged.evaluation, checks=checks,
                report=self.record.folder / "report.html", dataset=taken.dataset, artifact=artifact,
                runtime=made.result["runtime"], ms_per_row=made.result["ms_per_row"], steps=tuple(self.steps.lines),
                seconds=self.record.seconds, details=details,
            )  # fmt: skip
            self.record.finish(tx, result)
        summary.report(self.record.folder, result, self.project, folder, previous=previous, error=judged.error)
        if result.new and number is not None:
            card.write(self.workspace, name, number, self.record.folder)
        return result


def _content(frame: pl.DataFrame) -> str:
    """Content hash of a frame of events."""
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return fingerprint.of_bytes(buffer.getvalue())


def _named(results: tuple[CheckResult, ...], version: str) -> tuple[CheckResult, ...]:
    """The results with the command that repeats each on this version; without one, on the project as it is.

    Results may be those of an earlier run, whose name says nothing here.
    """
    return tuple(
        replace(r, repeat=" ".join(["fairway check", *filter(None, [version]), "--only", r.name])) for r in results
    )
