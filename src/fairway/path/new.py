"""`fairway new`: from a table to a project that trains as it is, with every decision said and every guess marked."""

import json
import os
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from fairway.contract.dump import dump_contract, dump_settings
from fairway.contract.infer import Ask, Inferred, infer
from fairway.contract.settings import DataSettings, RolloutSettings, Settings
from fairway.contract.table import apply
from fairway.contract.text import NAME
from fairway.contract.view import parse_duration
from fairway.data.project import CODE, CONTRACT, SETTINGS, Project, agree, load_project, workspace_above
from fairway.data.snapshot import columns_of
from fairway.data.source import Raw, read_table
from fairway.errors import DataError, UsageError
from fairway.path.baseline import PARAMS, model_py

_TEMPLATES = Path(__file__).parent / "templates"
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class NewProject:
    """What was made. head: the table in one line; decisions: (topic, sentence); assumed: what no table can tell.

    files: what was written, relative to `root`.
    """

    project: Project
    head: str
    decisions: tuple[tuple[str, str], ...]
    assumed: str
    files: tuple[str, ...]
    workspace_note: str

    @property
    def root(self) -> Path:
        return self.project.root

    def found(self) -> list[str]:
        """What was found in the table, as lines for a terminal."""
        return found_lines(self.head, self.decisions, self.assumed)

    def written(self) -> list[str]:
        """What was written, and what to do next, as lines for a terminal."""
        name = self.root.name
        return [
            f"Wrote {name}/  {'  '.join(self.files)}",
            self.workspace_note,
            f"Next: cd {name} && fairway train",
        ]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "name": self.project.settings.name,
            "root": str(self.root),
            "table": self.head,
            "task": self.project.settings.task,
            "decisions": [{"topic": topic, "text": text} for topic, text in self.decisions],
            "assumed": self.assumed,
            "files": list(self.files),
        }


def found_lines(head: str, decisions: tuple[tuple[str, str], ...], assumed: str) -> list[str]:
    return [head, *(f"  {topic:<12} {text}".rstrip() for topic, text in decisions), assumed]


def new(
    name: str,
    data: Any,
    target: str,
    *,
    at: str | None = None,
    entity: str | None = None,
    task: str | None = None,
    positive: str | None = None,
    label_delay: str | None = None,
    yes: bool = False,
    ask: Ask | None = None,
    folder: Path | str | None = None,
    owner: str | None = None,
    say: Callable[[str], None] | None = None,
) -> NewProject:
    """Write the project `folder`/`name` for a table (a path, or a Polars or pandas frame) and its target column.

    ask: called as ask(question, answer in brackets) for what the table can't tell; without it, or with `yes`, the
    bracketed answer is taken. say: gets what was found, line by line, before the questions. Nothing is there half
    written: the folder appears whole, or not at all.
    Raises: UsageError (a name, a column, a folder that is there), DataError (the table).
    """
    here = Path(folder) if folder is not None else Path.cwd()
    root = here / name
    if not NAME.fullmatch(name) or name.endswith(".staging"):
        raise UsageError(
            f"{name!r} is no name for a model; use 1 to 64 of a-z 0-9 . _ - and start with a letter or digit",
            field="name",
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} is there already and not empty; choose another name", field="name")
    delay = _delay(label_delay) if label_delay is not None else None
    asked = None if yes else ask
    raw, path = _read(data, here)
    found = infer(
        raw.frame, target=target, file=raw.name, at=at, entity=entity, task=task, positive=positive, ask=asked
    )
    _trainable(found, raw)
    head = f"{raw.name}   {raw.frame.height:,} rows, {raw.frame.width} columns"
    assumed = f"Assumed, please look (marked in contract.toml): {'; '.join(found.assumed)}."
    decisions = (*found.decisions, *_about_baseline(found))
    if path is None:
        decisions += (("data", f"the frame is written to {name}/data/{name}.parquet"),)
    if say is not None:
        for line in found_lines(head, decisions, assumed):
            say(line)
    if label_delay is None and asked is not None:
        delay = _delay(asked("How long until the true answer is known, e.g. 6h or 30d?", _UNKNOWN).strip() or _UNKNOWN)
    settings = _settings(name, found, delay, _source(path, root, name), owner or _git_email(here))
    agree(settings, found.contract)
    files = _files(name, found, settings)
    _write(root, files, raw.frame if path is None else None, name)
    project = Project(root.resolve(), settings, agree(settings, found.contract), workspace_above(root.resolve()))
    note = _where(project, path)
    return NewProject(project, head, decisions, assumed, tuple(files), note)


