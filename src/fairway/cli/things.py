"""What a command is about: THING as written, the project and workspace around the current folder, and who asks."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.errors import NotAllowed, ProjectNotFound, UsageError

if TYPE_CHECKING:
    from fairway.data.project import Project
    from fairway.store.tokens import Identity
    from fairway.store.workspace import Workspace

TOKEN_VARIABLE = "FAIRWAY_TOKEN"
_MODEL = re.compile(r"(?P<model>[a-z0-9][a-z0-9._-]{0,63})(?:@(?P<version>\d{1,9}))?")


@dataclass(frozen=True)
class ModelThing:
    """`churn` or `churn@3`."""

    model: str
    version: int | None = None


def parse_model(thing: str) -> ModelThing:
    """Raises: UsageError for what names neither a model nor a version."""
    found = _MODEL.fullmatch(thing)
    if found is None:
        raise UsageError(f"{thing!r} names no model: write churn or churn@3", field="thing")
    return ModelThing(found["model"], int(found["version"]) if found["version"] else None)


def project_here() -> "Project | None":
    """The project whose folder we are in, or None. A broken fairway.toml is an error, not None."""
    from fairway.data.project import load_project

    try:
        project = load_project(Path.cwd())
    except ProjectNotFound:
        return None
    return _in_time(project)


def workspace_here() -> "Workspace":
    """Raises: UsageError where there is none."""
    from fairway.store.gateways import follow_clock
    from fairway.store.workspace import Workspace

    workspace = Workspace.find(Path.cwd())
    follow_clock(workspace)
    return workspace


def _in_time(project: "Project") -> "Project":
    """The project, seen by the clock of what serves it."""
    from fairway.store.gateways import follow_clock

    follow_clock(project.workspace)
    return project


def project_for(thing: str | None) -> "Project":
    """The project that THING names, by default the one around us. Raises: ProjectNotFound, ModelNotFound."""
    from fairway.data.project import load_project, project_of

    if thing is None:
        return _in_time(load_project(Path.cwd()))
    here = project_here()
    name = parse_model(thing).model
    if here is not None and here.settings.name == name:
        return here
    return project_of(workspace_here(), name)


def model_for(thing: str | None) -> ModelThing:
    """The model (and version) that THING names, by default the project around us."""
    if thing is not None:
        return parse_model(thing)
    project = project_here()
    if project is None:
        raise UsageError("which model? Name it, for example churn@3, or run this in a project's folder")
    return ModelThing(project.settings.name)


def actor(workspace: "Workspace") -> "Identity":
    """Who asks: the token in FAIRWAY_TOKEN, else the person at this machine. Raises: NotAllowed for a wrong token."""
    from fairway.store import tokens

    given = os.environ.get(TOKEN_VARIABLE)
    if not given:
        return tokens.owner(workspace)
    identity = tokens.identify_any(workspace, given)
    if identity is None:
        raise NotAllowed(f"the token in {TOKEN_VARIABLE} is nobody's here, or has expired")
    return identity


def allowed(workspace: "Workspace", role: str) -> "Identity":
    """The actor, if they may act as `role`. Raises: NotAllowed; StoreReadOnly for who wants to change something."""
    identity = actor(workspace)
    if not identity.may(role):
        raise NotAllowed(f"{identity.name} has no role {role}; it has {', '.join(sorted(identity.roles))}")
    if role == "scientist":  # now, and not after minutes of training
        workspace.store.check_writable()
    return identity
