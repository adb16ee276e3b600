"""`train --reproduce RUN`: the same data, code, parameters and seed once more, and what comes out differently.

It works in a scratch folder, registers nothing and touches no traffic. The run's own code is taken, not the folder's.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa

from fairway import clock
from fairway.contract.text import parse_contract, parse_settings
from fairway.data.identity import dataset_id
from fairway.data.parts import load_dataset
from fairway.data.project import Project, agree
from fairway.errors import FairwayError, ModelCodeError, StoreError, TamperFound, ThingNotFound, UsageError
from fairway.path import making
from fairway.path.made import Made, Rows
from fairway.path.rebuild import Rebuilt, rebuild
from fairway.path.split import split
from fairway.path.steps import Say, StepLine
from fairway.registry import versions
from fairway.runtime import package
from fairway.runtime.closure import closure
from fairway.runtime.environment import environment, machine, needed
from fairway.store import schema
from fairway.store.base import Row
from fairway.store.workspace import Workspace
from fairway.training import work
from fairway.training.child import Child, limits_of
from fairway.training.targets import encode

LISTED = 12


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was in the run: what it is, then and now."""

    what: str
    then: str
    now: str


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """identical: the same artifact, byte for byte. differences: causes first, then what came of them. notes: what
    changed and did not matter, or was not used. artifact: of now; None when it could not be trained."""

    run: str
    identical: bool
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    artifact_then: str
    artifact: str | None
    rebuilt: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def reproduce(
    workspace: Workspace, thing: str, *, rebuild_environment: bool = False, say: Say = lambda line: None
) -> Reproduction:
    """Train what the run (or the version's run) trained, and compare.

    rebuild_environment: do it in a new environment of the recorded Python and packages, which uv installs.
    Raises: ThingNotFound, VersionNotFound; UsageError for a run that made nothing; FairwayError when the environment
    can't be built.
    """
    begun = clock.elapsed()
    row = _run(workspace, thing)
    with tempfile.TemporaryDirectory(prefix="fairway-again-") as scratch:
        again = _Again(workspace, row, Path(scratch), say)
        try:
            artifact, found, notes = again.go(rebuild_environment)
        except _Gone as gone:
            artifact, found, notes = None, [gone.difference], []
    then = str(row.result["artifact"])
    return Reproduction(
        run=row.run, identical=artifact == then, differences=tuple(found), notes=tuple(notes), artifact_then=then,
        artifact=artifact, rebuilt=rebuild_environment, seconds=round(clock.elapsed() - begun, 3),
    )  # fmt: skip


class _Gone(Exception):
    """Something that the repetition needs is no more."""

    def __init__(self, what: str, then: str, now: str) -> None:
        super().__init__(what)
        self.difference = Difference(what, then, now)


