"""Real servers for these tests: started once per session, each test in a database or bucket of its own."""

import shutil
from collections.abc import Iterator

import pytest
from postgres_server import PostgresServer, binaries
from redis_server import RedisServer
from s3_server import ENVIRONMENT, S3Server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One Postgres for the session. A test that stops it makes its own `PostgresServer()` instead."""
    if binaries() is None:
        pytest.skip("no postgres binary on this machine (Debian: apt-get install postgresql)")
    server = PostgresServer()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """postgresql://… of a fresh, empty database."""
    return postgres_server.new_database()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server with S3's interface (moto) for the session."""
    server = S3Server()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """s3://… in a fresh, empty bucket, with the AWS_* variables set for this process and its children."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3_server.endpoint}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.new_bucket()}/some/where"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for the session. A test that stops or pauses it makes its own `RedisServer()` instead."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on this machine (Debian: apt-get install redis-server)")
    server = RedisServer()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """redis://… of an empty database."""
    return redis_server.new_url()
