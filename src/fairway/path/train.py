"""`train`: from data to a tested version, step by step. It never changes traffic.

    snapshot -> contract -> features -> train -> evaluate -> package -> checks -> register

The project's code runs only in child processes. A run that ends early is recorded as failed, and nothing is registered.
Light to import: the steps themselves are in `path.trip`, which loads while the child process already starts.
"""

import contextlib
from typing import TYPE_CHECKING

from fairway import fingerprint
from fairway.data.project import Project, refuse_namesake
from fairway.path import unchanged
from fairway.path.record import Record, TrainResult
from fairway.path.steps import Say, Steps
from fairway.runtime.closure import closure, packages
from fairway.runtime.environment import environment
from fairway.store import tokens
from fairway.training.child import Child, limits_of

if TYPE_CHECKING:
    from fairway.data.snapshot import Snapshot

__all__ = ["TrainResult", "train"]

WARM = ("numpy", "polars", "treelite.gtil", "fairway.training.work")


def train(
    project: Project,
    *,
    cause: str = "person",
    actor: str | None = None,
    seed: int = 0,
    say: Say = lambda line: None,
    data: "Snapshot | None" = None,
    register: bool = True,
) -> TrainResult:
    """Train, evaluate, package, check and register one version of the project's model.

    cause: "person", "schedule", "alarm-12", … actor: who asked (default: the person at this machine). data: train on
    this instead of a snapshot of now. register: False ends with a run and no version (`fairway check`). Safe to run
    beside others.
    Raises: SettingsError when another project has its name; DataError, ContractViolation, ModelCodeError, … after the
    run was recorded as failed, with its log.
    """
    refuse_namesake(project)
    steps = Steps(project.workspace, say)
    record = Record(project, cause=cause, lines=steps)
    with contextlib.ExitStack() as stack:
        try:
            code = closure(project.root)
            code_key = fingerprint.of_value({name: fingerprint.of_bytes(text) for name, text in code.items()})
            env = environment(project.root, packages(code))
            who = actor or tokens.owner(project.workspace).name
            found = None
            if data is None and register:
                found = unchanged.key(project, steps, code=code_key, environment=env["digest"], seed=seed)
                result = unchanged.earlier(project, steps, found, record, actor=who)
                if result is not None:
                    return result
            # Something changed, so a child will be needed: it warms up while this process loads and reads.
            warm = (*WARM, *packages(code))
            child = stack.enter_context(
                Child(cwd=project.root, log=record.log, limits=limits_of(project.settings), warm=warm)
            )
            from fairway.path.trip import Trip

            trip = Trip(project, record, steps, actor=who, seed=seed, stack=stack, child=child, register=register)
            result = trip.go(code, code_key, env, data)
            # What could not be checked is asked again, so such a run is not the answer to the next.
            if trip.settled and all(check.verdict != "unknown" for check in result.checks):
                unchanged.keep(project, steps, found, result, as_of=trip.as_of)
            return result
        except BaseException as exc:
            record.fail(exc)
            raise
