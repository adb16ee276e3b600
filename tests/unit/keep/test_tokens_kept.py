"""Tokens: ends, last uses to the hour, revoking; wrong ones are slowed, and no token is ever written down."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from fairway import clock
from fairway.errors import RequestError, ThingNotFound
from fairway.serve.access import Access, Token
from fairway.store import schema, tokens
from fairway.store.workspace import Workspace

HEADERS = {"host": "127.0.0.1:8080", "content-type": "application/json"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path)


def last_used(workspace: Workspace, name: str) -> Any:
    return next(row.last_used_at for row in tokens.named(workspace.store) if row.name == name)


def test_the_last_use_is_written_once_an_hour(workspace: Workspace, tmp_path: Path, monkeypatch: Any) -> None:
    from datetime import UTC, datetime

    start = datetime(2026, 3, 1, tzinfo=UTC)
    moved = clock.VirtualClock(tmp_path / "clock", start)
    monkeypatch.setenv(clock.VARIABLE, str(tmp_path / "clock"))
    token = tokens.create(workspace.store, name="kim", roles=["viewer"], actor="t")
    assert last_used(workspace, "kim") is None
    for minutes in (0, 20, 59):
        moved.move(start + timedelta(minutes=minutes))
        assert tokens.identify(workspace.store, token)
        assert last_used(workspace, "kim") == start
    moved.move(start + timedelta(minutes=60))
    assert tokens.note_used(workspace.store, {tokens.digest_of(token): clock.now(), "0" * 64: clock.now()}) == 1
    assert last_used(workspace, "kim") == start + timedelta(hours=1)


def test_a_revoked_token_is_nobodys_and_its_name_is_free(workspace: Workspace) -> None:
    token = tokens.create(workspace.store, name="kim", roles=["admin"], actor="t")
    tokens.revoke(workspace.store, name="kim", actor="ana", why="left")
    assert tokens.identify(workspace.store, token) is None
    with pytest.raises(ThingNotFound, match="no token is named 'kim'"):
        tokens.revoke(workspace.store, name="kim", actor="ana")
    again = tokens.create(workspace.store, name="kim", roles=["viewer"], actor="t")
    assert tokens.identify(workspace.store, again) and tokens.identify(workspace.store, token) is None


def test_a_gateway_slows_wrong_tokens_and_never_right_ones() -> None:
    access = Access([Token(tokens.digest_of("fw_right"), ["predict"])])

    def call(token: str | None) -> str:
        headers = HEADERS | ({"authorization": f"Bearer {token}"} if token else {})
        try:
            access.check("POST", "/v1/models/x/predict", headers, role="predict")
        except RequestError as error:
            return error.code
        return "in"

    assert [call(None) for _ in range(50)] == ["unauthorized"] * 50  # naming no token is no guess
    assert [call(f"fw_{n}") for n in range(21)] == ["unauthorized"] * 20 + ["too_many_failures"]
    assert call("fw_right") == "in" and call("fw_wrong") == "too_many_failures" and call("fw_right") == "in"
    (used,) = access.take_used().items()
    assert used[0] == tokens.digest_of("fw_right") and access.take_used() == {}


def test_a_token_is_nowhere_in_what_is_written_or_said(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    from fairway.web.app import create_app

    caplog.set_level(logging.DEBUG)
    token = tokens.create(workspace.store, name="kim", roles=["admin"], actor="t")
    app = create_app(workspace, hosts=("127.0.0.1",))

    async def ask() -> list[str]:
        said = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            for given in (f"Bearer {token}", f"Bearer {token}x", f"Basic {token}"):
                for path in ("/api/v1/status", "/api/v1/audit", "/api/v1/models/none"):
                    said.append((await client.get(path, headers={"Authorization": given})).text)
        return said

    said = asyncio.run(ask())
    assert len(said) == 9
    tokens.revoke(workspace.store, name="kim", actor="t")
    written = b"".join(p.read_bytes() for p in workspace.folder.rglob("*") if p.is_file())
    assert token.encode() not in written and token not in "".join(said) and token not in caplog.text
    with workspace.store.read() as tx:
        assert token not in repr(tx.execute(sa.select(schema.audit)).all())
