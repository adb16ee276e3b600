"""A console over a filled workspace, asked through its ASGI door: no socket, no process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from console_browser import Browser
from fastapi import FastAPI
from filled_store import fill

from fairway.store import tokens
from fairway.store.workspace import Workspace
from fairway.web.app import create_app


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = fill(Path(tmp_path_factory.mktemp("web")))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def app(workspace: Workspace) -> FastAPI:
    return create_app(workspace)


@pytest.fixture(scope="module")
def keys(workspace: Workspace) -> dict[str, str]:
    """One token per role, and the owner's."""
    made = {
        role: tokens.create(workspace.store, name=f"{role}@example.com", roles=[role], actor="test")
        for role in tokens.ROLES
    }
    return {**made, "owner": workspace.token()}


@pytest.fixture
def as_role(app: FastAPI, keys: dict[str, str]) -> Any:
    return lambda role: Browser(app, {"Authorization": f"Bearer {keys[role]}"})


@pytest.fixture
def browser(app: FastAPI) -> Browser:
    """Without any token."""
    return Browser(app)
