"""A project as it stands in its folder: fairway.toml and contract.toml read, and checked against each other."""

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from fairway.contract.classes import class_names
from fairway.contract.columns import Column, Contract, Role
from fairway.contract.settings import Settings
from fairway.contract.text import parse_contract, parse_settings
from fairway.contract.toml import nearest, one_of
from fairway.errors import ModelNotFound, ProjectNotFound, SettingsError
from fairway.store import schema
from fairway.store.workspace import Workspace

_ENTITIES = ("string", "category", "int", "bool", "date", "datetime")
SETTINGS, CONTRACT, CODE = "fairway.toml", "contract.toml", "model.py"


@dataclass(frozen=True)
class Project:
    """root: the folder with fairway.toml. The settings and the contract agree with each other."""

    root: Path
    settings: Settings
    contract: Contract
    workspace: Workspace


def load_project(start: Path | None = None, *, workspace: Workspace | None = None) -> Project:
    """The project at or above `start` (default: the current folder); its workspace is made if there is none.

    Raises: ProjectNotFound, SettingsError (line, key, what was found, what is allowed).
    """
    root = find_root(start or Path.cwd())
    settings = parse_settings(_read(root / SETTINGS), file=SETTINGS)
    if not (root / CONTRACT).is_file():
        raise SettingsError(f"the project at {root} has none; `fairway new` writes one", file=CONTRACT)
    contract = agree(settings, parse_contract(_read(root / CONTRACT), file=CONTRACT))
    return Project(root, settings, contract, workspace or workspace_above(root))


def find_root(start: Path) -> Path:
    """The nearest folder at or above `start` that holds fairway.toml. Raises: ProjectNotFound."""
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / SETTINGS).is_file():
            return folder
    raise ProjectNotFound(f"no {SETTINGS} in {start} or above; start a project with: fairway new NAME --data TABLE")


def workspace_above(root: Path) -> Workspace:
    """The workspace at or above a project's folder; a project without one starts its own."""
    for folder in (root, *root.parents):
        if (folder / ".fairway").is_dir():
            return Workspace.find(folder)
    return Workspace.create(root)


def project_of(workspace: Workspace, model: str) -> Project:
    """The project that a registered model was last trained from.

    Raises: ModelNotFound; ProjectNotFound when its folder is gone; SettingsError.
    """
    paths = _paths(workspace)
    if model not in paths:
        raise ModelNotFound(model, known=sorted(paths))
    if not _is_there(paths[model]):
        raise ProjectNotFound(
            f"the project of {model} was at {paths[model]}, and there is no {SETTINGS} now; train it from where it is"
        )
    return load_project(Path(paths[model] or ""), workspace=workspace)


def absent(workspace: Workspace) -> list[str]:
    """Registered models whose project is not on this machine at the path it was last trained from."""
    return sorted(model for model, path in _paths(workspace).items() if not _is_there(path))


def _paths(workspace: Workspace) -> dict[str, str | None]:
    table = schema.model
    with workspace.store.read() as tx:
        rows = tx.execute(
            sa.select(table.c.model, table.c.project_path).where(table.c.workspace == workspace.store.workspace)
        ).all()
    return {row.model: row.project_path for row in rows}


def _is_there(path: str | None) -> bool:
    return bool(path) and (Path(str(path)) / SETTINGS).is_file()


def troubles(workspace: Workspace, *, variables: bool = False) -> dict[str, str]:
    """Models whose project can't be read as it stands now, and why. What is served does not need it; training does.

    variables: also those whose settings name an environment variable that this process does not have.
    """
    table, found = schema.model, {}
    with workspace.store.read() as tx:
        rows = tx.execute(
            sa.select(table.c.model, table.c.project_path)
            .where(table.c.workspace == workspace.store.workspace)
            .order_by(table.c.model)
        ).all()
    for row in rows:
        if not row.project_path or not (Path(row.project_path) / SETTINGS).is_file():
            continue
        try:
            settings = load_project(Path(row.project_path), workspace=workspace).settings
        except SettingsError as error:
            found[row.model] = str(error)
            continue
        missing = missing_variables(settings) if variables else []
        if missing:
            found[row.model] = f"{SETTINGS}: {'; '.join(missing)}"
    return found


def missing_variables(settings: Settings) -> list[str]:
    """What is said of each variable that holds a URL and is not set."""
    places = {"data.url": settings.data.url} | {f"sources.{name}.url": s.url for name, s in settings.sources.items()}
    return [
        f"{key}: the variable {url.removeprefix('env:')} is not set"
        for key, url in places.items()
        if url is not None and url.startswith("env:") and not os.environ.get(url.removeprefix("env:"))
    ]


def refuse_namesake(project: Project) -> None:
    """Raises: SettingsError when another project of the same workspace trains a model of this name."""
    table, name = schema.model, project.settings.name
    with project.workspace.store.read() as tx:
        known = tx.scalar(
            sa.select(table.c.project_path).where(
                table.c.workspace == project.workspace.store.workspace, table.c.model == name
            )
        )
    if not known or Path(known) == project.root or not (Path(known) / SETTINGS).is_file():
        return  # new, its own, or moved here
    other = Path(known)
    above = next((folder for folder in (other, *other.parents) if (folder / ".fairway").is_dir()), None)
    if above != project.workspace.root:
        return  # this workspace is a copy of that one
    with contextlib.suppress(SettingsError):
        if parse_settings(_read(other / SETTINGS), file=SETTINGS).name != name:
            return
    raise SettingsError(
        f'name = "{name}" is the model of {other}, in the same workspace; one route has one model: choose another name',
        file=SETTINGS, field="name",
    )  # fmt: skip


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise SettingsError(f"byte {exc.start:,} is not UTF-8; save the file as UTF-8", file=path.name) from exc
    except OSError as exc:
        raise SettingsError(f"can't be read: {exc.strerror}", file=path.name) from exc