class _Again:
    def __init__(self, workspace: Workspace, row: Row, scratch: Path, say: Say) -> None:
        self.workspace, self.row, self.scratch, self._say = workspace, row, scratch, say
        self.artifact = str(row.result["artifact"])
        self.details: Mapping[str, Any] = row.result.get("details") or {}

    def go(self, rebuild_environment: bool) -> tuple[str | None, list[Difference], list[str]]:
        """(artifact, differences, notes)."""
        folder = self._package()
        manifest = package.read_manifest((folder / package.MANIFEST).read_bytes())
        settings = parse_settings((folder / "fairway.toml").read_text(encoding="utf-8"), file="fairway.toml")
        contract = parse_contract((folder / "contract.toml").read_text(encoding="utf-8"), file="contract.toml")
        project = Project(self.scratch, settings, agree(settings, contract), self.workspace)
        code = _files(folder / "code")
        rows = self._rows(project)
        rebuilt = self._rebuilt(manifest, folder) if rebuild_environment else None
        now_there = rebuilt.environment if rebuilt else environment(self.scratch)
        threads = int((self.details.get("machine") or {}).get("threads", 0)) or limits_of(settings).threads
        causes, notes = environment_differences(manifest.environment, now_there)
        causes += _machine_differences(self.details.get("machine") or {}, machine(threads=threads))
        notes += self._folder_code(code)
        made = self._train(project, rows, code, threads, rebuilt)
        begun = clock.elapsed()
        from fairway.path import judging  # SciPy: not before the data are there

        texts = ((folder / "fairway.toml").read_text("utf-8"), (folder / "contract.toml").read_text("utf-8"))
        artifact = making.build(
            self.scratch / "package", made, rows, code, settings, project.contract, texts=texts,
            environment=manifest.environment, locks=_files(folder / "environment"),
            reference=judging.reference(project, made, rows),
        )  # fmt: skip
        effects = [] if artifact == self.artifact else outcome_differences(folder, self.scratch / "package")
        self._say(StepLine("compare", artifact[:12], clock.elapsed() - begun))
        if artifact == self.artifact:
            notes = [*(f"{d.what} was {d.then} and is {d.now}: it changes nothing here" for d in causes), *notes]
            causes = []
        return artifact, [*causes, *effects], notes

    def _package(self) -> Path:
        try:
            return package.materialise(self.workspace, self.artifact)
        except (StoreError, TamperFound) as exc:
            raise _Gone("the run's package", self.artifact[:12], str(exc)) from exc

    def _rows(self, project: Project) -> Rows:
        begun = clock.elapsed()
        settings, dataset = project.settings, str(self.row.result["dataset"])
        frame = self._stored(dataset, at=settings.at, entity=settings.entity)
        recorded: Mapping[str, str] = self.details.get("events") or {}
        events = {}
        for name, source in settings.sources.items():
            if name not in recorded:
                raise _Gone(f"the events of {name}", "known to the run", "not stored: the run is of an older fairway")
            events[name] = self._stored(recorded[name], at=source.at, entity=source.key)
        self._say(StepLine("snapshot", f"{frame.height:,} rows, as stored", clock.elapsed() - begun, id=dataset))
        target = project.contract.column(settings.target)
        series, classes = encode(frame[target.name], target, settings)
        return Rows(
            dataset=dataset, frame=frame, events=events, split=split(frame, settings), y=series.to_numpy(),
            classes=classes, scratch=lambda: Path(tempfile.mkdtemp(dir=self.scratch)),
        )  # fmt: skip

    def _stored(self, dataset: str, *, at: str | None, entity: str | None) -> pl.DataFrame:
        table = schema.dataset
        with self.workspace.store.read() as tx:
            erased = tx.scalar(
                sa.select(table.c.erased_at).where(
                    table.c.workspace == self.workspace.store.workspace, table.c.dataset == dataset
                )
            )
        when = f"erased on {erased:%d %b %Y}" if erased is not None else ""
        try:
            frame = load_dataset(self.workspace, dataset)
        except (ThingNotFound, StoreError, TamperFound) as exc:
            raise _Gone(f"dataset {dataset}", "stored", when or f"gone: {exc}") from exc
        if dataset_id(frame, at=at, entity=entity) != dataset:
            raise _Gone(f"dataset {dataset}", "stored", f"rows of it were {when}" if when else "other rows")
        return frame

    def _rebuilt(self, manifest: package.Manifest, folder: Path) -> Rebuilt:
        begun = clock.elapsed()
        found = rebuild(self.scratch / "environment", manifest.environment, _files(folder / "environment"))
        text = f"Python {found.environment['python']}, {len(found.environment['packages'])} packages by uv"
        self._say(StepLine("rebuild", text, clock.elapsed() - begun))
        return found

    def _train(
        self, project: Project, rows: Rows, code: Mapping[str, bytes], threads: int, rebuilt: Rebuilt | None
    ) -> Made:
        begun = clock.elapsed()
        place = self.scratch / "made"
        place.mkdir()
        payload = making.lay_out(
            place, rows, code, project.settings, project.contract, seed=int(self.details.get("seed", 0)), looked=None
        )
        home = self._home()
        try:
            with Child(
                cwd=home if home is not None else self.scratch, log=self.scratch / "log.txt",
                limits=replace(limits_of(project.settings), threads=threads),
                python=rebuilt.python if rebuilt else None,
            ) as child:  # fmt: skip
                result = child.run(work.ENTRY, payload)
        except ModelCodeError as exc:
            raise _Gone("the training", "done", f"failed: {exc}") from exc
        self._say(StepLine("train", f"{int((~rows.split.test).sum()):,} rows", clock.elapsed() - begun))
        return Made("again", place, result)

    def _home(self) -> Path | None:
        """The project's folder, where its code may read files of its own; None when it is gone."""
        table = schema.model
        with self.workspace.store.read() as tx:
            path = tx.scalar(
                sa.select(table.c.project_path).where(
                    table.c.workspace == self.workspace.store.workspace, table.c.model == self.row.model
                )
            )
        return Path(path) if path and Path(path).is_dir() else None

    def _folder_code(self, code: Mapping[str, bytes]) -> list[str]:
        home = self._home()
        if home is None:
            return []
        try:
            now = closure(home)
        except FairwayError:
            return ["the code in the project's folder can't be read now; the run's own was used"]
        changed = sorted(name for name in {*code, *now} if code.get(name) != now.get(name))
        said = f"{', '.join(changed)} changed in the project's folder since; the run's own was used"
        return [said] if changed else []


