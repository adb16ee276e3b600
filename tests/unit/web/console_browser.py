"""Asks a console through its ASGI door: no socket, no process, no browser. Tests import the fixtures by name."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from filled_store import fill

from fairway.store import tokens
from fairway.store.workspace import Workspace
from fairway.web.app import create_app

HOST = "http://127.0.0.1:8081"


@dataclass
class Browser:
    """Sends requests one by one and keeps cookies."""

    app: FastAPI
    headers: dict[str, str] = field(default_factory=dict)
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            door = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=door, base_url=HOST, headers=self.headers, cookies=self.cookies
            ) as client:
                answer = await client.request(method, path, **options)
                self.cookies = client.cookies
                return answer

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("POST", path, **options)


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