def new_project(name: str, *, data: Any, target: str, folder: Path | str | None = None, **answers: Any) -> Project:
    """`new` without questions, for notebooks: the project, ready to train."""
    return new(name, data, target, folder=folder, yes=True, **answers).project


def example_rows(root: Path, *, n: int = 20) -> pl.DataFrame:
    """The first rows of a project's table as features() gets them (without views): for the project's own tests."""
    project = load_project(root)
    raw = read_table(project.settings.data, project.root)
    target = project.settings.target
    head = raw.frame.filter(raw.frame[target].is_not_null()).head(n)
    typed = apply(head, columns_of(project), file=raw.name).frame
    return typed.select(c.name for c in project.contract.request_columns)


# -- reading ---------------------------------------------------------------------------------------------------------


def _read(data: Any, here: Path) -> tuple[Raw, Path | None]:
    """The table, and where it is; None for a frame in memory."""
    if isinstance(data, str | Path):
        path = (here / data).resolve()
        return read_table(path, here), path
    if type(data).__module__.split(".")[0] == "pandas":
        data = pl.from_pandas(data)
    elif not isinstance(data, pl.DataFrame) and hasattr(data, "__arrow_c_stream__"):
        data = pl.DataFrame(data)
    if not isinstance(data, pl.DataFrame):
        raise UsageError(
            f"data is {type(data).__name__}; give a path, or a Polars, pandas or Arrow table", field="data"
        )
    return Raw(data, {"the frame": ""}, (data.height,)), None


def _delay(text: str) -> timedelta | None:
    if text == _UNKNOWN:
        return None
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise UsageError(f"label delay: {exc}, or unknown", field="label_delay") from exc


def _trainable(found: Inferred, raw: Raw) -> None:
    usable = [
        c for c in found.contract.columns
        if (c.role == "feature" and c.known == "request" and c.name not in found.strings) or c.role == "at"
    ]  # fmt: skip
    if not usable:
        why = "; ".join(f"{name}: {reason}" for name, reason in found.suspects.items())
        raise DataError(f"no column is left to learn from{': ' + why if why else ''}", file=raw.name)


def _about_baseline(found: Inferred) -> list[tuple[str, str]]:
    said = []
    if found.texts:
        says = "the baseline sees only lengths and counts of characters; words need a model of your own"
        said.append(("text", f"{', '.join(found.texts)}: {says}"))
    if found.strings:
        said.append(("baseline", f"does without {', '.join(found.strings)} (too many different values)"))
    return said


