"""Project code that misbehaves ends as a failed run with its reason, and nothing of it is left."""

import os
import time
from pathlib import Path

import pytest

from fairway.errors import ModelCodeError
from fairway.training.child import Limits, run_child

PRELUDE = "import os, sys, time, signal, threading, subprocess\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the body of a function `work(payload)` of a module that only the child imports."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "model.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))

    def start(body: str, *, time_s: float = 20.0, memory_mb: int = 1024, payload: dict | None = None):
        text = PRELUDE + "def work(payload):\n" + "".join(f"    {line}\n" for line in body.splitlines())
        (tmp_path / "code" / "planted.py").write_text(text)
        limits = Limits(time_s=time_s, memory_mb=memory_mb, threads=1)
        return run_child("planted:work", payload or {}, limits, cwd=tmp_path, log=tmp_path / "log.txt")

    start.log = tmp_path / "log.txt"
    return start


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_value_comes_back_and_what_was_printed_is_in_the_log(run):
    body = "print('hello')\nsys.stderr.write('there')\nreturn {'twice': payload['n'] * 2}"
    assert run(body, payload={"n": 4}) == {"twice": 8}
    assert b"hello" in run.log.read_bytes() and b"there" in run.log.read_bytes()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('no such thing')", r"planted.py line 3, in work\(\): ValueError: no such thing"),
        ("sys.exit(0)", r"planted.py line 3, in work\(\): called sys.exit\(0\)"),
        ("os._exit(0)", r"exit code 0\) before it had a result"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
        ("import ctypes\nctypes.string_at(0)", "killed by signal 11"),
        ("os.abort()", "killed by signal 6"),
        ("import polars as pl\ndata = pl.DataFrame({'Charges': [1]})\ndata.select('Charge')",
         'column "Charge" not found; the table has "Charges"'),
        ("import no_such_package", "no_such_package is neither installed"),
        ("return {1, 2}", "not JSON serializable"),
        ("b = bytearray(64 << 30)", "out of memory"),
    ],
)  # fmt: skip
def test_every_end_has_its_reason(run, body, said):
    with pytest.raises(ModelCodeError, match=said):
        run(body)
    assert run("return 1") == 1  # the next run works


@pytest.mark.parametrize(
    "body", ["while True:\n    pass", "time.sleep(1000)", "signal.signal(15, signal.SIG_IGN)\ntime.sleep(99)"]
)
def test_a_hang_is_stopped_at_the_time_limit(run, body):
    with pytest.raises(ModelCodeError, match="time limit"):
        run(body, time_s=1.0)


def test_memory_that_grows_is_stopped_and_the_parent_lives(run):
    with pytest.raises(ModelCodeError, match="out of memory"):
        run("held = []\nwhile True:\n    held.append(bytearray(8 << 20))", memory_mb=300)


def test_children_threads_and_daemons_end_with_the_run(run, tmp_path):
    body = (
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "a = subprocess.Popen(['sleep', '1000'])\n"
        "b = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "return [a.pid, b.pid]"
    )
    pids = run(body)
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, pids))


def test_a_gigabyte_of_output_and_a_closed_stdout_do_no_harm(run):
    assert (
        run("line = b'x' * (1 << 20)\nfor _ in range(200):\n    os.write(1, line)\nos.close(1)\nos.close(2)\nreturn 7")
        == 7
    )
    assert run.log.stat().st_size < 65 << 20


def test_a_fork_that_returns_is_not_the_run(run):
    assert run("if os.fork() == 0:\n    return 'child'\ntime.sleep(0.3)\nreturn 'parent'") == "parent"


def test_the_state_that_it_changes_is_its_own(run, tmp_path):
    before = (Path.cwd(), dict(os.environ))
    run("os.chdir('/')\nos.environ['PATH'] = ''\nos.umask(0)\nreturn 1")
    assert (Path.cwd(), dict(os.environ)) == before


def test_it_gets_no_keys_to_our_servers(run, monkeypatch):
    kept = {"PROJECT_KEY": "of the project", "FAIRWAY_WORKSPACE": "default"}
    ours = ["FAIRWAY_STORE", "FAIRWAY_BLOBS", "FAIRWAY_ONLINE", "FAIRWAY_TOKEN", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY"]
    for name in ours:
        monkeypatch.setenv(name, "planted")
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    given = run("return dict(os.environ)")
    assert kept.items() <= given.items() and "planted" not in given.values()
