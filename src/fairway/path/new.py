"""`fairway new`: from a table to a project that trains as it is, with every decision said and every guess marked."""

import json
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
from fairway.path import new_source
from fairway.path.baseline import model_py, params
from fairway.path.outside_schema import declared, from_pandera
from fairway.runtime.wire import wire_rows

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
    url: str | None = None,
    contract: str | None = None,
    say: Callable[[str], None] | None = None,
) -> NewProject:
    """Write the project `folder`/`name` for a table and its target column.

    data: a path, folder, glob or s3:// address, a query ("select ...", with `url` of its database: "env:NAME"), or a
    Polars, pandas or Arrow table.
    ask: called as ask(question, answer in brackets) for what the table can't tell; without it, or with `yes`, the
    bracketed answer is taken. contract: a Pandera schema, "schema.py:Schema", whose rules are taken.
    say: gets what was found, line by line, before the questions. Nothing is there half
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
    raw, place = new_source.read(data, here, url=url)
    found = infer(
        raw.frame, target=target, file=raw.name, at=at, entity=entity, task=task, positive=positive, ask=asked
    )
    if contract is not None:
        found = declared(found, from_pandera(contract, folder=here), raw.frame, file=raw.name)
    _trainable(found, raw)
    head = f"{raw.name}   {raw.frame.height:,} rows, {raw.frame.width} columns"
    assumed = f"Assumed, please look (marked in contract.toml): {'; '.join(found.assumed)}."
    decisions = (*found.decisions, *_about_baseline(found))
    if place is not None and place.dialect.declared():
        decisions += (("text", f"{place.dialect.words()}; written down in {SETTINGS}"),)
    if place is None:
        decisions += (("data", f"the frame is written to {name}/data/{name}.parquet"),)
    if say is not None:
        for line in found_lines(head, decisions, assumed):
            say(line)
    if label_delay is None and asked is not None:
        delay = _delay(asked("How long until the true answer is known, e.g. 6h or 30d?", _UNKNOWN).strip() or _UNKNOWN)
    source = new_source.settings_of(place, here=here.resolve(), root=root.resolve(), name=name)
    settings = _settings(name, found, delay, source, owner or _git_email(here))
    agree(settings, found.contract)
    files = _files(name, found, settings)
    _write(root, files, raw.frame if place is None else None, name)
    project = Project(root.resolve(), settings, agree(settings, found.contract), workspace_above(root.resolve()))
    note = _where(project, is_copy=place is None)
    return NewProject(project, head, decisions, assumed, tuple(files), note)


def example_rows(root: Path, *, n: int = 20) -> pl.DataFrame:
    """The first rows of a project's table as features() gets them (without views): for the project's own tests."""
    project = load_project(root)
    raw = read_table(project.settings.data, project.root)
    target = project.settings.target
    head = raw.frame.filter(raw.frame[target].is_not_null()).head(n)
    typed = apply(head, columns_of(project), file=raw.name).frame
    return typed.select(c.name for c in project.contract.request_columns)


# -- reading ---------------------------------------------------------------------------------------------------------


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
        if (c.role == "feature" and c.known == "request" and c.type != "image" and c.name not in found.strings)
        or c.role == "at"
    ]  # fmt: skip
    if not usable:
        pictures = [c.name for c in found.contract.columns if c.type == "image"]
        images = dict.fromkeys(pictures, "an image, which the baseline can't read")
        strings = dict.fromkeys(found.strings, "too many different values")
        why = "; ".join(f"{name}: {reason}" for name, reason in (found.suspects | images | strings).items())
        say = f"no column is left to learn from{': ' + why if why else ''}. Add a column with a number or category"
        raise DataError(f"{say}{', for example one made of the images' if images else ''}", file=raw.name)


def _about_baseline(found: Inferred) -> list[tuple[str, str]]:
    said = []
    if found.texts:
        says = "the baseline is a linear model on its words (TF-IDF) and counts of characters"
        said.append(("text", f"{', '.join(found.texts)}: {says}"))
    images = [c.name for c in found.contract.columns if c.type == "image" and c.role == "feature"]
    if images:
        said.append(("images", f"{', '.join(images)}: the baseline does without; decode them in features()"))
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


def _settings(name: str, found: Inferred, delay: timedelta | None, source: DataSettings, owner: str) -> Settings:
    return Settings(
        name=name,
        task=found.task,
        target=found.target,
        positive=found.positive,
        entity=found.entity,
        at=found.at,
        label_delay=delay,
        owner=owner,
        data=source,
        train=params(found),
        rollout=RolloutSettings(margin=None if found.task == "regression" else 0.01),
    )


_COMMENTS = {
    "label_delay": 'until the truth is known; "unknown" turns live accuracy off',
    "owner": "gets reviews and alarms",
    "risk": "low | medium | high: high waits for a person before it goes live",
    "defaults": "gates, rollout and monitors per risk: fairway show defaults",
    "at": "when a prediction is asked: nothing later may be used",
    "data.source": "a Parquet, CSV or JSON lines file, a folder or glob of them, a Delta table; s3:// too",
    "data.delimiter": "as found in the file: please look",
    "data.encoding": "as found in the file: please look",
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
    first = found.frame.filter(pl.col(found.target).is_not_null()).head(1)
    # Without the time: the endpoint takes that of the request.
    return wire_rows(first.select(c.name for c in found.contract.request_columns if c.role != "at"))[0]


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


def _where(project: Project, *, is_copy: bool) -> str:
    home = project.workspace.root
    place = f"{home.name}/.fairway" if home == project.root else str(home / ".fairway")
    stays = "" if is_copy else "Your table stays where it is. "
    return f"{stays}Copies, versions and logs live in {place} (not a cache: keep it)."


__all__ = ["NewProject", "example_rows", "new"]