def _git_email(folder: Path) -> str:
    command = ["git", "-C", str(folder), "config", "user.email"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return _UNKNOWN  # no git here: the owner stays to be filled in
    return answer.stdout.strip() or _UNKNOWN


# -- the files -------------------------------------------------------------------------------------------------------


def _source(path: Path | None, root: Path, name: str) -> str:
    return f"data/{name}.parquet" if path is None else Path(os.path.relpath(path, root.resolve())).as_posix()


def _settings(name: str, found: Inferred, delay: timedelta | None, source: str, owner: str) -> Settings:
    return Settings(
        name=name,
        task=found.task,
        target=found.target,
        positive=found.positive,
        entity=found.entity,
        at=found.at,
        label_delay=delay,
        owner=owner,
        data=DataSettings(source=source),
        train=dict(PARAMS),
        rollout=RolloutSettings(margin=None if found.task == "regression" else 0.01),
    )


_COMMENTS = {
    "label_delay": 'until the truth is known; "unknown" turns live accuracy off',
    "owner": "gets reviews and alarms",
    "risk": "low | medium | high: high waits for a person before it goes live",
    "defaults": "gates, rollout and monitors per risk: fairway show defaults",
    "at": "when a prediction is asked: nothing later may be used",
    "data.source": "a Parquet or CSV file, or a folder of them",
    "train": "handed to train() as params",
    "gates": "always on: not worse than the champion, better than the base rate",
    "retrain.every": "a single file does not grow by itself",
}
_GATE = {"binary": 'auc = ">= 0.80"', "multiclass": 'accuracy = ">= 0.80"', "regression": 'mae = "<= 10"'}
_HEAD = (
    "What every column is. `seen` was observed: a value outside is predicted, and flagged. Only rules refuse a row:",
    "range, nulls, unseen = \"reject\". known = request | lookup | later | unsure says when a value is known; what is",
    "later or unsure is no part of a request and never a feature. `assumed` lists what the table could not tell.",
)  # fmt: skip


def _files(name: str, found: Inferred, settings: Settings) -> dict[str, str]:
    comments = dict(_COMMENTS)
    extra = {"gates": [f"{_GATE[found.task]:<28} # add it when you know what is good enough"]}
    if found.task == "regression":
        comments["rollout"] = "loss you would give up at most: margin; else 2 % of the champion's mean error"
    else:
        comments["rollout.margin"] = "primary loss (here Brier) you would give up, at most"
    toml = dump_settings(
        settings,
        comments=comments,
        show=("label_delay", "owner", "risk", "rollout.margin", "retrain.every"),
        extra=extra,
    )
    notes = {f"{name}.known": "look: request, lookup or later?" for name in found.suspects}
    return {
        SETTINGS: toml,
        CONTRACT: dump_contract(found.contract, comments=notes, head=_HEAD),
        CODE: model_py(name, found),
        "tests/test_model.py": (_TEMPLATES / "test_model.py.tmpl").read_text(),
        "tests/row.json": json.dumps({"rows": [example_row(found)]}, ensure_ascii=False, indent=1) + "\n",
        ".gitignore": ".fairway/\n__pycache__/\n",
    }


def example_row(found: Inferred) -> dict[str, Any]:
    """The first labelled row of the table, as a request carries it."""
    frame = found.frame.filter(pl.col(found.target).is_not_null()).head(1)
    row: dict[str, Any] = {}
    for column in found.contract.request_columns:
        if column.role == "at":
            continue  # the endpoint takes the time of the request
        values = frame[column.name]
        if column.type == "datetime":
            values = values.dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")
        elif column.type in ("date", "category"):
            values = values.cast(pl.String)
        row[column.name] = values[0]
    return row


def _write(root: Path, files: dict[str, str], frame: pl.DataFrame | None, name: str) -> None:
    """All of it beside the place where it belongs, then one rename."""
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = root.parent / f".{root.name}-{uuid.uuid4().hex[:8]}"
    try:
        for relative, text in files.items():
            path = draft / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if frame is not None:
            (draft / "data").mkdir()
            frame.write_parquet(draft / "data" / f"{name}.parquet")
        draft.rename(root)
    except OSError as exc:
        raise UsageError(f"{root} can't be written: {exc.strerror or exc}") from exc
    finally:
        if draft.exists():
            _remove(draft)


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def _where(project: Project, path: Path | None) -> str:
    home = project.workspace.root
    place = f"{home.name}/.fairway" if home == project.root else str(home / ".fairway")
    stays = "Your table stays where it is. " if path is not None else ""
    return f"{stays}Copies, versions and logs live in {place} (not a cache: keep it)."


__all__ = ["NewProject", "example_rows", "new", "new_project"]