# -- do the two files say the same? ----------------------------------------------------------------------------------


def agree(settings: Settings, contract: Contract) -> Contract:
    """The contract with the roles that the settings name. Raises: SettingsError where the two contradict."""
    names = [c.name for c in contract.columns]
    wanted: dict[Role, str | None] = {"target": settings.target, "entity": settings.entity, "at": settings.at}
    for role, name in wanted.items():
        if name is not None and name not in names:
            hint = nearest(name, names)
            says = f"did you mean {hint}?" if hint else f"its columns are {', '.join(names[:20])}"
            raise SettingsError(f'{role} = "{name}" is no column of contract.toml; {says}', file=SETTINGS, field=role)
        having = next((c.name for c in contract.columns if c.role == role), None)
        if having is not None and having != name:
            found = f'{role} = "{name}"' if name else f"no {role}"
            raise SettingsError(
                f'column {having} has role = "{role}", but fairway.toml has {found}', file=CONTRACT, field=having
            )
    roles = {name: role for role, name in wanted.items() if name is not None}
    columns = tuple(
        dataclasses.replace(c, role=roles[c.name], known="later" if roles[c.name] == "target" else c.known)
        if c.name in roles
        else c
        for c in contract.columns
    )
    contract = dataclasses.replace(contract, columns=columns)
    _check_types(settings, contract)
    _check_sources(settings, contract)
    return contract


def _check_types(settings: Settings, contract: Contract) -> None:
    target = contract.column(settings.target)
    _check_shape(settings, contract)
    if settings.at is not None and contract.column(settings.at).type != "datetime":
        raise SettingsError(
            f'at = "{settings.at}" is a {contract.column(settings.at).type} column; the prediction time is a datetime',
            file=SETTINGS, field="at",
        )  # fmt: skip
    if settings.task == "regression":
        if target.type not in ("int", "float"):
            raise SettingsError(
                f"task regression needs a number; {target.name} is a {target.type}", file=SETTINGS, field="task"
            )
    else:
        _check_classes(settings, target)
    name = settings.data.label_at
    if name is None:
        return
    label_at = next((c for c in contract.columns if c.name == name), None)
    if label_at is None or label_at.type != "datetime":
        raise SettingsError(f'data.label_at = "{name}" must be a datetime column of contract.toml', file=SETTINGS)
    if label_at.role == "feature" and label_at.known != "later":
        raise SettingsError(
            f'{name} says when the label is known, so it can\'t be a feature: set known = "later"',
            file=CONTRACT, field=name,
        )  # fmt: skip


def _check_shape(settings: Settings, contract: Contract) -> None:
    """What the contract asks of the whole table, and of who a row is about."""
    if settings.entity is not None and (kind := contract.column(settings.entity).type) not in _ENTITIES:
        raise SettingsError(
            f'entity = "{settings.entity}" is a {kind} column; an entity is told by {one_of(_ENTITIES)}',
            file=CONTRACT, field=settings.entity,
        )  # fmt: skip
    if contract.fresh is not None and settings.at is None:
        raise SettingsError("fresh needs a prediction time: set at in fairway.toml", file=CONTRACT, field="fresh")


def _check_classes(settings: Settings, target: Column) -> None:
    if target.type not in ("category", "bool", "int"):
        raise SettingsError(
            f'task {settings.task} needs classes; {target.name} is "{target.type}" (make it a category with values)',
            file=CONTRACT, field=target.name,
        )  # fmt: skip
    names = class_names(target)
    if settings.task == "binary" and len(names) != 2:
        raise SettingsError(
            f"task binary needs two classes; {target.name} has {len(names)}", file=CONTRACT, field=target.name
        )
    if settings.task == "multiclass" and len(names) < 2:
        raise SettingsError(f"{target.name} has fewer than two classes", file=CONTRACT, field=target.name)
    if settings.task == "binary" and settings.positive not in names:
        found = f'positive = "{settings.positive}" is not one of them' if settings.positive else "positive is missing"
        raise SettingsError(
            f"{target.name} has the classes {', '.join(names)}; {found}", file=SETTINGS, field="positive"
        )


def _check_sources(settings: Settings, contract: Contract) -> None:
    described = dict(contract.sources)
    for name, source in settings.sources.items():
        if name not in described:
            raise SettingsError(
                f"source {name} is in fairway.toml, but its columns are not here: add [sources.{name}.columns.COLUMN]",
                file=CONTRACT, field=f"sources.{name}",
            )  # fmt: skip
        types = {c.name: c.type for c in described[name]}
        for key, column in (("at", source.at), ("key", source.key), ("known_at", source.known_at)):
            if column is not None and column not in types:
                raise SettingsError(
                    f'sources.{name}.{key} = "{column}" is no column of that source in contract.toml', file=SETTINGS
                )
        for key, column in (("at", source.at), ("known_at", source.known_at)):
            if column is not None and types[column] != "datetime":
                raise SettingsError(
                    f"sources.{name}.{key}: {column} is a {types[column]}, not a datetime", file=CONTRACT
                )
    for name in described:
        if name not in settings.sources:
            hint = nearest(name, settings.sources)
            says = f"; did you mean {hint}?" if hint else ""
            raise SettingsError(
                f"source {name} is described here but not in fairway.toml{says}", file=CONTRACT, field=f"sources.{name}"
            )
