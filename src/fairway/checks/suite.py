"""All checks of one version, in order, with the code of the project only ever in child processes."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway import clock
from fairway.checks import child as inside
from fairway.checks import judged, leaks, sample
from fairway.checks.result import CheckResult, failed, passed, unknown
from fairway.checks.subject import Material
from fairway.contract.columns import Contract
from fairway.contract.settings import Settings
from fairway.errors import FairwayError, ModelCodeError
from fairway.runtime import package
from fairway.training.child import Child, Limits
from fairway.training.evaluate import Evaluation

ENTRY = "fairway.checks.child:run"
WARM = ("fairway.checks.child", "sklearn.ensemble", "treelite")

MOST_S = 3600.0  # of all checks together; each has its own limit inside
LIMIT = timedelta(seconds=60)  # of one check: a hang fails that check, not the run
TRAIN_ROWS = 5000  # of the training table that the child sees
HELDOUT_ROWS = 2000
CRASHES = 3  # children that may die before the rest is left unknown


@dataclass(frozen=True, kw_only=True)
class CheckInput:
    """What there is to check.

    version: "churn@3", or the run while there is none, for the repeat command. train, heldout: typed rows with their
    target, without view columns. cwd: the project's folder. log: file for what its code prints. y_train, y_heldout:
    their labels as numbers, codes by `classes`. losses: of `heldout`, row by row. y_champion: labels of all rows that
    the champion was made from, None where they are gone. events: by source, typed, with "_known_at". python_outputs: of
    the trained object on `heldout`, before packaging. evaluation: None when outputs could not be evaluated, then
    evaluation_error says why. champion: its name, None without one. look_ups: view columns of `train`, in its order,
    where they are known, for the search for leaks. limit: of one check.
    """

    version: str
    settings: Settings
    contract: Contract
    package: Path
    cwd: Path
    log: Path
    train: pl.DataFrame
    heldout: pl.DataFrame
    y_train: NDArray[Any]
    y_heldout: NDArray[Any]
    classes: tuple[str, ...]
    events: Mapping[str, pl.DataFrame]
    python_outputs: NDArray[np.float64]
    evaluation: Evaluation | None
    evaluation_error: str = ""
    y_champion: NDArray[Any] | None = None
    losses: NDArray[np.float64] | None = None
    champion: str | None = None
    look_ups: pl.DataFrame | None = None
    seed: int = 0
    only: tuple[str, ...] = ()
    limit: timedelta = LIMIT


def warm_child(settings: Settings, *, cwd: Path, log: Path) -> Child:
    """The child of the checks, started and importing what it needs: start it while the model is still trained."""
    # One thread: the samples are small, and on a busy machine threads that wait for each other cost seconds.
    limits = Limits(time_s=MOST_S, memory_mb=settings.limits.memory_mb, threads=1)
    return Child(cwd=cwd, log=log, limits=limits, warm=WARM)


def run_checks(given: CheckInput, *, child: Child | None = None) -> list[CheckResult]:
    """Every check, or those of `given.only`; each comes back with its seconds and the command that repeats it.

    child: one that was started early by `warm_child`; it is used up. A check whose child crashes or hangs fails by its
    name and the rest runs in a new child; a check that never ran is unknown. Raises nothing for a bad project.
    """
    names = [name for name in inside.names_for(given.contract, given.settings) if _asked(given, name)]
    if not names:
        results = _in_this_process(given)
    else:
        first = child or _new_child(given)
        try:
            # Those of this process are done while the child works: neither waits for the other.
            with ThreadPoolExecutor(1) as beside:
                own = beside.submit(_in_this_process, given)
                inner = _in_children(given, names, first)
                results = [*own.result(), *inner]
        finally:
            first.close()
    return [
        replace(r, repeat=f"fairway check {given.version} --only {r.name}") for r in results if _asked(given, r.name)
    ]


def _asked(given: CheckInput, name: str) -> bool:
    """`--only metric-gate` names all of its kind."""
    return not given.only or any(name == only or name.startswith(only + "-") for only in given.only)


def _in_this_process(given: CheckInput) -> list[CheckResult]:
    settings, contract, why = given.settings, given.contract, given.evaluation_error
    extra = given.look_ups
    frame = given.train if extra is None else pl.concat([given.train, extra], how="horizontal")
    planned: list[tuple[str, Callable[[], CheckResult | list[CheckResult]]]] = [
        ("package-intact", lambda: package_intact(given.package)),
        ("better-than-base-rate", lambda: judged.better_than_base_rate(given.evaluation, why)),
        ("metric-gate", lambda: judged.metric_gates(settings, given.evaluation, why)),
        ("not-worse-than-champion", lambda: judged.not_worse_than_champion(given.evaluation, given.champion, why)),
        ("slices-not-worse", lambda: judged.slices_not_worse(given.evaluation, given.champion, why)),
        ("leak-suspect", lambda: leaks.leak_suspect(
            contract, settings, frame, given.y_train, given.evaluation,
            extra_columns=tuple(extra.columns) if extra is not None else (),
        )),
        ("train-heldout-apart", lambda: judged.rows_apart(contract, given.train, given.heldout)),
        ("copies-apart", lambda: sample.copies_apart(contract, given.train, given.heldout, given.losses)),
        ("class-balance", lambda: sample.class_balance(given.y_train, given.y_heldout, given.classes)),
        ("target-steady", lambda: sample.target_steady(
            np.concatenate([given.y_train, given.y_heldout]), given.y_champion, given.classes, given.champion,
            declared=contract.column(settings.target).range is not None,
        )),
        ("contract-reviewed", lambda: judged.contract_reviewed(contract)),
    ]  # fmt: skip
    results: list[CheckResult] = []
    for name, check in planned:
        if given.only and not any(
            only == name or only.startswith(name) or name.startswith(only) for only in given.only
        ):
            continue
        began = clock.elapsed()
        try:
            found = check()
        except Exception as error:  # a check that breaks proves nothing, and must not take the others with it
            found = unknown(name, f"the check itself broke: {type(error).__name__}: {error}")
        took = clock.elapsed() - began
        several = found if isinstance(found, list) else [found]
        results += [replace(result, seconds=took / max(1, len(several))) for result in several]
    return results


def package_intact(folder: Path) -> CheckResult:
    """Every file of the package has the bytes that its manifest names, and there is no other file."""
    try:
        manifest = package.verify(folder)
    except FairwayError as error:
        return failed("package-intact", str(error))
    return passed(
        "package-intact", f"{len(manifest.files)} files have the hashes of the manifest", files=len(manifest.files)
    )


def _new_child(given: CheckInput) -> Child:
    return warm_child(given.settings, cwd=given.cwd, log=given.log)


def _in_children(given: CheckInput, names: list[str], first: Child) -> list[CheckResult]:
    folder = Path(tempfile.mkdtemp(prefix="fairway-checks-"))
    try:
        inside.write_material(folder, _material(given))
        return _until_done(given, names, folder, first)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _until_done(given: CheckInput, names: list[str], folder: Path, first: Child) -> list[CheckResult]:
    done: dict[str, CheckResult] = {}
    crashes, death, child = 0, "", first
    while len(done) < len(names) and crashes < CRASHES:
        left = [name for name in names if name not in done]
        (folder / inside.RESULTS).unlink(missing_ok=True)
        payload = {"folder": str(folder), "package": str(given.package), "checks": left,
                   "limit_s": given.limit.total_seconds()}  # fmt: skip
        death = ""
        try:
            child.run(ENTRY, payload)
        except ModelCodeError as error:
            death = str(error)
        results, running = read_results(folder / inside.RESULTS)
        done |= {result.name: result for result in results if result.name in left}
        load = next((result for result in results if result.name == inside.LOADING), None)
        if load is not None:
            return [load, *(unknown(name, "the package can't be loaded") for name in names)]
        if running is None:
            break  # all is done, or it died before the first
        crashes += 1
        why = _hang(folder, given.limit) or death or "its process ended without a word"
        result = failed(running, f"while this check ran, {why}", death=death, stack=_stack(folder))
        if running == inside.LOADING:
            return [result, *(unknown(name, "the package can't be loaded") for name in names)]
        done[running] = result
        if len(done) < len(names) and crashes < CRASHES:
            child.close()
            child = _new_child(given)
    child.close()
    return [
        done.get(name) or unknown(name, f"did not run: {death or 'the process of the checks ended'}") for name in names
    ]


def read_results(path: Path) -> tuple[list[CheckResult], str | None]:
    """(results, the check that was running at the end or None). A line that was cut by a crash is left out."""
    results, running = [], None
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            value = json.loads(line)
        except ValueError:
            break
        if "begin" in value:
            running = value["begin"]
        else:
            results.append(CheckResult.from_dict(value["result"]))
            running = None
    return results, running


def _stack(folder: Path) -> str:
    path = folder / inside.STACK
    return path.read_text(encoding="utf-8", errors="replace")[-4000:] if path.exists() else ""


def _hang(folder: Path, limit: timedelta) -> str | None:
    return f"model.py did not come back within {limit.total_seconds():g} s" if "Timeout (" in _stack(folder) else None


def _material(given: CheckInput) -> Material:
    rng = np.random.default_rng(given.seed)
    keep = np.arange(given.heldout.height)
    if len(keep) > HELDOUT_ROWS:
        keep = np.sort(rng.choice(keep, HELDOUT_ROWS, replace=False))
    train = given.train
    if train.height > TRAIN_ROWS:
        train = train[np.sort(rng.choice(train.height, TRAIN_ROWS, replace=False))]
    heldout = given.heldout[keep]
    target = given.settings.target
    requests = package.read_heldout(given.package)["rows"] if (given.package / "heldout.msgpack").exists() else []
    return Material(
        train=train,
        heldout=heldout.drop(target) if target in heldout.columns else heldout,
        events=given.events,
        python_outputs=np.asarray(given.python_outputs, dtype=np.float64)[keep],
        request_rows=requests,
        now_us=clock.to_us(clock.now()),
        seed=given.seed,
    )


def counts(results: Sequence[CheckResult]) -> dict[str, int]:
    """How many of each verdict."""
    found: dict[str, int] = {}
    for result in results:
        found[result.verdict] = found.get(result.verdict, 0) + 1
    return found
