"""A real Redis of its own on a free port of 127.0.0.1, ended by pid."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

DATABASES = 64


class RedisServer:
    """Starts at once. `pause` stops its process as a machine that hangs does; `resume` lets it go on."""

    def __init__(self) -> None:
        found = shutil.which("redis-server")
        assert found is not None, "no redis-server here"
        self._program, self._taken = found, 0
        self.folder = Path(tempfile.mkdtemp(prefix="fairway-redis-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        import redis

        command = [
            self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
            "--appendonly", "no", "--databases", str(DATABASES),
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder)
        client, until_s = redis.Redis(port=self.port), time.monotonic() + 20
        try:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    assert self.process.poll() is None and time.monotonic() < until_s, "redis did not start"
                    time.sleep(0.02)
        finally:
            client.close()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def new_url(self) -> str:
        """redis://… of an empty database."""
        import redis

        number, self._taken = self._taken % DATABASES, self._taken + 1
        with redis.Redis(port=self.port, db=number) as client:
            client.flushdb()
        return f"redis://127.0.0.1:{self.port}/{number}"

    def remove(self) -> None:
        if self.process is not None:
            self.resume()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