def _run(workspace: Workspace, thing: str) -> Row:
    """The row of a run, or of the run that made a version."""
    store, table = workspace.store, schema.run
    name = thing
    if "@" in thing:
        parsed = versions.parse_thing(thing)
        name = str(versions.get(store, parsed.name, parsed.version).run)
    with store.read() as tx:
        found: Row | None = tx.execute(
            sa.select(table).where(table.c.workspace == store.workspace, table.c.run == name)
        ).first()
    if found is None:
        raise ThingNotFound(f"no run {name!r}; list them with: fairway show runs")
    if found.status != "done" or not found.result:
        raise UsageError(f"{name} is {found.status}: it made nothing that could be made again", field="reproduce")
    return found


def _files(folder: Path) -> dict[str, bytes]:
    found = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def environment_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[Difference], list[str]]:
    """(what may matter, notes): Python, and the packages that the code and fairway need; the others are counted."""
    found = []
    if then["python"] != now["python"]:
        found.append(Difference("Python", then["python"], now["python"]))
    asked = needed(then) if then.get("imports") is not None else set(then["packages"])
    before, after = then["packages"], now["packages"]
    changed = [name for name in sorted(before) if before[name] != after.get(name)]
    for name in changed:
        if name in asked:
            found.append(Difference(f"package {name}", before[name], after.get(name, "not installed")))
    rest = [name for name in changed if name not in asked and name in after]
    listed = ", ".join(rest[:LISTED])
    return found, [f"{len(rest)} packages that the run does not need have other versions: {listed}"] if rest else []


def _machine_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(name, str(then[name]), str(now[name])) for name in then if name in now and then[name] != now[name]
    ]


_PARTS = {"reference.json": "the monitor's reference", "contract.toml": "the contract", "fairway.toml": "the settings"}


def outcome_differences(then: Path, now: Path) -> list[Difference]:
    """How two packages differ, by what it means: files of the model with their bytes, and predictions by the most."""
    one, two = (package.read_manifest((folder / package.MANIFEST).read_bytes()) for folder in (then, now))
    found = []
    for name in sorted({*one.files, *two.files} - {"heldout.msgpack"}):
        if one.files.get(name) != two.files.get(name):
            what = f"the model's bytes, {name}" if name.startswith("model/") else _PARTS.get(name, name)
            found.append(Difference(what, _file(then, name), _file(now, name)))
    for what in ("classes", "feature_columns", "views", "runtime"):
        if getattr(one, what) != getattr(two, what):
            before, after = getattr(one, what), getattr(two, what)
            said = (str(before["reason"]), str(after["reason"])) if what == "runtime" else (str(before), str(after))
            found.append(Difference(what.replace("_", " "), said[0][:200], said[1][:200]))
    before, after = (package.read_heldout(folder) for folder in (then, now))
    if before["rows"] != after["rows"]:
        found.append(Difference("the held-out rows", f"{len(before['rows'])}", f"{len(after['rows'])}, or others"))
        return found
    p, q = np.array(before["outputs"], dtype=np.float64), np.array(after["outputs"], dtype=np.float64)
    most = float(np.abs(p - q).max(initial=0.0)) if p.shape == q.shape else float("inf")
    differ = int((p != q).reshape(len(p), -1).any(axis=1).sum()) if p.shape == q.shape else len(p)
    rows = f"{len(p)} held-out rows"
    found.append(
        Difference("predictions", f"of {rows}", f"the same to the last bit on all {rows}")
        if not differ
        else Difference("predictions", f"of {rows}", f"{differ} differ, at most by {most:.3g}")
    )
    return found


def _file(folder: Path, name: str) -> str:
    path = folder / name
    if not path.is_file():
        return "not there"
    manifest = package.read_manifest((folder / package.MANIFEST).read_bytes())
    return f"{path.stat().st_size:,} bytes, sha256 {manifest.files[name][:12]}"
