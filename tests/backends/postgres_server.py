"""A real Postgres of its own: made by initdb, run by an unprivileged user on a free port of 127.0.0.1, ended by pid."""

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

OWNER = "fairway"
_OPTIONS = {
    "fsync": "off",  # nothing here outlives the machine; what is committed does outlive a kill of the server
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "logging_collector": "off",
}


def binaries() -> Path | None:
    """The folder of initdb and postgres, newest version first; None where Postgres is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: -int(p.parts[-3]))
    if found:
        return found[0].parent
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path else None


class PostgresServer:
    """Starts at once; `stop` and `start` may alternate: the port and the data stay. `remove` ends it for good."""

    def __init__(self) -> None:
        bin_folder = binaries()
        assert bin_folder is not None, "no postgres here"
        self._bin = bin_folder
        self._user = _unprivileged()  # postgres refuses to run as root
        self.folder = Path(tempfile.mkdtemp(prefix="fairway-postgres-"))
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        # ICU's English order is not the order of bytes: what sorts texts has to say which it means.
        self._run(
            "initdb", "--no-sync", "--auth=trust", f"--username={OWNER}", "--encoding=UTF8", "--locale=C",
            "--locale-provider=icu", "--icu-locale=en-US", "-D", str(self.folder / "data"),
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Run, and wait until it answers."""
        options = [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._bin / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd="/",
                user=self._user,
                start_new_session=True,
            )
        until_s = time.monotonic() + 30
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < until_s, "postgres did not start within 30 s"
            time.sleep(0.02)

    def stop(self, *, kill: bool = False) -> None:
        """End it as a restart does (connections are cut, transactions rolled back); `kill`: as a crash does."""
        if self.process is None:
            return
        if kill:
            self.process.send_signal(signal.SIGQUIT)  # immediate: as after a crash, but no child is left
        else:
            self.process.send_signal(signal.SIGINT)  # fast
        self.process.wait(timeout=30)
        self.process = None

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.execute(f"create database {name}")
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, *, database: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def remove(self) -> None:
        self.stop(kill=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            return True
        return False

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            [str(self._bin / command[0]), *command[1:]], capture_output=True, text=True, cwd="/", user=self._user
        )
        assert done.returncode == 0, done.stderr


def _unprivileged() -> str | None:
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise AssertionError(f"{getpass.getuser()} can't run postgres, and there is no user postgres or nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
